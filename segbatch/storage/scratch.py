"""This user's folder in the system's temporary folder: what is needed for a while, and copies that all processes share.

Killed processes remove nothing. Their files must not fill the disk, so whoever makes a folder here first removes those
that no living process holds, and copies that nobody has used for a day.
"""

import fcntl
import functools
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

PARTIAL = ".partial"
"""Ending of every temporary file and folder; what has another one here is a copy."""

UNUSED_SECONDS = 86_400.0
"""After which a copy is removed. Who has asked for one reads its files within that time."""


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new empty folder, removed on the way out with all in it, or after a kill by who makes the next one."""
    root = _root()
    with ExitStack() as held:
        with _hold(root):  # nobody sweeps between making and holding
            _sweep(root)
            folder = Path(tempfile.mkdtemp(suffix=PARTIAL, dir=root))
            held.enter_context(_hold(folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def find_copy(name: str) -> Path | None:
    """A shared copy that is there, which counts as used."""
    root = _root()
    with _hold(root), suppress(FileNotFoundError):  # nobody removes it as unused at this very moment
        os.utime(root / name)
        return root / name
    return None


def keep_copy(folder: Path, name: str) -> Path:
    """Share what is in a folder of a scratch folder; where another process was quicker, its copy is taken.

    Args:
        folder: Moved, if it is the first.
        name: Says what is in it: who gives the same name has the same content.
    """
    target = _root() / name
    os.utime(folder)
    try:
        folder.rename(target)
    except OSError:
        if not target.is_dir():
            raise
    return target


def _sweep(root: Path) -> None:
    oldest = time.time() - UNUSED_SECONDS
    for entry in root.iterdir():
        with suppress(OSError):
            if not entry.name.endswith(PARTIAL) and entry.stat().st_mtime < oldest:
                entry.rename(entry.with_name(f"{entry.name}{PARTIAL}"))  # half removed, it must not be taken for a copy
    for folder in root.glob(f"*{PARTIAL}"):
        with suppress(OSError), _hold(folder, wait=False):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _hold(folder: Path, wait: bool = True) -> Iterator[None]:
    """Hold a folder, at the longest as long as this process lives.

    Raises:
        OSError: Another one holds it and is not to be waited for, or the folder is gone.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            if not wait:  # else it is a file system without locks, where nothing is found to be held by nobody either
                raise
        yield
    finally:
        os.close(handle)


def _root() -> Path:
    """A folder of this user's alone, whose content nobody else can have put there."""
    folder = Path(tempfile.gettempdir(), f"segbatch-{os.getuid()}")
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        return Path(_root_of_this_process().name)
    return folder


@functools.cache
def _root_of_this_process() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="segbatch-")
