"""What of the working directory is sent along with a job, by Ray's own rules, and whether it is small enough."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segbatch.commands.progress import counted, say
from segbatch.errors import InputError

EXCLUDES = ("/runs/", ".*_cache/", ".hypothesis/", "*.egg-info/")
"""Never of use to a job. Ray itself leaves out .git, .venv, venv and __pycache__, and what .gitignore and .rayignore
name."""

IMAGES = (".tif", ".tiff", ".img", ".jp2", ".ovr", ".svs", ".ndpi", ".nc", ".h5")
LARGE_IMAGE = 32 * 2**20
"""Bytes from which on an image is not sent: it would go through the head's memory to every node."""

_MUCH = 100 * 2**20
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Package:
    """What is sent.

    Args:
        folder: The working directory.
        files: Size in bytes by path below it.
        images: The same of large images, which are not sent.
        links: Symbolic links that lead out of the working directory, which are not sent either.
        excludes: What Ray is told to leave out, as in a .gitignore.
    """

    folder: Path
    files: Mapping[str, int]
    images: Mapping[str, int]
    links: tuple[str, ...]
    excludes: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of the archive, in which Ray does not compress: each file is there with its two headers."""
        return sum(size + 2 * len(name.encode()) + 76 for name, size in self.files.items()) + 22

    def holds(self, path: str) -> bool:
        """Whether a file is sent, or anything below a folder; the path counts from the working directory."""
        inside = Path(os.path.normpath(path)).as_posix()
        return inside == "." or inside in self.files or any(name.startswith(f"{inside}/") for name in self.files)


def pack(folder: Path, excludes: Sequence[str] = (), output: str | None = None) -> Package:
    """See what would be sent; nothing is read but names and sizes.

    Args:
        folder: The working directory.
        excludes: More to leave out, as in a .gitignore.
        output: Folder of the run, which is not sent either where it lies below.

    Raises:
        InputError: There is no such folder, or it is too large.
    """
    from ray._private.runtime_env.packaging import GCS_STORAGE_MAX_SIZE

    if not folder.is_dir():
        raise InputError(f"The working directory {folder} does not exist.")
    folder, ours = folder.resolve(), (*EXCLUDES, *excludes)
    if output and Path(output).is_relative_to(folder) and Path(output) != folder:
        ours = (*ours, f"{_exactly(Path(output).relative_to(folder).as_posix())}/")
    found, links = _sizes(folder, ours)
    images = {name: size for name, size in found.items() if size > LARGE_IMAGE and name.lower().endswith(IMAGES)}
    files = {name: size for name, size in found.items() if name not in images}
    package = Package(folder, files, images, links, (*ours, *map(_exactly, (*images, *links))))
    if package.size >= GCS_STORAGE_MAX_SIZE:
        raise InputError(
            f"The working directory {folder} is too large to send: {_mebibytes(package.size)} in "
            f"{counted(len(files), 'file')}, and Ray takes {_mebibytes(GCS_STORAGE_MAX_SIZE)}. Leave out what the job "
            f"does not need, with --exclude or in .rayignore: {_largest(files)}."
        )
    return package


def tell(package: Package) -> None:
    """Say what is sent, and what is not."""
    say(f"Sending {counted(len(package.files), 'file')}, {_mebibytes(package.size)}, of {package.folder}")
    if package.size > _MUCH:
        say(f"  That is much; --exclude or .rayignore leaves out what is not needed: {_largest(package.files)}")
    if package.images:
        say(
            f"  Not sent, as they are large: {_largest(package.images)}. Images belong where all nodes find them, "
            "as on a shared file system."
        )
    if package.links:
        more = ", ..." if len(package.links) > _NAMED else ""
        say(f"  Not sent, as these links lead out of the folder: {', '.join(package.links[:_NAMED])}{more}")


def _sizes(folder: Path, excludes: Sequence[str]) -> tuple[dict[str, int], tuple[str, ...]]:
    """Size in bytes of each file that Ray would pack, by its path below the folder; and links that lead out of it.

    A link to somebody's keys, or to a whole disk, is no part of the directory that is sent.
    """
    from ray._private.ray_constants import RAY_RUNTIME_ENV_IGNORE_GITIGNORE, get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import _dir_travel, _get_excludes

    sizes: dict[str, int] = {}
    links: list[str] = []

    def leads_out(path: Path) -> bool:
        if not path.is_symlink() or path.resolve().is_relative_to(folder):
            return False
        links.append(path.relative_to(folder).as_posix())
        return True

    def note(path: Path) -> None:
        if path.is_file():
            sizes[path.relative_to(folder).as_posix()] = path.stat().st_size

    silent = logging.getLogger(f"{__name__}.walk")
    silent.setLevel(logging.CRITICAL)
    # Ray's own walk, so that what is told here is what it packs: a second reading of its rules would differ some day.
    rule = _get_excludes(folder, [*get_runtime_env_default_excludes(), *excludes])
    gitignore = os.environ.get(RAY_RUNTIME_ENV_IGNORE_GITIGNORE, "0") != "1"
    try:
        _dir_travel(folder, [rule, leads_out], note, include_gitignore=gitignore, logger=silent)
    except OSError as error:
        raise InputError(
            f"{error.filename or folder} cannot be read: {error.strerror}. Leave it out with --exclude."
        ) from error
    return sizes, tuple(sorted(links))


def _exactly(name: str) -> str:
    """The pattern of a .gitignore that names this file alone."""
    special = str.maketrans({letter: f"\\{letter}" for letter in "\\*?[] #!"})
    return f"/{name.translate(special)}"


def _largest(files: Mapping[str, int]) -> str:
    names = sorted(files, key=lambda name: (-files[name], name))
    named = ", ".join(f"{name} ({_mebibytes(files[name])})" for name in names[:_NAMED])
    return named + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB" if size < 2**30 else f"{size / 2**30:.1f} GiB"
