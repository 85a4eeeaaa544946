"""Line charts of training, as coordinates that a template draws as SVG."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from segbatch.classes import ClassTable

WIDTH, HEIGHT = 520, 250
"""Size of a chart in SVG units."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 14, 12, 34

_MOST_POINTS = 300


@dataclass(frozen=True, slots=True)
class Line:
    """A curve.

    Args:
        name: What it shows.
        path: SVG path data; points without a finite value break the curve.
        color: ``#rrggbb``, or None for curves that have none of their own.
        kind: Of those: main; mean, of coloured ones; or faint.
    """

    name: str
    path: str
    color: str | None = None
    kind: Literal["main", "mean", "faint"] = "main"


@dataclass(frozen=True, slots=True)
class Chart:
    """A line chart over epochs.

    Args:
        title: Quantity on the vertical axis.
        lines: Curves; later ones lie on top.
        x_ticks: (x, text) of the epochs.
        y_ticks: (y, text) of the values.
        mark: x of the kept epoch, or None.
        left: x of the vertical axis.
        right: x of the right border.
        bottom: y of the horizontal axis.
    """

    title: str
    lines: tuple[Line, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    mark: float | None = None
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    bottom: int = HEIGHT - _BOTTOM


@dataclass(frozen=True, slots=True)
class Curve:
    """Values at epochs, or between them; None where there is none."""

    name: str
    points: Sequence[tuple[float, float | None]]
    color: str | None = None
    kind: Literal["main", "mean", "faint"] = "main"

    @property
    def values(self) -> list[float]:
        """Those that there are."""
        return [value for _, value in self.points if value is not None]


def training_charts(
    rows: Sequence[Mapping[str, Any]],
    classes: ClassTable,
    steps: Sequence[Mapping[str, Any]] = (),
    kept: int | None = None,
) -> tuple[Chart, ...]:
    """The loss, the mean and class IoU on validation scenes, and the learning rate.

    A quantity without a value has no chart.

    Args:
        rows: Of the epochs.
        classes: The class table.
        steps: Rows of steps, for what goes on inside epochs.
        kept: The epoch to mark.
    """

    def of(field: str) -> list[tuple[float, float | None]]:
        return [(float(row["epoch"]), number(row.get(field))) for row in rows]

    def inside(field: str) -> list[tuple[float, float | None]]:
        return [(row["epoch"] - 1 + row["step"] / row["steps"], number(row.get(field))) for row in steps]

    loss = [Curve("mean of the epoch", of("loss"))]
    rate = [Curve("learning rate", of("learning_rate"))]
    if len(steps) > 1:
        loss.insert(0, Curve("steps", _thinned(inside("loss")), kind="faint"))
        rate = [Curve("learning rate", _thinned(inside("learning_rate")))]
    iou = [
        Curve(name, [(float(row["epoch"]), of_class(row, index)) for row in rows], color)
        for index, (name, color) in enumerate(zip(classes.names, classes.colors, strict=True))
    ]
    mean = Curve("mean IoU", of("miou"), kind="mean")
    places = [place for place, _ in (*of("epoch"), *(inside("epoch") if len(steps) > 1 else ()))]
    # Steps of the first epoch lie between 0 and 1.
    span = (math.floor(min(places)), max(places)) if places else (0.0, 0.0)
    charts = [line_chart("Training loss", loss, span, kept)]
    if mean.values:
        charts.append(line_chart("IoU on validation scenes", [*iou, mean], span, kept, high=1.0))
    charts.append(line_chart("Learning rate", rate, span, kept))
    return tuple(chart for chart in charts if chart is not None)


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers that span ``low`` to ``high``: multiples of 1, 2 or 5 times a power of ten.

    The first is at most ``low``, the last at least ``high``; equal ends are spread first.
    """
    if high <= low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def number(value: Any) -> float | None:
    """The value as a finite number, else None."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def of_class(row: Mapping[str, Any], index: int) -> float | None:
    """The IoU of a class in an epoch; None also for a class that the epoch does not know."""
    values = row.get("iou") or ()
    return number(values[index]) if index < len(values) else None


def line_chart(
    title: str, curves: Sequence[Curve], span: tuple[float, float], kept: int | None = None, high: float | None = None
) -> Chart | None:
    """A chart whose vertical axis begins at 0 or below; None without a value.

    Args:
        title: Quantity on the vertical axis.
        curves: Later ones lie on top.
        span: First and last epoch of the horizontal axis.
        kept: The epoch to mark.
        high: Where the vertical axis ends; at the highest value when None.
    """
    curves = [curve for curve in curves if curve.values]
    if not curves:
        return None
    values = [value for curve in curves for value in curve.values]
    ticks = nice_ticks(min(0.0, *values), max(values) if high is None else high)
    (first, last), extent = span, max(span[1] - span[0], 1.0)

    def x(epoch: float) -> float:
        return round(_LEFT + (epoch - first) / extent * (WIDTH - _LEFT - _RIGHT), 1)

    def y(value: float) -> float:
        return round(HEIGHT - _BOTTOM - (value - ticks[0]) / (ticks[-1] - ticks[0]) * (HEIGHT - _TOP - _BOTTOM), 1)

    lines = [
        Line(
            curve.name,
            _path([None if value is None else (x(place), y(value)) for place, value in curve.points]),
            curve.color,
            curve.kind,
        )
        for curve in curves
    ]
    shown = [tick for tick in nice_ticks(first, last, 8) if first <= tick <= last and tick == int(tick)]
    x_ticks = [(x(epoch), f"{epoch:.0f}") for epoch in (shown if last > first else [first])]
    y_ticks = [(y(tick), _tick(tick)) for tick in ticks]
    return Chart(title, tuple(lines), tuple(x_ticks), tuple(y_ticks), None if kept is None else x(kept))


def _tick(value: float) -> str:
    """A value of the axis, in few letters: 0.05, 5e-3."""
    if value == 0 or abs(value) >= 1e-2:
        return f"{value:.6g}"
    mantissa, _, exponent = f"{value:.6e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _thinned(points: Sequence[tuple[float, float | None]]) -> list[tuple[float, float | None]]:
    """At most `_MOST_POINTS` points, each the mean of neighbours."""
    size = -(-len(points) // _MOST_POINTS)
    thinned: list[tuple[float, float | None]] = []
    for start in range(0, len(points), size):
        some = points[start : start + size]
        values = [value for _, value in some if value is not None]
        thinned.append((some[-1][0], sum(values) / len(values) if values else None))
    return thinned


def _path(points: Sequence[tuple[float, float] | None]) -> str:
    commands, pen = [], False
    for point in points:
        if point is not None:
            # The zero length after a move draws a dot, so that a lone epoch is visible.
            commands.append(f"L{point[0]} {point[1]}" if pen else f"M{point[0]} {point[1]}h0")
        pen = point is not None
    return "".join(commands)
