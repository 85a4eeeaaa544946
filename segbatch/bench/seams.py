"""Whether a class mask shows where its windows meet: statistics over neighbouring pixels. Pure numpy.

A seam is a line along which classes change more often than they should. How often they do at all depends on the
scene, and on how far pixels are from the model's own grid: a network that looks at the image in steps of 32 pixels
has favourite columns with or without windows. So each line between cores is compared with lines nearby that lie as
it does on that grid and have no border of a core. A line is one observation: its pixels are anything but independent.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segbatch.classes import NODATA

_NEIGHBOURS = 2
"""Lines on each side that a line is compared with."""

_LEAST_LINES = 3
"""Lines without a border that a standard error takes."""


@dataclass(frozen=True, slots=True)
class SeamRate:
    """Class changes across borders and elsewhere.

    Args:
        at_borders: Share of neighbouring pixels on both sides of a border whose classes differ.
        elsewhere: The same across other lines on the model's grid.
        excess: Of the borders over the lines beside them, the mean.
        error: The standard error of that, by the scatter of the lines without a border.
        lines: Borders.
    """

    at_borders: float
    elsewhere: float
    excess: float
    error: float
    lines: int

    @property
    def z(self) -> float | None:
        """The excess in standard errors; None where there are too few lines to say."""
        return self.excess / self.error if self.error > 0 else None


def change_rates(mask: NDArray[np.uint8], axis: int) -> NDArray[np.float64]:
    """Of each line between neighbouring rows or columns, the share of pixel pairs whose classes differ.

    Args:
        mask: (rows, columns) class ids; nodata counts for nothing.
        axis: 0 for lines between rows, 1 for lines between columns.

    Returns:
        The share at index ``i`` is that across the line before row or column ``i``; NaN at index 0, and where no pair
        is valid.
    """
    first, second = (mask[:-1], mask[1:]) if axis == 0 else (mask[:, :-1], mask[:, 1:])
    valid = (first != NODATA) & (second != NODATA)
    across = 1 - axis
    pairs = valid.sum(axis=across)
    changes = ((first != second) & valid).sum(axis=across)
    rates = np.full(mask.shape[axis], np.nan)
    np.divide(changes, pairs, out=rates[1:], where=pairs > 0)
    return rates


def borders(side: int, core: int) -> list[int]:
    """Where cores, or blocks, of a side meet along an axis: the index of the first row or column after each line."""
    return list(range(core, side, core))


def seam_rate(
    mask: NDArray[np.uint8],
    lines: tuple[Sequence[int], Sequence[int]],
    *,
    step: int,
    avoid: tuple[Collection[int], Collection[int]] | None = None,
) -> SeamRate | None:
    """Compare borders with the lines beside them.

    Args:
        mask: (rows, columns) class ids.
        lines: Borders between rows and between columns; multiples of ``step``.
        step: Of the model's grid: lines at its multiples are alike.
        avoid: Lines that are no borders of this kind but may be seams nevertheless; ``lines`` where absent.

    Returns:
        None where there are no borders, or too few other lines to compare with.
    """
    at, elsewhere = [], []
    border_contrasts, other_contrasts = [], []
    for axis in (0, 1):
        rates = change_rates(mask, axis)
        seams, taboo = set(lines[axis]), set(lines[axis]) | set(avoid[axis] if avoid else ())
        grid = [line for line in range(step, len(rates), step) if not math.isnan(rates[line])]
        others = [line for line in grid if line not in taboo]
        at += [rates[line] for line in grid if line in seams]
        elsewhere += [rates[line] for line in others]
        border_contrasts += _contrasts(rates, [line for line in grid if line in seams], others)
        other_contrasts += _contrasts(rates, others, others)
    if not border_contrasts or len(other_contrasts) < _LEAST_LINES:
        return None
    # Lines without a border have a mean contrast of about 0, so their scatter is that of a border without a seam.
    scatter = float(np.std(other_contrasts, ddof=1))
    return SeamRate(
        at_borders=float(np.mean(at)),
        elsewhere=float(np.mean(elsewhere)),
        excess=float(np.mean(border_contrasts) - np.mean(other_contrasts)),
        error=scatter * math.sqrt(1 / len(border_contrasts) + 1 / len(other_contrasts)),
        lines=len(border_contrasts),
    )


@dataclass(frozen=True, slots=True)
class PairedRate:
    """Class changes across borders in a mask made of windows, against the same places in one that was made at once.

    What the scene does is the same in both, so this finds far less than the lines nearby can tell.

    Args:
        pairs: Neighbouring pixels, one on each side of a border.
        added: Of these, how many differ in the mask and do not in the other.
        removed: The other way round.
    """

    pairs: int
    added: int
    removed: int

    @property
    def excess(self) -> float:
        """Share of the pairs by which the mask has more changes."""
        return (self.added - self.removed) / self.pairs

    @property
    def error(self) -> float:
        """The standard error of that."""
        return math.sqrt(self.added + self.removed) / self.pairs

    @property
    def z(self) -> float | None:
        """The excess in standard errors (McNemar's test); None where no pair tells the masks apart."""
        return self.excess / self.error if self.added + self.removed else None


def paired_rate(
    mask: NDArray[np.uint8], truth: NDArray[np.uint8], lines: tuple[Sequence[int], Sequence[int]]
) -> PairedRate | None:
    """Compare borders with the same places in a mask without any.

    Args:
        mask: (rows, columns) class ids.
        truth: Likewise.
        lines: Borders between rows and between columns.

    Returns:
        None where no pair is valid.
    """
    pairs = added = removed = 0
    for axis in (0, 1):
        after = np.array(lines[axis], np.int64)
        here, there = ([image.take(after - 1, axis), image.take(after, axis)] for image in (mask, truth))
        valid = np.logical_and.reduce([side != NODATA for side in (*here, *there)])
        changes, expected = (here[0] != here[1]) & valid, (there[0] != there[1]) & valid
        pairs += int(valid.sum())
        added += int((changes & ~expected).sum())
        removed += int((expected & ~changes).sum())
    return PairedRate(pairs, added, removed) if pairs else None


def _contrasts(rates: NDArray[np.float64], lines: Sequence[int], others: Sequence[int]) -> list[float]:
    """Of each line, its rate less the mean of the nearest other lines on both sides."""
    known = np.array(others)
    found = []
    for line in lines:
        beside = [*known[known < line][-_NEIGHBOURS:].tolist(), *known[known > line][:_NEIGHBOURS].tolist()]
        if beside:
            found.append(float(rates[line] - np.mean(rates[beside])))
    return found


def near_lines(shape: tuple[int, int], lines: tuple[Sequence[int], Sequence[int]], reach: int) -> NDArray[np.bool_]:
    """(rows, columns) bool: pixels within ``reach`` pixels of one of the lines."""
    near = np.zeros(shape, bool)
    for line in lines[0]:
        near[max(0, line - reach) : line + reach] = True
    for line in lines[1]:
        near[:, max(0, line - reach) : line + reach] = True
    return near


def inner(shape: tuple[int, int], border: int) -> tuple[slice, slice]:
    """(rows, columns) that are ``border`` pixels away from the edges, or as many as leave half of each side."""
    margins = [min(border, side // 4) for side in shape]
    return slice(margins[0], shape[0] - margins[0]), slice(margins[1], shape[1] - margins[1])


def disagreement(mask: NDArray[np.uint8], truth: NDArray[np.uint8], where: NDArray[np.bool_] | None = None) -> float:
    """Share of the pixels valid in both whose classes differ; NaN where there is none.

    Args:
        mask: Class ids.
        truth: Class ids.
        where: Pixels to look at; all when None.
    """
    counted = (mask != NODATA) & (truth != NODATA)
    if where is not None:
        counted &= where
    total = int(counted.sum())
    return int(((mask != truth) & counted).sum()) / total if total else math.nan
