"""The index of a folder that a schedule maps into: its scenes, and its runs, for the next run and for people."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

from segbatch.commands.folder import RunFolder
from segbatch.errors import InputError
from segbatch.redaction import redact_all
from segbatch.storage import write_whole

Status = Literal["mapped", "changed", "failed", "vanished"]
"""mapped: the class mask is that of the file. changed: the file changed while it was read, and the next run maps it.
failed: it could not be read, as the note says. vanished: it is no longer listed. Where the last three have a class mask
it is that of an earlier file."""

_FILE = "index.json"


@dataclass(frozen=True, slots=True)
class SceneEntry:
    """A scene.

    Args:
        id: Of its class mask; it stays the same as long as the folder is used.
        image: Path or URL.
        status: See `Status`.
        note: Why it failed or is to be mapped again; empty if it is mapped.
        fingerprint: Of what its class mask was made from and how; None as long as there is none.
        size: Bytes of the file that was mapped; -1 where that cannot be told.
        modified: Its modification time in nanoseconds, or -1.
        mapped_at: When its class mask was finished; empty as long as there is none.
        run: Number of the run that has mapped it, or None.
        bundle: Hash of the model that has mapped it.
        km2: Square kilometres with a class, or None.
        seconds: Spent on its blocks.
        record: Its `SceneRecord` as plain data.
        tag: What its server said of the version that was mapped, see `segbatch.commands.conclude.stamp`; or None.
    """

    id: str
    image: str
    status: Status
    note: str
    fingerprint: str | None
    size: int
    modified: int
    mapped_at: str
    run: int | None
    bundle: str
    km2: float | None
    seconds: float
    record: dict[str, Any]
    tag: str | None = None

    @property
    def row(self) -> dict[str, Any]:
        """A row for people."""
        known = self.modified >= 0
        return {
            "scene": self.id,
            "status": self.status,
            "size": self.size if known else None,
            "modified": timestamp(self.modified / 1e9) if known else None,
            "mapped_at": self.mapped_at or None,
            "run": self.run,
            "bundle": self.bundle[:12] or None,
            "km2": None if self.km2 is None else round(self.km2, 6),
            "seconds": round(self.seconds, 2),
            "image": self.image,
            "note": self.note or None,
        }


@dataclass(frozen=True, slots=True)
class RunEntry:
    """A run of the schedule.

    Args:
        number: From 1.
        started: When.
        ended: When; None of one that was killed, or that goes on.
        new: Scenes that were mapped for the first time.
        changed: Scenes that were mapped again.
        skipped: Scenes that were mapped already.
        vanished: Scenes that an earlier run had mapped and this one did not find.
        failed: Scenes that could not be mapped.
        exit_code: Of the command.
    """

    number: int
    started: str
    ended: str | None = None
    new: int = 0
    changed: int = 0
    skipped: int = 0
    vanished: int = 0
    failed: int = 0
    exit_code: int | None = None

    def __str__(self) -> str:
        """What it did, in a line."""
        counts = {name: getattr(self, name) for name in ("new", "changed", "skipped", "vanished", "failed")}
        return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing new"


@dataclass(frozen=True, slots=True)
class Index:
    """All scenes that a schedule has found, in the order in which they came, and all its runs.

    Args:
        scenes: Not those that vanished before they were mapped.
        runs: Oldest first.
    """

    scenes: tuple[SceneEntry, ...] = ()
    runs: tuple[RunEntry, ...] = ()

    @staticmethod
    def is_in(folder: RunFolder) -> bool:
        """Whether a schedule maps into the folder."""
        return (folder.ledger / _FILE).is_file()

    @classmethod
    def load(cls, folder: RunFolder) -> Self:
        """Read what `save` wrote.

        Raises:
            InputError: It cannot be read.
        """
        path = folder.ledger / _FILE
        try:
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is not an index of scenes: {error!r}") from error

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(
            tuple(SceneEntry(**scene) for scene in data["scenes"]), tuple(RunEntry(**run) for run in data["runs"])
        )

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"scenes": [asdict(scene) for scene in self.scenes], "runs": [asdict(run) for run in self.runs]}

    def save(self, folder: RunFolder) -> None:
        """Write it, and the two tables that people read."""
        write_whole(folder.ledger / _FILE, (json.dumps(redact_all(self.to_json()), indent=1) + "\n").encode())
        fields = list(SceneEntry("", "", "mapped", "", None, -1, -1, "", None, "", None, 0, {}).row)
        _write_table(folder.index, fields, (scene.row for scene in self.scenes))
        _write_table(folder.runs, list(RunEntry.__dataclass_fields__), (asdict(run) for run in self.runs))

    def with_run(self, run: RunEntry) -> "Index":
        """The index with a run in place of that of the same number."""
        others = tuple(known for known in self.runs if known.number != run.number)
        return Index(self.scenes, (*others, run))


def timestamp(seconds: float) -> str:
    """A time for people and spreadsheets, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _write_table(path: Path, fields: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(redact_all, rows))
    write_whole(path, text.getvalue().encode("utf-8", "backslashreplace"))
