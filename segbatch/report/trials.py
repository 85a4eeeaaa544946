"""The trials of a search: as a table for the terminal, as CSV, and as a page with charts."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich import box
from rich.table import Table
from rich.text import Text

from segbatch.report.charts import HEIGHT, WIDTH, Chart, Curve, line_chart, nice_ticks

State = Literal["done", "stopped", "failed", "unfinished"]

_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 24, 12, 34
_COLORS = {"done": "#5b8fd0", "stopped": "#b3bac3", "failed": "#d9776e", "unfinished": "#d9a441"}
_STATES = {"done": "", "stopped": "stopped early", "failed": "failed", "unfinished": "not finished"}
_LOG = 20
"""Numbers that span more than this factor are shown by magnitude."""


@dataclass(frozen=True, slots=True, eq=False)
class TrialResult:
    """What became of a trial.

    Args:
        number: From 1.
        settings: Dotted keys of the configuration and their values.
        state: How it ended.
        reason: Why it failed, or None.
        history: One row an epoch, with ``epoch`` and ``miou``.
        seconds: That its epochs took.
    """

    number: int
    settings: Mapping[str, Any]
    state: State
    reason: str | None
    history: Sequence[Mapping[str, Any]]
    seconds: float

    @property
    def best(self) -> Mapping[str, Any] | None:
        """The row of the best epoch, whose model the trial has kept."""
        return max(self.history, key=lambda row: row["miou"] or 0, default=None)

    @property
    def miou(self) -> float:
        """Of the best epoch; 0 before there is one."""
        return (self.best or {}).get("miou") or 0.0

    @property
    def rank(self) -> tuple[Any, ...]:
        """Sorts the best first and those that failed last."""
        return (self.state == "failed", self.best is None, -self.miou, self.number)


def shown(value: Any) -> str:
    """A setting's value for people."""
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(value)


def short_keys(settings: Mapping[str, Any]) -> dict[str, str]:
    """Dotted keys without what precedes the last dot, where that is enough to tell them apart."""
    last = [key.rpartition(".")[2] for key in settings]
    return {key: name if last.count(name) == 1 else key for key, name in zip(settings, last, strict=True)}


def trials_table(trials: Sequence[TrialResult]) -> Table:
    """The trials, the best first, for terminals of 80 columns: something for ``rich.console.Console.print``."""
    names = short_keys(trials[0].settings)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("Trial", justify="right", no_wrap=True)
    for heading in ("mIoU", "Best epoch"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name in names.values():
        table.add_column(name, overflow="fold")
    table.add_column("", overflow="fold")
    for trial in sorted(trials, key=lambda trial: trial.rank):
        best = trial.best
        figures = ["-", "-"] if best is None else [f"{trial.miou:.3f}", f"{best['epoch']} of {len(trial.history)}"]
        values = [Text(shown(trial.settings[key])) for key in names]
        table.add_row(str(trial.number), *figures, *values, Text(_STATES[trial.state]))
    return table


def trials_csv(trials: Sequence[TrialResult]) -> str:
    """One row a trial, in their order; cells of figures that there are not are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = list(trials[0].settings)
    writer.writerow(["trial", "state", "miou", "epoch", "epochs", "seconds", *keys, "reason"])
    for trial in trials:
        best = trial.best or {"miou": None, "epoch": None}
        figures = [best["miou"], best["epoch"], len(trial.history), round(trial.seconds, 1)]
        writer.writerow([trial.number, trial.state, *figures, *(trial.settings[key] for key in keys), trial.reason])
    return text.getvalue()


@dataclass(frozen=True, slots=True)
class Point:
    """A trial in a scatter chart: its place, its colour, whether it is the best, and what it says when pointed at."""

    x: float
    y: float
    color: str
    best: bool
    title: str


@dataclass(frozen=True, slots=True)
class Scatter:
    """miou against a setting.

    Args:
        title: The setting's key.
        points: Of the trials; the best lies on top.
        x_ticks: (x, text) of the setting.
        y_ticks: (y, text) of the miou.
    """

    title: str
    points: tuple[Point, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    bottom: int = HEIGHT - _BOTTOM


def trials_html(name: str, trials: Sequence[TrialResult]) -> str:
    """The page of a search, which needs nothing beside it.

    Args:
        name: Of the run.
        trials: All that have begun.
    """
    environment = Environment(
        loader=PackageLoader("segbatch.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    ordered = sorted(trials, key=lambda trial: trial.rank)
    return environment.get_template("trials.html.j2").render(
        name=name,
        labelled=False,
        keys=short_keys(trials[0].settings),
        trials=ordered,
        states=_STATES,
        colors=_COLORS,
        shown=shown,
        course=course_chart(ordered),
        scatters=[scatter_chart(key, ordered) for key in trials[0].settings] if ordered[0].best else [],
    )


def course_chart(ordered: Sequence[TrialResult]) -> Chart | None:
    """The miou by epoch, a curve a trial; the best comes first in ``ordered`` and lies on top."""
    curved = [trial for trial in ordered if trial.best is not None]
    if not curved:
        return None
    curves = [
        Curve(
            _title(trial),
            [(float(row["epoch"]), row["miou"]) for row in trial.history],
            None if trial is curved[0] else _COLORS[trial.state],
        )
        for trial in reversed(curved)
    ]
    last = max(row["epoch"] for trial in curved for row in trial.history)
    return line_chart("mIoU on validation scenes", curves, (1.0, float(last)), high=_highest(curved))


def scatter_chart(key: str, ordered: Sequence[TrialResult]) -> Scatter:
    """The miou against a setting: numbers by size or, where they span many, by magnitude; others side by side."""
    placed = [trial for trial in ordered if trial.best is not None]
    values = [trial.settings[key] for trial in placed]
    ticks = nice_ticks(0.0, _highest(placed))
    place, x_ticks = _axis(values)

    def y(miou: float) -> float:
        return round(HEIGHT - _BOTTOM - miou / ticks[-1] * (HEIGHT - _TOP - _BOTTOM), 1)

    points = [
        Point(place(trial.settings[key]), y(trial.miou), _COLORS[trial.state], trial is placed[0], _title(trial))
        for trial in reversed(placed)
    ]
    return Scatter(key, tuple(points), x_ticks, tuple((y(tick), f"{tick:.6g}") for tick in ticks))


def _axis(values: Sequence[Any]) -> tuple[Any, tuple[tuple[float, str], ...]]:
    """Where a value is on the horizontal axis, and the axis's ticks."""
    different = list(dict.fromkeys(map(shown, values)))
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    width = WIDTH - _LEFT - _RIGHT
    if not numeric or len(different) < 2:
        step = width / len(different)
        centres = {name: round(_LEFT + step * (index + 0.5), 1) for index, name in enumerate(sorted(different))}
        return lambda value: centres[shown(value)], tuple((x, name) for name, x in centres.items())
    low, high = min(values), max(values)
    log = low > 0 and high / low > _LOG
    scale = math.log10 if log else float
    first, span = scale(low), scale(high) - scale(low)

    def place(value: float) -> float:
        return round(_LEFT + 10 + (scale(value) - first) / span * (width - 20), 1)

    if log:
        powers = range(math.floor(first), math.ceil(first + span) + 1)
        ticks = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    else:
        ticks = list(values) if len(different) <= 6 else nice_ticks(low, high)
    inside = sorted({tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)})
    return place, tuple((place(tick), f"{tick:g}") for tick in inside)


def _highest(trials: Sequence[TrialResult]) -> float:
    return max(trial.miou for trial in trials) or 1.0


def _title(trial: TrialResult) -> str:
    settings = ", ".join(f"{name} {shown(trial.settings[key])}" for key, name in short_keys(trial.settings).items())
    return f"trial {trial.number}: {settings}: miou {trial.miou:.3f}"
