"""Local copies of what libraries read from files alone, such as a bundle's weights."""

import hashlib
import os
import stat
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

from segbatch.storage.objects import ObjectPath
from segbatch.storage.place import is_remote, place


def local_copy(folder: str | Path) -> Path:
    """The folder itself, or a copy of the objects below it, but for hidden ones.

    All processes of a machine share the copy, which stays: of processes that are killed none would remove its own.

    Raises:
        OSError: The store cannot be read.
    """
    found = place(folder)
    if not is_remote(found):
        return found
    objects = [
        (path, status.version)
        for path, status in found.walk_objects()
        if not any(part.startswith(".") for part in path.relative_to(found).parts)
    ]
    return _fetch(objects, found)


def local_file(file: str | Path) -> Path:
    """The file itself, or a copy of the object; see `local_copy`.

    Raises:
        OSError: The store cannot be read, or there is no such object.
    """
    found = place(file)
    if not is_remote(found):
        return found
    return _fetch([(found, found.stat().version)], found.parent) / found.name


def _fetch(objects: Sequence[tuple[ObjectPath, str]], root: ObjectPath) -> Path:
    """A local folder with the objects, of these versions, by their names below the root."""
    digest = hashlib.sha256(repr(sorted((str(path), version) for path, version in objects)).encode()).hexdigest()
    target = _cache() / digest[:32]
    if not target.is_dir():
        scratch = target.with_name(f"{target.name}.{uuid.uuid4().hex}")
        for path, _ in objects:
            file = scratch / path.relative_to(root).as_posix()
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(path.read_bytes())
        _settle(scratch, target, root)
    return target


def _settle(scratch: Path, target: Path, found: ObjectPath) -> None:
    if not scratch.is_dir():
        raise FileNotFoundError(2, "nothing is there", str(found))
    try:
        scratch.rename(target)
    except OSError:
        if not target.is_dir():  # else another process was quicker, with the same content
            raise


def _cache() -> Path:
    """A folder of this user's alone, whose content nobody else can have put there."""
    folder = Path(tempfile.gettempdir(), f"segbatch-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        return Path(tempfile.mkdtemp(prefix="segbatch-"))
    return folder
