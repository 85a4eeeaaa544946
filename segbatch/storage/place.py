"""From what users write to what reads and writes."""

import os
import re
from pathlib import Path
from typing import TypeGuard, cast

from segbatch.redaction import redact
from segbatch.storage.client import SCHEMES
from segbatch.storage.objects import ObjectPath

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://")


def is_url(text: str) -> bool:
    """Whether it names something by a URL, of whatever kind."""
    return _URL.match(text) is not None


def is_store_url(text: str) -> bool:
    """Whether it is a URL of an object store, as far as its beginning tells."""
    found = _URL.match(text)
    return found is not None and found["scheme"] in SCHEMES


def place(text: "str | os.PathLike[str]") -> Path:
    """The file or folder of a path, or of a URL of an object store.

    What it gives for a URL is an `ObjectPath`, which has the methods of `Path` that are used.

    Args:
        text: A path, or ``s3://bucket/name``, ``gs://bucket/name``, ``az://container/name``; or a place.

    Raises:
        ValueError: Another kind of URL, or one without a bucket.
    """
    if isinstance(text, ObjectPath):
        return cast(Path, text)
    text = os.fspath(text)
    found = _URL.match(text)
    if found is None:
        return Path(text)
    if found["scheme"] not in SCHEMES:
        raise ValueError(f"{redact(text)} is none of {', '.join(f'{scheme}://' for scheme in SCHEMES)}, nor a folder")
    if any(mark in text for mark in "?#@"):
        raise ValueError(f"{redact(text)} holds more than a bucket and a name; credentials come from the environment")
    path = ObjectPath(text.rstrip("/"))
    if len(path.parts) < 3 or ".." in path.parts:
        raise ValueError(f"{text} has to be {found['scheme']}://bucket/name")
    return cast(Path, path)


def is_remote(path: object) -> TypeGuard[ObjectPath]:
    """Whether a place is in an object store."""
    return isinstance(path, ObjectPath)
