"""Paths in an object store, with those methods of `pathlib.Path` that segbatch uses.

An object appears whole or not at all and is seen by everybody from then on, which is what a run needs. There are no
folders: a name before a slash is one as long as there is an object below it, and making one does nothing.
"""

import posixpath
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from fnmatch import fnmatchcase
from io import BytesIO, StringIO
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, cast

import obstore

from segbatch.storage.client import NoCredentialsError, errors_as_of_files, open_client

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_DELETIONS = 3
"""How often something is removed whose server did not answer: all else is tried again by obstore."""

_PART_BYTES, _PARTS_AT_ONCE = 32 * 2**20, 4
"""Of an upload in pieces. S3 takes 10,000 parts: some 300 GB."""

_MOST_COPIED_AT_ONCE = 5 * 2**30
"""S3 copies no larger object in one request."""

MARK = "zarr.json"
"""Directly below what stands for a folder of many objects: as long as it is there, all are."""


class ObjectStat(NamedTuple):
    """What the store knows of an object.

    Args:
        st_size: Bytes.
        st_mtime: When it was written, in seconds since the epoch, by the store's clock.
        version: Differs between an object and another one that was put in its place.
    """

    st_size: int
    st_mtime: float
    version: str


class ObjectPath(PurePosixPath):
    """An object, or all objects whose names begin with this one and a slash.

    Its text is the URL. Not to be given to `pathlib.Path`, which makes ``s3:/bucket`` of it: that is for
    `segbatch.storage.place`.
    """

    __slots__ = ()

    is_quick: ClassVar[bool] = False
    """Whether an answer within seconds is better than none after minutes."""

    is_image: ClassVar[bool] = False
    """Whether GDAL reads it, by the same environment."""

    def __str__(self) -> str:
        return super().__str__().replace(":/", "://", 1)

    def __fspath__(self) -> str:
        return str(self)

    # What asks where it is.

    def is_absolute(self) -> bool:
        """True."""
        return True

    def absolute(self) -> Self:
        """Itself."""
        return self

    def resolve(self, strict: bool = False) -> Self:
        """Itself."""
        return self

    def exists(self) -> bool:
        """Whether there is such an object, or one below it."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Whether there is such an object."""
        with suppress(FileNotFoundError):
            self.stat()
            return True
        return False

    def is_dir(self) -> bool:
        """Whether there is an object below it."""
        with errors_as_of_files(self):
            return any(obstore.list(self._store, f"{self._key}/" if self._key else None, chunk_size=1))

    def stat(self) -> ObjectStat:
        """What the store knows of the object.

        Raises:
            FileNotFoundError: There is none.
        """
        with errors_as_of_files(self):
            return _stat(cast("dict[str, Any]", obstore.head(self._store, self._key)))

    # What reads.

    def read_bytes(self) -> bytes:
        """The object's content.

        Raises:
            FileNotFoundError: There is none.
        """
        with errors_as_of_files(self):
            return obstore.get(self._store, self._key).bytes().to_bytes()

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The object's content as text."""
        return self.read_bytes().decode(encoding, errors)

    def read_range(self, start: int, size: int) -> bytes:
        """Bytes of the object; fewer where it ends before.

        Raises:
            FileNotFoundError: There is none.
        """
        if size == 0:
            return b""
        with errors_as_of_files(self):
            return obstore.get_range(self._store, self._key, start=start, length=size).to_bytes()

    def open(self, mode: str = "r", encoding: str = "utf-8", errors: str = "strict") -> IO[Any]:
        """The object's whole content as a stream to read from."""
        if mode == "rb":
            return BytesIO(self.read_bytes())
        if mode == "r":
            return StringIO(self.read_text(encoding, errors))
        raise ValueError(f"an object cannot be opened with mode {mode!r}")

    def iterdir(self) -> Iterator[Self]:
        """What is directly below it."""
        yield from chain(*self._list())

    def glob(self, pattern: str, *, objects_only: bool = False) -> Iterator[Self]:
        """What is below it and matches, a part of the pattern for each step; ``**`` is not known.

        As pathlib, and unlike a shell, a star matches names that begin with a dot.
        """
        first, slash, rest = pattern.partition("/")
        folders, objects = self._list()
        for folder in (folder for folder in folders if fnmatchcase(folder.name, first)):
            if rest:
                yield from folder.glob(rest, objects_only=objects_only)
            elif not objects_only:
                yield folder
        if not slash:
            yield from (path for path in objects if fnmatchcase(path.name, first))

    def _list(self) -> tuple[list[Self], list[Self]]:
        """What is directly below it: what has something below it, and objects."""
        with errors_as_of_files(self):
            found = obstore.list_with_delimiter(self._store, self._key or None)
        names = [name.rstrip("/") for name in found["common_prefixes"]], [item["path"] for item in found["objects"]]
        # An object of this very name is an empty one that other programs put there for a folder.
        folders, objects = ([self / posixpath.basename(name) for name in kind if name != self._key] for kind in names)
        return folders, objects

    def walk_objects(self) -> Iterator[tuple[Self, ObjectStat]]:
        """Each object below it, at any depth."""
        with errors_as_of_files(self):
            for batch in obstore.list(self._store, f"{self._key}/" if self._key else None):
                for item in batch:
                    name = item["path"].removeprefix(self._key).lstrip("/")
                    if name:  # see `iterdir`
                        yield self / name, _stat(cast("dict[str, Any]", item))

    # What writes.

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: there are no folders."""

    def rmdir(self) -> None:
        """Nothing: there are no folders."""

    def put(self, content: bytes | Path, *, create: bool = False, version: str | None = None) -> ObjectStat:
        """Write the object, whole or not at all.

        Args:
            content: Bytes, or a local file.
            create: Whether there must be none yet.
            version: Which one it must replace; None for any.

        Raises:
            ChangedError: There is one, or another one.
            OSError: It cannot be written.
        """
        mode: Any = "create" if create else "overwrite" if version is None else _update(version)
        with errors_as_of_files(self):
            found = obstore.put(self._store, self._key, content, mode=mode)
        return ObjectStat(0, 0.0, _version(cast("dict[str, Any]", found)))

    def put_pieces(self, pieces: Iterable[bytes]) -> None:
        """Write the object of pieces, of which only some MB are held. Where one cannot be had, nothing is written.

        Making a piece may read from the store, which the library's own upload of an iterable does not allow.

        Raises:
            OSError: It cannot be written.
        """
        with errors_as_of_files(self):
            stream = obstore.open_writer(
                self._store, self._key, buffer_size=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE
            )
        for piece in pieces:
            with errors_as_of_files(self):
                stream.write(piece)
        with errors_as_of_files(self):
            stream.close()  # only now there is an object

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object.

        Raises:
            FileNotFoundError: There is none, where that matters.
        """
        if not missing_ok:
            self.stat()
        self._delete(self._key)

    def remove_below(self) -> None:
        """Remove all objects below it, what marks it as whole before the others."""
        (self / MARK).unlink(missing_ok=True)
        with errors_as_of_files(self):
            for batch in obstore.list(self._store, f"{self._key}/" if self._key else None):
                self._delete([item["path"] for item in batch])

    def replace(self, target: Self) -> Self:
        """Copy the object to another place in the store and remove it here."""
        self._copy(target, self.stat().st_size)
        self.unlink(missing_ok=True)
        return target

    def copy_below(self, target: Self) -> None:
        """Copy all objects below it to another place in the store, what marks it as whole after the others."""
        found = [(source.relative_to(self), status.st_size) for source, status in self.walk_objects()]
        for name, size in sorted(found, key=lambda pair: str(pair[0]) == MARK):
            (self / name)._copy(target / name, size)

    def _copy(self, target: "ObjectPath", size: int) -> None:
        if size > _MOST_COPIED_AT_ONCE:
            target.put_pieces(self.read_range(start, _PART_BYTES) for start in range(0, size, _PART_BYTES))
            return
        with errors_as_of_files(target):
            obstore.copy(self._store, self._key, target._key)

    def _delete(self, keys: str | list[str]) -> None:
        for left in reversed(range(_DELETIONS)):
            try:
                with suppress(FileNotFoundError), errors_as_of_files(self):
                    obstore.delete(self._store, keys)
                return
            except OSError as error:
                is_refused = isinstance(error, PermissionError) and not isinstance(error, NoCredentialsError)
                if is_refused or not left:
                    raise

    def open_store(self) -> "ObjectStore":
        """What is below it, for libraries that read from obstore's stores."""
        return open_client(*self._bucket, self._key)

    @property
    def _bucket(self) -> tuple[str, str]:
        scheme, bucket = self.parts[:2]
        return scheme.rstrip(":"), bucket

    @property
    def _store(self) -> "ObjectStore":
        return open_client(*self._bucket, is_quick=self.is_quick, is_image=self.is_image)

    @property
    def _key(self) -> str:
        return "/".join(self.parts[2:])


class QuickPath(ObjectPath):
    """The same for what is worth nothing when it comes late, such as the refreshing of a lock."""

    __slots__ = ()

    is_quick = True


class ImagePath(ObjectPath):
    """The same for images, of which there may be thousands: GDAL reads them, and we only look.

    They may be in a public bucket, for which GDAL needs no credentials, while the run has some for its own.
    """

    __slots__ = ()

    is_quick = True
    is_image = True


def _stat(found: dict[str, Any]) -> ObjectStat:
    modified: datetime = found["last_modified"]
    return ObjectStat(found["size"], modified.timestamp(), _version(found))


def _version(found: dict[str, Any]) -> str:
    # Google's conditions name the version, the others' the tag.
    return f"{found.get('e_tag') or ''} {found.get('version') or ''}"


def _update(version: str) -> dict[str, str]:
    tag, _, number = version.rpartition(" ")
    return {name: value for name, value in (("e_tag", tag), ("version", number)) if value}
