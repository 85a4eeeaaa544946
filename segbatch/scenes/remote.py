"""What tells the versions of a file on the web, or in an object store, apart without reading it."""

import time
import urllib.error
import urllib.request
from base64 import b64encode
from http.client import HTTPException
from urllib.parse import unquote, urlsplit

from segbatch.errors import InputError
from segbatch.redaction import is_redacted, redact
from segbatch.storage import NoCredentialsError, QuickPath, is_remote, place

_SECONDS = 20
_PAUSES = (0.5, 2.0, None)
"""Seconds to wait when a server is busy, attempt by attempt."""

_unknown: set[str] = set()
"""Buckets for which this process has no credentials: to find that out takes seconds."""


def refuse_redacted(uri: str) -> None:
    """Refuse an address that lost its password or signature when it was written to one of a run's files.

    Raises:
        InputError: It is one.
    """
    if is_redacted(uri):
        raise InputError(
            f"{uri} has lost its password or signature, of which segbatch keeps none in files: name it as you did when "
            "it was read first, or run that command again."
        )


def etag(uri: str) -> str | None:
    """The server's tag of a file's version, or when it was last modified; None where there is neither.

    None, too, for files that are neither on the web nor in an object store, and for those that the server lets GDAL
    read but does not let us ask about.

    Raises:
        InputError: The server is busy or does not answer: whether the file is another one cannot be told now.
    """
    try:
        if uri.startswith(("http://", "https://")):
            return _tag_on_the_web(uri) if urlsplit(uri).hostname else None
        return _tag_in_a_store(uri)
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise InputError(f"{redact(uri)} does not say whether it has changed: {reason}.") from error


def _tag_on_the_web(uri: str) -> str | None:
    address, headers = _without_password(uri)
    for pause in _PAUSES:
        try:
            request = urllib.request.Request(address, headers=headers, method="HEAD")  # noqa: S310 - of the web, see above
            with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310 - as above
                found: str | None = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
                return found
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code != 429:  # such as an address that is signed for reading alone
                return None
            if pause is None:
                raise
            time.sleep(pause)
    raise AssertionError("the last attempt raises")


def _without_password(uri: str) -> tuple[str, dict[str, str]]:
    """The address, and the header that says what it said of user and password, which urllib does not know there."""
    found = urlsplit(uri)
    if found.username is None:
        return uri, {}
    known = f"{unquote(found.username)}:{unquote(found.password or '')}"
    basic = b64encode(known.encode()).decode()
    return found._replace(netloc=found.netloc.rpartition("@")[2]).geturl(), {"Authorization": f"Basic {basic}"}


def _tag_in_a_store(uri: str) -> str | None:
    try:
        path = place(uri)
    except ValueError:
        return None
    bucket = "/".join(uri.split("/")[:3])
    if not is_remote(path) or bucket in _unknown:
        return None
    try:
        found = QuickPath(path).stat()
    except NoCredentialsError:
        _unknown.add(bucket)
        return None
    except (FileNotFoundError, PermissionError):
        return None
    return f"{found.version.strip()} {found.st_size}"
