"""Files that appear whole or not at all.

In a folder, what is being made lives in a hidden file or folder beside its target, on the same file system, and is
moved into place last. A killed process leaves such things behind, never half a file under the real name. Each command
sweeps them up (`RunFolder.sweep`) before and after its work: to look for them at each of ten thousand scenes would
take longer than the scenes. In an object store writes are whole by themselves, and what is made of several files is
made in a local temporary folder and sent.
"""

import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from segbatch.storage.objects import MARK, ObjectPath
from segbatch.storage.place import is_remote
from segbatch.storage.scratch import PARTIAL, scratch_folder


@contextmanager
def staging_folder(target: Path) -> Iterator[Path]:
    """A new empty folder beside ``target``, or a local one for an object, removed on the way out with all in it."""
    if is_remote(target):
        with scratch_folder() as scratch:
            yield scratch
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = target.parent / f".{target.name}.{uuid.uuid4().hex}{PARTIAL}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder, which is never seen half-removed where renaming is atomic."""
    if is_remote(folder):
        folder.remove_below()
    elif folder.exists():
        with staging_folder(folder) as doomed:  # renaming is atomic, removing is not
            folder.replace(doomed / folder.name)


def remove_tree(folder: Path) -> None:
    """Remove what can be removed of a folder, which need not be there."""
    if is_remote(folder):
        with suppress(OSError):
            folder.remove_below()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def move(source: Path, target: Path) -> None:
    """Put a file, or a folder that is not there yet, into its place.

    Args:
        source: In a staging folder of the target.
        target: Where it goes.
    """
    if not is_remote(target):
        source.replace(target)
    elif source.is_dir():
        _send(source, target, MARK)
    else:
        target.put(source)


def move_over(source: Path, target: Path, last: str = MARK) -> None:
    """Put a file or folder in the place of one that may be there. After a kill, a second call ends as the first.

    Args:
        source: On the same file system, or in the same bucket; an object store's folders are Zarr stores. Or a local
            folder that goes to an object store.
        target: Where it goes.
        last: Name of the file that is sent after a folder's others.
    """
    if is_remote(target) and not is_remote(source):
        target.remove_below()
        _send(source, target, last)
        return
    if is_remote(source) and is_remote(target):
        if source.is_file():
            source.replace(target)
            return
        if (source / MARK).is_file():  # else all of it was copied, and part of it removed, before a kill
            target.remove_below()
            source.copy_below(target)
        source.remove_below()
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        with staging_folder(target) as doomed:
            target.replace(doomed / target.name)
            source.replace(target)
    else:
        source.replace(target)


def _send(folder: Path, target: ObjectPath, last: str) -> None:
    """Send all files of a local folder, one of them after the others: where it is, all are."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for file in sorted(files, key=lambda path: path == folder / last):
        (target / file.relative_to(folder).as_posix()).put(file)


def write_whole(file: Path, content: bytes | Iterable[bytes]) -> None:
    """Write a file so that it is never seen half-written and is on the disk, or in the store, when this returns.

    Args:
        file: Its place.
        content: All of it, or its pieces one after the other.

    Raises:
        OSError: The disk is full, or the folder or store cannot be written to.
    """
    if is_remote(file):
        if isinstance(content, bytes):
            file.put(content)
        else:
            file.put_pieces(content)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        with partial.open("wb") as stream:
            stream.writelines([content] if isinstance(content, bytes) else content)
            stream.flush()
            # The ledger's row, written next, promises that this block outlives a crash.
            os.fsync(stream.fileno())
        partial.replace(file)
    except OSError as error:
        error.filename = error.filename or str(file)  # which a full disk does not name
        raise
    finally:
        partial.unlink(missing_ok=True)


def append(file: Path, line: bytes) -> None:
    """Add a line to a file, which an object cannot be; on return it is on the disk.

    Raises:
        OSError: The disk is full, or the folder cannot be written to.
    """
    with file.open("ab") as stream:
        stream.write(line)
        stream.flush()
        os.fsync(stream.fileno())


def read_range(file: Path, start: int, size: int) -> bytes:
    """Bytes of a file; fewer where it ends before.

    Raises:
        OSError: It cannot be read, or is not there.
    """
    if is_remote(file):
        return file.read_range(start, size)
    with file.open("rb") as stream:
        stream.seek(start)
        return stream.read(size)
