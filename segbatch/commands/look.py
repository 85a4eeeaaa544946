"""How a run stands at present, read from the files of its folder alone: from any machine, at any time."""

import json
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from segbatch.commands.course import read_course
from segbatch.commands.folder import RunFolder
from segbatch.commands.index import Index
from segbatch.commands.lock import holder
from segbatch.commands.record import RunRecord
from segbatch.commands.standing import (
    MappingStanding,
    State,
    Tally,
    TrainingStanding,
    run_state,
    training_standing,
)
from segbatch.errors import InputError
from segbatch.inference.attempts import under_way
from segbatch.inference.ledger import LedgerReader, RowsForgottenError
from segbatch.inference.watch import at_work


@dataclass(frozen=True, slots=True)
class Status:
    """What there is to know of a run.

    Args:
        run: Its folder.
        name: Its name.
        state: See `State`.
        doing: What the command at it is doing; empty where nobody is.
        holder: Who is at it, or was killed: a `Holder` as plain data; None where nobody is.
        tune: State of a search and what it has found, as plain data; None without.
        training_state: As run.json has it; None without a training.
        training: How far it is; likewise.
        mapping_state: As run.json has it; None without a mapping.
        mapping: How far it is; None as long as no block is planned.
        is_next: Whether ``mapping`` is of what a schedule maps beside the masks that are there.
        at_work: What of the mapping is being done, in words; empty where that is not known.
        schedule: Its scenes by status and its latest run, as plain data; None without.
        age: Seconds since the latest row or figure; None where there is none.
    """

    run: str
    name: str
    state: State
    doing: str
    holder: dict[str, Any] | None
    tune: dict[str, Any] | None
    training_state: str | None
    training: TrainingStanding | None
    mapping_state: str | None
    mapping: MappingStanding | None
    is_next: bool
    at_work: str
    schedule: dict[str, Any] | None
    age: float | None

    @property
    def is_held(self) -> bool:
        """Whether somebody is at it."""
        return self.holder is not None and bool(self.holder["is_alive"])


class Counted:
    """What earlier looks have counted of a run's ledger, so that the next one reads only what is new."""

    def __init__(self) -> None:
        self._what: tuple[RunFolder, Mapping[str, int]] | None = None

    def tally(self, folder: RunFolder, blocks: Mapping[str, int]) -> Tally:
        """The rows of a ledger, counted.

        Args:
            folder: Where the ledger is. What is known of another one is forgotten.
            blocks: How many blocks the scenes have, by id.
        """
        if self._what != (folder, blocks):
            self._begin(folder, blocks)
        try:
            self._add_new()
        except RowsForgottenError:
            self._begin(folder, blocks)
            self._add_new()
        return self._tally

    def _begin(self, folder: RunFolder, blocks: Mapping[str, int]) -> None:
        self._what, self._tally, self._reader = (folder, blocks), Tally(blocks), LedgerReader(folder.ledger)

    def _add_new(self) -> None:
        for row in self._reader.new_rows():
            self._tally.add(row)


def look(folder: RunFolder, counted: Counted | None = None) -> Status:
    """How a run stands at present. Nothing is written or locked, and nothing but the folder is read.

    Args:
        folder: The run's.
        counted: Of earlier looks at it; None where this is the only one.

    Raises:
        InputError: There is no run.
    """
    content, held = folder.read(), holder(folder)
    if not folder.path.is_dir() or not (content or held):
        raise InputError(f"There is no run in {folder.path}: it has no run.json.")
    is_held = held is not None and held.is_alive
    now = time.time()
    sections = {name: (content.get(name) or {}).get("state") for name in ("training", "tune", "mapping")}
    if content.get("evaluation"):
        sections["mapping"] = "done" if (folder.report / "metrics.json").is_file() else "running"
    # What a schedule maps beside the masks that are there is what is going on, or was when it was killed.
    staged = RunFolder(folder.next)
    is_next = staged.ledger.is_dir()
    mapped = staged if is_next else folder
    mapping = _mapping(mapped, now, is_held, counted or Counted())
    training = _training(folder, content) if sections["training"] else None
    is_mapping = sections["mapping"] == "running" and sections["training"] != "running"
    latest = None if mapping is None else mapping.latest
    schedule = _schedule(folder)
    if schedule is not None and (schedule["latest_run"] or {}).get("exit_code") in _FAILED:
        sections["schedule"] = "failed"  # before it came to map anything, as where the scenes' disk is gone
    told = [moment for moment in (latest, None if training is None else training.latest) if moment]
    return Status(
        run=str(folder.path),
        name=str(content.get("name") or folder.path.absolute().name),
        state=run_state(
            sections,
            held.is_alive if held else None,
            latest,
            _moment(held.since) if held else None,
            is_mapping and mapping is not None,
        ),
        doing=_doing(sections, mapping) if is_held else "",
        holder=None if held is None else asdict(held),
        tune=_search(folder, content),
        training_state=sections["training"],
        training=training,
        mapping_state=sections["mapping"],
        mapping=mapping,
        is_next=is_next,
        at_work=_at_work(mapped, _moment(held.since) if held else None) if is_held and is_mapping else "",
        schedule=schedule,
        age=max(0.0, now - max(told)) if told else None,
    )


def _mapping(folder: RunFolder, now: float, is_held: bool, counted: Counted) -> MappingStanding | None:
    """How far the mapping of a folder is."""
    try:
        record = RunRecord.load(folder)
    except InputError:
        return None
    return counted.tally(folder, record.blocks).standing(now, is_held)


def _training(folder: RunFolder, content: dict[str, Any]) -> TrainingStanding:
    """How far the training is."""
    settings = (content.get("config") or {}).get("training") or {}
    return training_standing(read_course(folder.metrics), settings.get("epochs"), settings.get("batch_size"))


def _search(folder: RunFolder, content: dict[str, Any]) -> dict[str, Any] | None:
    """What a search for settings has come to, by the log that it keeps open."""
    known = content.get("tune")
    if not known:
        return None
    ended, begun = set[int](), set[int]()
    with suppress(OSError):
        for line in (folder.tune / "trials.jsonl").read_bytes().splitlines():
            with suppress(ValueError, KeyError, TypeError):
                event = json.loads(line)
                (ended if event["kind"] == "end" else begun).add(event["trial"])
    return {
        "state": known.get("state"),
        "trials": known.get("drawn"),
        "begun": len(begun | ended),
        "ended": len(ended),
        "miou": (known.get("best") or {}).get("miou"),
    }


def _schedule(folder: RunFolder) -> dict[str, Any] | None:
    """What a schedule has mapped, and its latest run."""
    if not Index.is_in(folder):
        return None
    try:
        index = Index.load(folder)
    except InputError:
        return None
    last = index.runs[-1] if index.runs else None
    return {
        "scenes": dict(Counter(scene.status for scene in index.scenes)),
        "latest_run": None if last is None else {**asdict(last), "text": str(last)},
    }


_FAILED = (1, 2)
"""Exit codes of runs that have come to nothing."""

_CLOCKS_APART = 60.0
"""Seconds that the clocks of machines may differ by."""


def _at_work(folder: RunFolder, since: float | None) -> str:
    """What is being done, by the files of blocks that are under way.

    Args:
        folder: Of the run.
        since: When the command began: what is older an earlier one has left, and is not being done.
    """
    age = time.time() - (since or 0)
    attempts = [attempt for attempt in under_way(folder.attempts) if attempt.seconds <= age + _CLOCKS_APART]
    return at_work(attempts) if attempts else ""


def _doing(sections: Mapping[str, str | None], mapping: MappingStanding | None) -> str:
    """What the command is at."""
    if sections["tune"] == "running":
        return "looking for settings"
    if sections["training"] == "running":
        return "training"
    if sections["mapping"] != "running":
        return "getting ready"
    if mapping is not None and mapping.done + mapping.failed == mapping.blocks:
        return "writing the scenes' files"
    return "mapping"


def _moment(since: str | None) -> float | None:
    """Seconds since the epoch of what the lock says."""
    with suppress(TypeError, ValueError):
        return datetime.fromisoformat(since).timestamp()  # type: ignore[arg-type]
    return None
