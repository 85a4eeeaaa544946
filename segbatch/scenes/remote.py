"""What tells the versions of a file on the web apart without reading it."""

import urllib.request
from http.client import HTTPException

from segbatch.errors import InputError
from segbatch.redaction import is_redacted

_SECONDS = 20


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
    """The server's tag of a file's version, or when it was last modified; None where neither can be told.

    Of other files than those on the web, too: GDAL reads these, and does not say.
    """
    if not uri.startswith(("http://", "https://")):
        return None
    try:
        request = urllib.request.Request(uri, method="HEAD")  # noqa: S310 - of the web, as was seen to above
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310 - as above
            found: str | None = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
            return found
    except (OSError, HTTPException, ValueError):
        return None
