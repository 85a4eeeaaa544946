"""Files that appear whole or not at all.

What is being made lives in a hidden folder beside its target, on the same file system, and is moved into
place last. A killed process leaves such a folder behind, never half a file under the real name. Each command sweeps up
such folders (`RunFolder.sweep`) before and after its work: to look for them at each of ten thousand scenes would take
longer than the scenes.
"""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial"
"""Ending of every temporary file and folder."""


@contextmanager
def staging_folder(target: Path) -> Iterator[Path]:
    """A new empty folder beside ``target``, removed on the way out with all that is still in it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = target.parent / f".{target.name}.{uuid.uuid4().hex}{PARTIAL}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder, which is never seen half-removed."""
    if folder.exists():
        with staging_folder(folder) as doomed:  # renaming is atomic, removing is not
            folder.replace(doomed / folder.name)


def write_whole(file: Path, content: bytes) -> None:
    """Write a file so that it is never seen half-written and is on the disk when this returns.

    Raises:
        OSError: The disk is full, or the folder cannot be written to.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            # The ledger's row, written next, promises that this block outlives a crash.
            os.fsync(stream.fileno())
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
