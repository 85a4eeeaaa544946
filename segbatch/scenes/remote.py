"""What tells the versions of a file on the web, or in an object store, apart without reading it."""

from collections import Counter
from urllib.parse import urlsplit

from segbatch.errors import InputError
from segbatch.redaction import is_redacted, redact
from segbatch.storage import ImagePath, NoCredentialsError, is_store_url

_SECONDS = (5.0, 20.0)
"""For a server to take a connection, and to answer."""

_BUSY = (429, 500, 502, 503, 504)
"""Answers after which a server is asked again."""

_MOST_RETRIES, _FIRST_PAUSE = 3, 0.5

_MOST_FAILURES = 8
"""Of a server in a row: thousands of scenes would wait for it one after the other."""

_failures: Counter[str] = Counter()
_without_credentials: set[str] = set()
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
    on_the_web = uri.startswith(("http://", "https://"))
    if not on_the_web and not is_store_url(uri):
        return None
    try:
        server = urlsplit(uri).netloc.rpartition("@")[2]
    except ValueError:  # of addresses that are none, who opens them tells
        return None
    # What libraries say of it may hold the address, and what is secret in it.
    problem = InputError(f"{redact(uri)}: whether it has changed cannot be told, its server does not answer.")
    if _failures[server] >= _MOST_FAILURES:
        raise problem
    try:
        found = _tag_on_the_web(uri) if on_the_web else _tag_in_a_store(uri, server)
    except OSError as error:
        _failures[server] += 1
        raise problem from error
    _failures.pop(server, None)
    return found


def _tag_on_the_web(uri: str) -> str | None:
    # Every process that reads or writes blocks imports this module, and few ask the web.
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    retry = Retry(
        _MOST_RETRIES, status_forcelist=_BUSY, allowed_methods=("HEAD",), redirect=10, backoff_factor=_FIRST_PAUSE
    )
    try:
        with requests.Session() as session:
            session.mount("http://", HTTPAdapter(max_retries=retry))
            session.mount("https://", HTTPAdapter(max_retries=retry))
            answer = session.head(uri, timeout=_SECONDS, allow_redirects=True)
    except ValueError:  # no address, to this library
        return None
    # Others than these: it may be signed for reading alone.
    return (answer.headers.get("ETag") or answer.headers.get("Last-Modified")) if answer.ok else None


def _tag_in_a_store(uri: str, bucket: str) -> str | None:
    if bucket in _without_credentials:
        return None
    try:
        found = ImagePath(uri).stat()
    except NoCredentialsError:
        _without_credentials.add(bucket)
        return None
    except (FileNotFoundError, PermissionError, ValueError):
        return None
    return f"{found.version.strip()} {found.st_size}"
