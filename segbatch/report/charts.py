"""Line charts of training, as coordinates that a template draws as SVG."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segbatch.classes import ClassTable

WIDTH, HEIGHT = 520, 250
"""Size of a chart in SVG units."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 14, 12, 34


@dataclass(frozen=True, slots=True)
class Line:
    """A curve.

    Args:
        name: What it shows.
        path: SVG path data; epochs without a finite value break the curve.
        color: ``#rrggbb``, or None for the chart's main curve.
    """

    name: str
    path: str
    color: str | None = None


@dataclass(frozen=True, slots=True)
class Chart:
    """A line chart over epochs.

    Args:
        title: Quantity on the vertical axis.
        lines: Curves; later ones lie on top.
        x_ticks: (x, text) of the epochs.
        y_ticks: (y, text) of the values.
        left: x of the vertical axis.
        right: x of the right border.
        bottom: y of the horizontal axis.
    """

    title: str
    lines: tuple[Line, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    bottom: int = HEIGHT - _BOTTOM


def training_charts(rows: Sequence[Mapping[str, Any]], classes: ClassTable) -> tuple[Chart, ...]:
    """The loss, and the mean and class IoU on validation scenes; a quantity without a value has no chart."""
    epochs = [float(row["epoch"]) for row in rows]
    losses = [_number(row.get("loss")) for row in rows]
    mious = [_number(row.get("miou")) for row in rows]
    charts = []
    if any(value is not None for value in losses):
        present = [value for value in losses if value is not None]
        charts.append(line_chart("Training loss", epochs, [("loss", None, losses)], min(0.0, *present), max(present)))
    if any(value is not None for value in mious):
        curves: list[tuple[str, str | None, list[float | None]]] = [
            (name, color, [_number((row.get("iou") or {index: None})[index]) for row in rows])
            for index, (name, color) in enumerate(zip(classes.names, classes.colors, strict=True))
        ]
        charts.append(line_chart("IoU on validation scenes", epochs, [*curves, ("mean IoU", None, mious)], 0.0, 1.0))
    return tuple(charts)


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


def line_chart(
    title: str,
    epochs: Sequence[float],
    curves: Sequence[tuple[str, str | None, list[float | None]]],
    low: float,
    high: float,
) -> Chart:
    """Curves over epochs.

    Args:
        title: Quantity on the vertical axis.
        epochs: Where the values are.
        curves: (name, colour or None for the main one, a value or None for each epoch); later ones lie on top.
        low: Least value of the axis.
        high: Largest value.
    """
    ticks = nice_ticks(low, high)
    first, span = epochs[0], max(epochs[-1] - epochs[0], 1.0)

    def x(epoch: float) -> float:
        return round(_LEFT + (epoch - first) / span * (WIDTH - _LEFT - _RIGHT), 1)

    def y(value: float) -> float:
        return round(HEIGHT - _BOTTOM - (value - ticks[0]) / (ticks[-1] - ticks[0]) * (HEIGHT - _TOP - _BOTTOM), 1)

    lines = []
    for name, color, values in curves:
        points = [None if value is None else (x(epoch), y(value)) for epoch, value in zip(epochs, values, strict=True)]
        if any(point is not None for point in points):
            lines.append(Line(name, _path(points), color))
    round_epochs = [tick for tick in nice_ticks(epochs[0], epochs[-1], 8) if epochs[0] <= tick <= epochs[-1]]
    shown = [tick for tick in round_epochs if tick == int(tick)] if len(epochs) > 1 else epochs
    x_ticks = [(x(epoch), f"{epoch:.0f}") for epoch in shown]
    return Chart(title, tuple(lines), tuple(x_ticks), tuple((y(tick), f"{tick:.6g}") for tick in ticks))


def _path(points: Sequence[tuple[float, float] | None]) -> str:
    commands, pen = [], False
    for point in points:
        if point is not None:
            # The zero length after a move draws a dot, so that a lone epoch is visible.
            commands.append(f"L{point[0]} {point[1]}" if pen else f"M{point[0]} {point[1]}h0")
        pen = point is not None
    return "".join(commands)


def _number(value: Any) -> float | None:
    """The value as a finite number, else None."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
