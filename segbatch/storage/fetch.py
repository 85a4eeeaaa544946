"""Local copies of what libraries read from files alone, such as a bundle's weights."""

import atexit
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

from segbatch.storage.objects import ObjectPath
from segbatch.storage.place import is_remote, place


def local_copy(folder: str | Path) -> Path:
    """The folder itself, or a copy of all objects below it that lasts as long as this process.

    Raises:
        OSError: The store cannot be read.
    """
    found = place(folder)
    if not is_remote(found):
        return found
    return _fetched(found, tuple((str(path), status.version) for path, status in found.walk_objects()))


@lru_cache(maxsize=8)
def _fetched(folder: ObjectPath, objects: tuple[tuple[str, str], ...]) -> Path:
    scratch = Path(tempfile.mkdtemp(prefix="segbatch-"))
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    for name, _ in objects:
        source = ObjectPath(name)
        target = scratch / source.relative_to(folder).as_posix()
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    return scratch
