"""Clients of object stores, and what their errors mean to those who work with files.

Credentials, region and endpoint come from the environment, by the names that the providers' own tools use, or from the
machine's role.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import AzureStore, GCSStore, S3Store

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES = ("s3", "gs", "az")

_STORES: dict[str, Any] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
_CLIENT: dict[str, Any] = {"timeout": "120s", "connect_timeout": "20s"}
_RETRY: dict[str, Any] = {"max_retries": 10, "retry_timeout": timedelta(minutes=3)}
_QUICK_CLIENT: dict[str, Any] = {"timeout": "10s", "connect_timeout": "5s"}
_QUICK_RETRY: dict[str, Any] = {"max_retries": 2, "retry_timeout": timedelta(seconds=20)}

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT", "GOOGLE_BASE_URL")
"""Environment variables that name a server of one's own."""

_NO_CREDENTIALS = ("169.254.169.254", "metadata.google.internal", "fd00:ec2::254", "Missing AccessKeyId")
"""In errors: machines in the cloud ask these addresses for the role that they have, as the last resort."""

_UNSIGNED = {"s3": "AWS_NO_SIGN_REQUEST", "gs": "GS_NO_SIGN_REQUEST", "az": "AZURE_NO_SIGN_REQUEST"}
"""Environment variables that tell GDAL that a bucket is public."""

_YES = ("YES", "TRUE", "ON", "1")

_LONGEST = 300
"""Characters of an error that people are shown."""


class ChangedError(OSError):
    """An object is not, or no longer, what a conditional write expected."""


class NoCredentialsError(PermissionError):
    """This process has nothing to show to the store."""


@lru_cache(maxsize=16)
def open_client(
    scheme: str, bucket: str, prefix: str | None = None, is_quick: bool = False, is_image: bool = False
) -> "ObjectStore":
    """A client, the same for the same arguments.

    Args:
        scheme: One of `SCHEMES`.
        bucket: Or container.
        prefix: Of the names of all that it sees.
        is_quick: See `segbatch.storage.objects.ObjectPath`.
        is_image: Likewise.
    """
    # Not encrypted only where somebody has written so.
    is_plain = any(os.environ.get(name, "").startswith("http://") for name in _ENDPOINTS)
    options = {**_CLIENT, "allow_http": is_plain} | (_QUICK_CLIENT if is_quick else {})
    retry = _QUICK_RETRY if is_quick else _RETRY
    public: dict[str, Any] = (
        {"skip_signature": True} if is_image and os.environ.get(_UNSIGNED[scheme], "").upper() in _YES else {}
    )
    return cast(
        "ObjectStore", _STORES[scheme](bucket, prefix=prefix, client_options=options, retry_config=retry, **public)
    )


@contextmanager
def errors_as_of_files(path: object) -> Iterator[None]:
    """Turn the store's errors into those that files have; their text is of one line and holds no secret."""
    try:
        yield
    except (NotFoundError, FileNotFoundError) as error:
        raise FileNotFoundError(2, "no such object, or no such bucket", str(path)) from error
    except (AlreadyExistsError, PreconditionError) as error:
        raise ChangedError(17, "somebody else has written it", str(path)) from error
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise PermissionError(13, f"the store refuses it ({_reason(error)})", str(path)) from error
    except BaseError as error:
        if _has_none(error):
            raise NoCredentialsError(13, _reason(error), str(path)) from error
        if "404 Not Found" in str(error):  # as of lists
            raise FileNotFoundError(2, "no such bucket", str(path)) from error
        raise OSError(5, _reason(error), str(path)) from error
    except OSError as error:
        if error.errno is not None:
            raise
        # Of uploads in pieces obstore tells as Python's files would, but for number and length.
        kind = NoCredentialsError if _has_none(error) else PermissionError if "403" in str(error) else OSError
        raise kind(5, _reason(error), str(path)) from error


def _has_none(error: Exception) -> bool:
    return any(mark in str(error) for mark in _NO_CREDENTIALS)


def _reason(error: Exception) -> str:
    text = str(error).partition("\n")[0]
    if _has_none(error):
        return "no credentials were found in the environment, and this machine has no role"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
