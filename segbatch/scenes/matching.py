"""What a pattern stands for: files of folders, or objects of a store."""

import glob
import os
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from itertools import takewhile

from segbatch.errors import InputError
from segbatch.redaction import redact
from segbatch.storage import ImagePath

_ESCAPED = re.compile(r"\[([*?[])\]")
"""What `glob.escape` makes of a letter that would make a pattern."""


def match_files(path: str, pattern: str) -> list[str]:
    """Files that match, in order.

    Args:
        path: As it is written; a file of this very name is the only one.
        pattern: The same, where what is no pattern is as `glob.escape` gives it.

    Raises:
        InputError: There is none, nor the folder that it looks into: one that is not mounted is none that is empty.
    """
    if os.path.exists(path):
        return [path]
    found = sorted(glob.glob(pattern, recursive=True))
    folder = _split(pattern)[0] or "/"
    if not found and not os.path.isdir(folder):
        raise InputError(
            f"No image matches {path}: the folder {folder} does not exist. Mount or make it, or correct the path."
        )
    return found


def match_objects(path: str, pattern: str) -> list[str]:
    """URLs of the objects that match, in order; see `match_files`.

    Raises:
        InputError: The store cannot be asked.
    """
    if glob.has_magic("/".join(path.split("/")[:3])):  # s3:, nothing, the bucket
        raise InputError(f"{redact(path)} cannot be listed: name the bucket, without *, ? and [.")
    url, steps = _split(pattern)
    folder = ImagePath(url)
    try:
        if ImagePath(path).is_file():
            return [path]
        everything = (found for found, _ in folder.walk_objects())
        candidates = list(everything if "**" in steps else folder.glob("/".join(steps), objects_only=True))
    except OSError as error:
        raise InputError(f"{redact(path)} cannot be listed: {error.strerror or error}.") from error
    return sorted(str(found) for found in candidates if _fits(found.relative_to(folder).parts, steps))


def _split(pattern: str) -> tuple[str, list[str]]:
    """The folder that a pattern looks into, and the steps from there."""
    steps = pattern.split("/")
    plain = list(takewhile(lambda step: not glob.has_magic(_ESCAPED.sub("", step)), steps[:-1]))
    return _ESCAPED.sub(r"\1", "/".join(plain)), steps[len(plain) :]


def _fits(names: Sequence[str], steps: Sequence[str]) -> bool:
    """Whether a path is one that `glob` would find: ``**`` is any number of steps, and stars leave hidden names out."""
    if not steps:
        return not names
    if steps[0] == "**":
        last = next((number for number, name in enumerate(names) if name.startswith(".")), len(names))
        rest = steps[1:] or ["*"]
        return any(_fits(names[skipped:], rest) for skipped in range(last + 1))
    return (
        bool(names)
        and fnmatchcase(names[0], steps[0])
        and (steps[0].startswith(".") or not names[0].startswith("."))
        and _fits(names[1:], steps[1:])
    )
