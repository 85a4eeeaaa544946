"""How a run stands, from the rows of its ledger and of its training: arithmetic that reads and prints nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from segbatch.commands.course import Course, Row
from segbatch.inference.ledger import LedgerRow

State = Literal["running", "waiting for its first block", "waiting for its next block", "stopped", "done", "failed"]
"""waiting for its next block: it goes on where an earlier command has stopped, and has not done a block itself yet.
stopped: nobody is at it, and it is not done: it was interrupted, killed, or ended with an error."""

_SPANS = (300.0, 3600.0)
"""Seconds before now that a speed is taken from: the second where the first has too few blocks."""

_FEW_BLOCKS = 3
_BUCKET_SECONDS = 10
_STAGES = ("read", "wait", "predict", "write")
"""What a block goes through one after the other."""

_MOST_REASONS = 1000

_WAITING, _FAILED, _DONE = 0, 1, 2


@dataclass(frozen=True, slots=True)
class MappingStanding:
    """How far a mapping is.

    Args:
        blocks: In all.
        done: Of them, and not failed.
        failed: Of them.
        pixels: Of the blocks that are done.
        pixels_per_second: Over the last minutes; None where nothing was done in them.
        seconds_left: At that speed; likewise.
        latest: When the latest row was written, in seconds since the epoch; None where there is none.
        scenes: How many are whole, at_work, failed and waiting.
        reasons: (scene, why) of some scenes with failed blocks, one each.
    """

    blocks: int
    done: int
    failed: int
    pixels: int
    pixels_per_second: float | None
    seconds_left: float | None
    latest: float | None
    scenes: Mapping[str, int]
    reasons: tuple[tuple[str, str], ...]


class Tally:
    """Counts a ledger's rows, in whatever order and however often they come, a byte a block.

    Args:
        blocks: How many blocks the scenes have, by id.
    """

    def __init__(self, blocks: Mapping[str, int]) -> None:
        self._blocks = {scene: bytearray(count) for scene, count in blocks.items()}
        self._reasons: dict[tuple[str, int], str] = {}
        self._pixels = 0
        self._latest: float | None = None
        # By time: blocks, pixels, and when the first of them was begun.
        self._buckets: dict[int, tuple[int, int, float]] = {}

    def add(self, row: LedgerRow) -> None:
        """Count a row; one that tells of success wins, as everywhere."""
        known = self._blocks.get(row.scene)
        if known is None or not 0 <= row.block < len(known) or known[row.block] == _DONE:
            return
        if row.error is not None and known[row.block] == _FAILED:
            return
        known[row.block] = _DONE if row.error is None else _FAILED
        if row.error is not None and len(self._reasons) < _MOST_REASONS:
            self._reasons[row.scene, row.block] = row.error
        pixels = 0 if row.error is not None else sum(row.class_pixels) + row.nodata_pixels
        self._pixels += pixels
        if row.started > 0:  # rows of scenes that could not even be opened have no time
            self._note(row.started, row.started + sum(row.seconds.get(stage, 0.0) for stage in _STAGES), pixels)

    def standing(self, now: float, is_running: bool) -> MappingStanding:
        """How far it is.

        Args:
            now: In seconds since the epoch.
            is_running: Whether the clock still ticks for it; else what counts is its last minutes.
        """
        counts = [(cells.count(_WAITING), cells.count(_FAILED), len(cells)) for cells in self._blocks.values()]
        blocks, failed = sum(count for *_, count in counts), sum(lost for _, lost, _ in counts)
        left = sum(waiting for waiting, _, _ in counts)
        speed = self._speed(now if is_running or self._latest is None else self._latest)
        failures: dict[str, str] = {}
        for (scene, block), reason in self._reasons.items():
            if self._blocks[scene][block] == _FAILED:
                failures.setdefault(scene, reason)
        return MappingStanding(
            blocks=blocks,
            done=blocks - failed - left,
            failed=failed,
            pixels=self._pixels,
            pixels_per_second=None if speed is None else speed[1],
            seconds_left=None if speed is None or not is_running else left / speed[0],
            latest=self._latest,
            scenes={
                "whole": sum(not waiting and not lost for waiting, lost, _ in counts),
                "at_work": sum(not lost and 0 < waiting < count for waiting, lost, count in counts),
                "failed": sum(lost > 0 for _, lost, _ in counts),
                "waiting": sum(not lost and waiting == count > 0 for waiting, lost, count in counts),
            },
            reasons=tuple(failures.items()),
        )

    def _note(self, started: float, ended: float, pixels: int) -> None:
        self._latest = max(ended, self._latest or ended)
        bucket = int(ended // _BUCKET_SECONDS)
        count, area, first = self._buckets.get(bucket, (0, 0, started))
        self._buckets[bucket] = count + 1, area + pixels, min(first, started)
        most = int(_SPANS[-1] // _BUCKET_SECONDS)
        if len(self._buckets) > 2 * most:
            oldest = int(self._latest // _BUCKET_SECONDS) - most
            self._buckets = {bucket: found for bucket, found in self._buckets.items() if bucket >= oldest}

    def _speed(self, end: float) -> tuple[float, float] | None:
        """Blocks and pixels a second before a time."""
        for span in _SPANS:
            found = [what for bucket, what in self._buckets.items() if bucket * _BUCKET_SECONDS >= end - span]
            blocks = sum(count for count, _, _ in found)
            if blocks >= _FEW_BLOCKS or (blocks and span == _SPANS[-1]):
                begin = max(end - span, min(first for _, _, first in found))
                seconds = max(1e-3, end - begin)
                return blocks / seconds, sum(area for _, area, _ in found) / seconds
        return None


@dataclass(frozen=True, slots=True)
class TrainingStanding:
    """How far a training is.

    Args:
        epochs: In all; None where that is not known.
        done: Epochs that are over.
        step: Of the epoch that goes on; 0 where none does.
        steps: Of an epoch; likewise.
        loss: Of the latest steps or epoch; None where there is none.
        miou: Of the latest epoch; likewise.
        best: (epoch, miou) of the best; likewise.
        tiles_per_second: Of the latest steps or epoch; likewise.
        seconds_left: As far as can be told.
        latest: When the latest of these figures was told, in seconds since the epoch; None where there are none.
    """

    epochs: int | None
    done: int
    step: int
    steps: int
    loss: float | None
    miou: float | None
    best: tuple[int, float] | None
    tiles_per_second: float | None
    seconds_left: float | None
    latest: float | None


def training_standing(course: Course, epochs: int | None, batch_size: int | None) -> TrainingStanding:
    """How far a training is, by its course.

    Args:
        course: Of metrics.jsonl.
        epochs: That are wanted; None where that is not known.
        batch_size: Tiles a step; likewise.
    """
    rows = course.rows
    newest: Row = rows[-1] if rows else {}
    inside = newest if newest.get("kind") == "step" else {}
    last: Row = course.epochs[-1] if course.epochs else {}
    scored = [(row["epoch"], row["miou"]) for row in course.epochs if row.get("miou") is not None]
    step = inside.get("step", 0) if inside.get("epoch", 0) > last.get("epoch", 0) else 0
    return TrainingStanding(
        epochs=epochs or inside.get("epochs"),
        done=len(course.epochs),
        step=step,
        steps=inside.get("steps", 0) if step else 0,
        loss=newest.get("loss"),
        miou=last.get("miou"),
        best=max(scored, key=lambda pair: pair[1], default=None),
        tiles_per_second=newest.get("tiles_per_second"),
        seconds_left=_training_left(course.epochs, inside if step else {}, epochs, batch_size),
        latest=newest.get("time"),
    )


def run_state(
    sections: Mapping[str, str | None], is_alive: bool | None, latest: float | None, since: float | None, begun: bool
) -> State:
    """What a run is doing, in a word.

    Args:
        sections: State of training, search and mapping as run.json has them; None for what it has not.
        is_alive: Whether the command that holds the run's lock is at work, or was killed; None where none holds it.
        latest: When the latest block was done; None where none is.
        since: When the command began; None where that is not known.
        begun: Whether a mapping is going on.
    """
    if is_alive:
        if not begun:
            return "running"
        if latest is None:
            return "waiting for its first block"
        return "waiting for its next block" if since is not None and latest < since else "running"
    found = [state for state in sections.values() if state]
    if is_alive is False or "running" in found or not found:
        return "stopped"
    return "failed" if "failed" in found else "done"


def _training_left(
    epochs: Sequence[Row], inside: Mapping[str, Any], wanted: int | None, batch_size: int | None
) -> float | None:
    """Seconds until the last epoch is over, unless patience ends it before."""
    if wanted is not None and epochs:
        latest = epochs[-3:]
        each = sum(row.get("train_seconds", 0.0) + row.get("validate_seconds", 0.0) for row in latest) / len(latest)
        share = inside["step"] / inside["steps"] if inside else 0.0
        return max(0.0, (wanted - len(epochs) - share) * each)
    if inside and batch_size and inside["tiles_per_second"]:
        steps = inside["global_steps"] - inside["global_step"]
        return float(steps * batch_size / inside["tiles_per_second"])
    return None
