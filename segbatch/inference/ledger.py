"""The ledger: one row a block, written after the block's shard. What has a row is done.

Each writing process appends lines to a file of its own, so writers never meet. A line that was cut short
by a kill has no row in it: its block is done again.
"""

import hashlib
import json
import uuid
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from segbatch.errors import SegbatchError
from segbatch.evaluation import confusion_matrix, count_values
from segbatch.redaction import redact
from segbatch.storage import ChangedError, ObjectPath, append, is_remote, place, write_whole

ROWS_OF_AN_OBJECT = 256
"""Some 100 kB: written again with each row it is small, and a million rows are read in a few thousand requests."""


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """What happened to a block.

    Args:
        scene: Id of the scene.
        block: Number of the block in the scene's grid.
        checksum: Of the class mask's pixels (SHA-256, hexadecimal); empty for a failed block.
        class_pixels: Predicted pixels by class.
        nodata_pixels: Pixels without a valid value.
        ignored_pixels: Valid pixels without a usable label; 0 where there is no label.
        confusion: Rows of the confusion matrix, or None where there is no label.
        windows: Windows run through the model.
        started: When reading began, in seconds since the epoch.
        seconds: Seconds by stage: read, wait (for the model), idle (of the model, before it had this block), predict
            (of which upload to the device, forward and download), write.
        error: Why the block failed, or None.
        note: What had to be changed to fit the device's memory; empty if nothing.
        memory: Bytes that the predicting process held.
    """

    scene: str
    block: int
    checksum: str
    class_pixels: tuple[int, ...]
    nodata_pixels: int
    ignored_pixels: int
    confusion: tuple[tuple[int, ...], ...] | None
    windows: int
    started: float
    seconds: dict[str, float]
    error: str | None = None
    note: str = ""
    memory: int = 0

    @classmethod
    def of(
        cls,
        scene: str,
        block: int,
        mask: NDArray[np.uint8],
        label: NDArray[np.uint8] | None,
        *,
        num_classes: int,
        windows: int,
        started: float,
        seconds: dict[str, float],
        note: str = "",
        memory: int = 0,
    ) -> Self:
        """Count a block that is done.

        Args:
            scene: Id of the scene.
            block: Number of the block.
            mask: (height, width) class ids that were predicted.
            label: (height, width) class ids of the label, or None.
            num_classes: Number of classes.
            windows: Windows run through the model.
            started: When reading began.
            seconds: By stage.
            note: See the class.
            memory: See the class.
        """
        counts = count_values(mask)
        return cls(
            scene=scene,
            block=block,
            checksum=hashlib.sha256(np.ascontiguousarray(mask).data).hexdigest(),
            class_pixels=tuple(counts[:num_classes].tolist()),
            nodata_pixels=int(counts[num_classes:].sum()),
            ignored_pixels=0 if label is None else int(np.count_nonzero((mask < num_classes) & (label >= num_classes))),
            confusion=None
            if label is None
            else tuple(tuple(line) for line in confusion_matrix(label, mask, num_classes).tolist()),
            windows=windows,
            started=started,
            seconds=seconds,
            note=note,
            memory=memory,
        )

    @classmethod
    def failed(cls, scene: str, block: int, error: str, *, num_classes: int, started: float) -> Self:
        """A block that could not be done."""
        return cls(scene, block, "", (0,) * num_classes, 0, 0, None, 0, started, {}, redact(error))

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))

    def to_line(self) -> bytes:
        """A line of a ledger's file."""
        return self.to_json().encode() + b"\n"

    @classmethod
    def from_json(cls, line: str) -> Self:
        """The inverse of `to_json`.

        Raises:
            ValueError, KeyError, TypeError: The line is not a whole row.
        """
        data: dict[str, Any] = json.loads(line)
        confusion = data["confusion"]
        return cls(
            **{
                **data,
                "class_pixels": tuple(data["class_pixels"]),
                "confusion": None if confusion is None else tuple(tuple(row) for row in confusion),
            }
        )


class LedgerWriter:
    """Appends rows to a file that belongs to this process alone.

    An object cannot be appended to: there it is written again with each row, and followed by another one when it has
    grown. Where a later command has removed or rewritten it, the rows that were forgotten stay so: the writer, whose
    command is no more, begins another one.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = place(folder)
        self._path = self._next()
        self._lines: list[bytes] = []
        self._version: str | None = None

    def append(self, row: LedgerRow) -> None:
        """Add a row; on return it is on the disk, or in the store.

        Raises:
            SegbatchError: The file cannot be written.
        """
        try:
            if is_remote(self._path):
                self._put(self._path, row.to_line())
            else:
                append(self._path, row.to_line())
        except OSError as error:
            raise SegbatchError(f"{self._path} cannot be written: {error.strerror or error}.") from error

    def _put(self, path: ObjectPath, line: bytes) -> None:
        lines = [*self._lines, line]
        try:
            version = path.put(b"".join(lines), create=self._version is None, version=self._version).version
        except ChangedError:
            self._path = following = self._next()
            self._lines, self._version = [], None
            assert is_remote(following)
            lines, version = [line], following.put(line).version
        self._lines, self._version = lines, version
        if len(lines) == ROWS_OF_AN_OBJECT:
            self._path, self._lines, self._version = self._next(), [], None

    def _next(self) -> Path:
        return self._folder / f"{uuid.uuid4().hex}.jsonl"


def forget_scenes(folder: str | Path, scenes: Collection[str]) -> None:
    """Remove the rows of scenes whose class masks have gone, so that they are never taken for done again.

    Call it before the writers of a run start.
    """
    if not scenes:
        return
    for path in sorted(place(folder).glob("*.jsonl")):
        if any(row.scene in scenes for row in _rows(_ReadFile().new_lines(path))):
            lines = [row.to_line() for row in _rows(_ReadFile().new_lines(path)) if row.scene not in scenes]
            if lines:
                write_whole(path, b"".join(lines))
            else:
                path.unlink()


def gather_rows(folder: str | Path, scenes: Collection[str]) -> bytes:
    """The rows of some scenes, as the content of a ledger's file."""
    return b"".join(row.to_line() for row in iterate_rows(folder) if row.scene in scenes)


def read_ledger(folder: str | Path) -> dict[tuple[str, int], LedgerRow]:
    """The row of each block that has one, for small ledgers.

    A block may have several rows (it was retried, or two workers did it): one that tells of success wins.
    """
    rows: dict[tuple[str, int], LedgerRow] = {}
    for row in iterate_rows(folder):
        known = rows.get((row.scene, row.block))
        if known is None or known.error is not None:
            rows[row.scene, row.block] = row
    return rows


def iterate_rows(folder: str | Path) -> Iterator[LedgerRow]:
    """All whole rows, also while they are written, some blocks' several times; none where there is no folder."""
    return LedgerReader(folder).new_rows()


class RowsForgottenError(Exception):
    """Rows that were read are there no more; see `forget_scenes`."""


class LedgerReader:
    """Reads a ledger that grows: each time only what is new, since a run of a million blocks has half a GB of rows.

    Args:
        folder: Of the ledger; it need not be there.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = place(folder)
        self._files: dict[Path, _ReadFile] = {}

    def new_rows(self) -> Iterator[LedgerRow]:
        """Whole rows that were not there the last time.

        Raises:
            RowsForgottenError: What was read before is no longer the ledger's: begin again, with another reader.
        """
        stamps = _stamps(self._folder)
        if self._files.keys() - stamps.keys():
            raise RowsForgottenError
        for path, stamp in sorted(stamps.items()):
            file = self._files.setdefault(path, _ReadFile())
            if file.stamp != stamp:
                yield from _rows(file.new_lines(path))
                file.stamp = stamp


@dataclass(slots=True)
class _ReadFile:
    """How far a file was read.

    Args:
        stamp: Differs when the file has changed since.
        end: Of the last whole line, in bytes.
        last: That line. It is in the same place as long as none before it was removed.
    """

    stamp: tuple[int, int | str] | None = None
    end: int = 0
    last: bytes = b""

    def new_lines(self, path: Path) -> Iterator[bytes]:
        with suppress(FileNotFoundError), path.open("rb") as file:  # it may be removed at any time
            file.seek(self.end - len(self.last))
            if file.read(len(self.last)) != self.last:
                raise RowsForgottenError
            for line in file:
                if not line.endswith(b"\n"):
                    return  # it is being written, or was cut short by a kill
                self.end, self.last = self.end + len(line), line
                yield line


def _stamps(folder: Path) -> dict[Path, tuple[int, int | str]]:
    """Size and time or version of each file of a ledger; of objects by a single list of them."""
    found: dict[Path, tuple[int, int | str]] = {}
    if is_remote(folder):
        for path, known in folder.walk_objects():
            if path.parent == folder and path.suffix == ".jsonl":
                found[place(path)] = known.st_size, known.version
        return found
    for file in folder.glob("*.jsonl"):
        with suppress(FileNotFoundError):  # a command at work has removed it since it was listed
            status = file.stat()
            found[file] = status.st_size, status.st_mtime_ns
    return found


def _rows(lines: Iterable[bytes]) -> Iterator[LedgerRow]:
    for line in lines:
        # What was cut short by a kill has no row: its block is done again.
        with suppress(ValueError, KeyError, TypeError):
            yield LedgerRow.from_json(line.decode(errors="replace"))
