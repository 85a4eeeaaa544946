"""The course of a training: metrics.jsonl, a line of JSON an event, from which all curves are drawn."""

import json
import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Course:
    """What counts of a training's events: what was done again after an interruption counts once.

    Args:
        steps: Rows of step events, by ``global_step``.
        epochs: Rows of epochs, by ``epoch``.
    """

    steps: tuple[Row, ...] = ()
    epochs: tuple[Row, ...] = ()

    @property
    def rows(self) -> list[Row]:
        """Steps and epochs in the order of their steps."""
        return sorted([*self.steps, *self.epochs], key=lambda row: (row["global_step"], row["kind"] == "epoch"))


def event_rows(event: Mapping[str, Any], course: Course) -> list[dict[str, Any]]:
    """What is kept of an event: of an epoch's, the epoch alone; it carries all that were before.

    A training that goes on knows of epochs that were saved in the moment in which who listened was killed.

    Args:
        event: As the training tells it.
        course: What is kept already.
    """
    now = {"time": round(time.time(), 1)}
    kept = {key: value for key, value in event.items() if key not in ("history", "epochs")}
    if event["kind"] == "epoch":
        return [now | kept | event["history"][-1]]
    if not event.get("history"):
        return [now | kept]
    known = {row["epoch"] for row in course.epochs}
    first = min((row["epoch"] for row in event["history"] if row["epoch"] not in known), default=None)
    if first is None:
        return [now | kept]
    steps = (event["global_step"] - event["step"]) // event["epoch"]
    told = event["history"][first - 1 :]
    return [*({**now, "kind": "epoch", "global_step": row["epoch"] * steps, **row} for row in told), now | kept]


def append_row(path: Path, row: Row) -> None:
    """Add a line.

    Raises:
        OSError: The disk is full, or the folder is gone.
    """
    with open(path, "a+b") as file:
        # A writer that was killed in the middle of a line must not cost the next one.
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(row).encode() + b"\n")


def read_course(path: Path) -> Course:
    """Read what `append_row` wrote. Lines that are torn or of other kinds are skipped; no file is no course.

    A later row replaces those at its step and beyond, and a training that goes on from a step takes back what was
    told of later ones: they are done again.
    """
    steps: list[Row] = []
    epochs: list[Row] = []
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return Course()
    for line in lines:
        try:
            row = json.loads(line)
            kind, at = row["kind"], row["global_step"]
            if kind == "step":
                _drop(steps, "global_step", at)
                steps.append(row)
            elif kind == "epoch":
                _drop(epochs, "epoch", row["epoch"])
                epochs.append(row)
            elif kind == "resume":
                _drop(steps, "global_step", at + 1)
                _drop(epochs, "epoch", row["epoch"] + 1)
        except (ValueError, KeyError, TypeError):
            continue
    return Course(tuple(steps), tuple(epochs))


def series_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names of the classes' curves: of letters, digits and ``_-.``, which is what all programs take; no two alike."""
    plain = tuple(re.sub(r"[^\w.-]", "_", name) for name in names)
    if len(set(plain)) == len(plain):
        return plain
    return tuple(f"{index}_{name}" for index, name in enumerate(plain))


def scalars(row: Row, series: Sequence[str]) -> dict[str, float]:
    """The finite figures of a row, by the name of their curve.

    Args:
        row: Of a step or an epoch; other kinds have none.
        series: What `series_names` gives for the classes.
    """
    if row["kind"] not in ("step", "epoch"):
        return {}
    fields = ("loss", "learning_rate", "tiles_per_second", "waited", "miou", "pixel_accuracy")
    found = {f"{row['kind']}/{field}": row.get(field) for field in fields}
    found |= {f"iou/{name}": value for name, value in zip(series, row.get("iou") or (), strict=False)}
    return {
        name: float(value) for name, value in found.items() if isinstance(value, int | float) and math.isfinite(value)
    }


def _drop(rows: list[Row], key: str, first: int) -> None:
    while rows and rows[-1][key] >= first:
        rows.pop()
