"""Lines about a training's steps and epochs, for a terminal of 80 columns."""

import math
import time
from collections.abc import Iterable, Sequence
from typing import Any

from segbatch.commands.progress import about, halo_sentence, pause, say

_WIDTH = 80
_MOST_CLASSES = 12
_LOWEST = 6
"""Of more than `_MOST_CLASSES` classes so many are named: those that are worst off."""

_FIGURES = ("epoch", "epochs", "global_step", "loss", "learning_rate", "tiles_per_second", "waited")
_STEP_FIELDS = (*_FIGURES, "step", "steps", "global_steps")
_EPOCH_FIELDS = (*_FIGURES, "miou", "pixel_accuracy")


class TrainingProgress:
    """Says what the training's events tell: a line every few seconds, and two or more an epoch.

    Args:
        class_names: By class id.
        batch_size: Tiles a step.
    """

    def __init__(self, class_names: Sequence[str], batch_size: int) -> None:
        self._names = class_names
        self._batch_size = batch_size
        self._pace = Pace()
        self._said = -math.inf

    def __call__(self, event: dict[str, Any]) -> None:
        """An event of the training loop."""
        kind, now = event["kind"], time.monotonic()
        if kind == "resume":
            self._pace.resume(now)
            step = f" and {event['step']} steps" if event.get("step") else ""
            say(f"  going on after epoch {event['epoch']}{step}", event="resume", epoch=event["epoch"])
        elif kind == "step":
            left = self._pace.step(event, self._batch_size)
            if now - self._said >= pause():
                self._said = now
                share = event["step"] / event["steps"]
                line = f"  epoch {event['epoch']}/{event['epochs']} {share:.0%}: {_figures(event)}{left}"
                say(line, event="step", **self._fields(event, _STEP_FIELDS))
        elif kind == "epoch":
            row = event["history"][-1]
            left = self._pace.epoch(event, now)
            self._said = -math.inf
            line = f"  epoch {row['epoch']}/{event['epochs']}: {_figures(row)}{left}"
            fields = self._fields({**event, **row}, _EPOCH_FIELDS)
            fields["iou"] = dict(zip(self._names, row["iou"], strict=True))
            say("\n".join([line, *epoch_lines(event["history"], self._names)]), event="epoch", **fields)
        elif kind == "stale":
            say(f"  no better epoch in the last {event['patience']}: training ends after epoch {event['epoch']}")
        elif kind == "stopping":
            say("  stopping: saving the state. A second Ctrl-C leaves at once, without it")
        elif kind == "late":
            say(f"  the workers did not stop within {event['seconds']:.0f} s: their steps since the last save are lost")
        elif kind == "halo":
            say(f"  {halo_sentence(event['curve'], event['halo'])}")

    def _fields(self, event: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
        """What programs are told of an event."""
        return {**{name: event.get(name) for name in names}, "seconds_left": self._pace.left}


class Pace:
    """How long a training will still take, from what this process has done of it.

    Steps and what comes after an epoch's (validation, checkpoints) are counted apart: in the middle of an epoch more of
    the one is left than of the other.
    """

    def __init__(self) -> None:
        self.left: float | None = None
        """Seconds, as they were told last."""

        self._since: float | None = None
        self._per_step: float | None = None
        self._after_epoch: float | None = None

    def resume(self, now: float) -> None:
        """The training goes on."""
        self._since = now

    def step(self, event: dict[str, Any], batch_size: int) -> str:
        """What to say of the time left in the middle of an epoch."""
        self._per_step = batch_size / event["tiles_per_second"]
        steps = event["global_steps"] - event["global_step"]
        return self._told(steps, event["epochs"] - event["epoch"] + 1)

    def epoch(self, event: dict[str, Any], now: float) -> str:
        """What to say of it after an epoch."""
        row = event["history"][-1]
        self._per_step = row["train_seconds"] * row["epoch"] / event["global_step"]
        # Of an epoch that began before this process did, or with it, the clock tells too much.
        whole = row["train_seconds"] + row["validate_seconds"] if self._since is None else now - self._since
        self._after_epoch = max(row["validate_seconds"], whole - row["train_seconds"])
        self._since = now
        epochs = event["epochs"] - row["epoch"]
        return self._told(epochs * event["global_step"] // row["epoch"], epochs)

    def _told(self, steps: int, epochs: int) -> str:
        if epochs == 0 or self._per_step is None:
            self.left = 0.0 if epochs == 0 else None
            return ""
        self.left = steps * self._per_step + epochs * (self._after_epoch or 0.0)
        return f", {'> ' if self._after_epoch is None else ''}{about(self.left)} left"


def epoch_lines(history: Sequence[dict[str, Any]], names: Sequence[str]) -> list[str]:
    """How good an epoch is: miou and the IoU of the classes, of many classes those that are worst off.

    Args:
        history: Rows of the epochs, this one last.
        names: Of the classes.
    """
    row = history[-1]
    best = all((row["miou"] or 0) > (past["miou"] or 0) for past in history[:-1])
    found = list(zip(names, row["iou"], strict=True))
    lead = f"miou {_figure(row['miou'])}{' (best)' if best else ''}: "
    if len(found) > _MOST_CLASSES:
        lead += f"lowest of {len(found)} classes: "
        found = sorted((pair for pair in found if pair[1] is not None), key=lambda pair: pair[1])[:_LOWEST]
    return _wrapped(lead, [f"{name} {_figure(value, 2)}" for name, value in found])


def _figures(row: dict[str, Any]) -> str:
    speed = row["tiles_per_second"]
    return (
        f"loss {_figure(row['loss'])}, lr {_short(row['learning_rate'])}, "
        f"{speed:.{0 if speed >= 10 else 1}f} tiles/s, waits {row['waited']:.0%}"
    )


def _short(value: float) -> str:
    """Two digits: 9.8e-4."""
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def _figure(value: float | None, digits: int = 3) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _wrapped(lead: str, items: Iterable[str]) -> list[str]:
    """Lines of whole items, indented, no longer than a terminal is wide unless one item is."""
    lines = ["    " + lead]
    for number, item in enumerate(items):
        joined = lines[-1] + (", " if number else "") + item
        if len(joined) < _WIDTH or not number:
            lines[-1] = joined
        else:
            lines[-1] += ","
            lines.append("      " + item)
    return lines
