"""Local copies of what libraries read from files alone, such as a bundle's weights."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from segbatch.storage.objects import ObjectPath
from segbatch.storage.place import is_remote, place
from segbatch.storage.scratch import find_copy, keep_copy, scratch_folder


def local_copy(folder: str | Path) -> Path:
    """The folder itself, or a copy of the objects below it, but for hidden ones.

    All processes of a machine share the copy, which stays for a day after it was last asked for.

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
    if not objects:
        raise FileNotFoundError(2, "nothing is there", str(root))
    digest = hashlib.sha256(repr(sorted((str(path), version) for path, version in objects)).encode()).hexdigest()
    name = digest[:32]
    copy = find_copy(name)
    if copy is not None:
        return copy
    with scratch_folder() as scratch:
        for path, _ in objects:
            file = scratch / name / path.relative_to(root).as_posix()
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(path.read_bytes())
        return keep_copy(scratch / name, name)
