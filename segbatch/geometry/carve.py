"""Areas of windows: square blocks of a scene, what is left of it without some, how far windows lie apart."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from segbatch.geometry.window import Window


def square_blocks(area: Window, side: int) -> list[Window]:
    """Divide an area into blocks of ``side`` pixels, row by row from its upper left corner.

    What is left at the right and lower border is a block of its own from half a side on, and belongs to the block
    before it otherwise: no block is a sliver.
    """
    rows, cols = _edges(area.row_off, area.height, side), _edges(area.col_off, area.width, side)
    return [Window(left, top, right - left, bottom - top) for top, bottom in rows for left, right in cols]


def carve(area: Window, holes: Sequence[Window], tile: int) -> list[Window]:
    """Rectangles that share no pixel and together cover what is left of an area without the holes.

    Of the division into rows and that into columns, the one that has more pixels where a tile fits; then the one of
    fewer rectangles.

    Args:
        area: The area.
        holes: What to leave out; may overlap each other and reach beyond the area.
        tile: Side of a tile in pixels.
    """
    by_rows = _carve_rows(area, holes)
    by_cols = [_turned(window) for window in _carve_rows(_turned(area), [_turned(hole) for hole in holes])]

    def worth(windows: list[Window]) -> tuple[int, int]:
        return sum(window.area for window in windows if min(window.width, window.height) >= tile), -len(windows)

    return max(by_rows, by_cols, key=worth)


def reach(window: Window, tile: int) -> Window:
    """All pixels that tiles of a window may show: a tile stays inside, or is centred where the window is smaller."""
    width, height = max(window.width, tile), max(window.height, tile)
    return Window(
        window.col_off + (window.width - width) // 2, window.row_off + (window.height - height) // 2, width, height
    )


def gaps(ones: Sequence[Window], others: Sequence[Window]) -> NDArray[np.int64]:
    """(ones, others) int64: how many pixels lie between two windows, in the direction in which they are farther apart.

    0 where they touch, at an edge or a corner, and negative where they overlap.
    """
    a, b = _corners(ones)[:, np.newaxis], _corners(others)[np.newaxis]
    return np.maximum(b[..., :2] - a[..., 2:], a[..., :2] - b[..., 2:]).max(axis=-1)


def _edges(start: int, size: int, side: int) -> list[tuple[int, int]]:
    count = max(1, (2 * size + side) // (2 * side))
    return list(pairwise([*(start + index * side for index in range(count)), start + size]))


def _carve_rows(area: Window, holes: Sequence[Window]) -> list[Window]:
    """From top to bottom, the free parts of the rows; those that stay the same become one rectangle."""
    inside = [hole for hole in (hole.intersection(area) for hole in holes) if hole is not None]
    cuts = {area.row_off, area.row_end} | {hole.row_off for hole in inside} | {hole.row_end for hole in inside}
    begun: dict[tuple[int, int], int] = {}
    found = []
    for top in sorted(cuts):
        # Nothing is free below the area: its last rectangles end there.
        free = [] if top == area.row_end else _free(area, [h for h in inside if h.row_off <= top < h.row_end])
        for left, right in [span for span in begun if span not in free]:
            start = begun.pop((left, right))
            found.append(Window(left, start, right - left, top - start))
        for span in free:
            begun.setdefault(span, top)
    return found


def _free(area: Window, holes: Sequence[Window]) -> list[tuple[int, int]]:
    spans, left = [], area.col_off
    for hole in sorted(holes, key=lambda hole: hole.col_off):
        if hole.col_off > left:
            spans.append((left, hole.col_off))
        left = max(left, hole.col_end)
    return [*spans, (left, area.col_end)] if left < area.col_end else spans


def _turned(window: Window) -> Window:
    return Window(window.row_off, window.col_off, window.height, window.width)


def _corners(windows: Sequence[Window]) -> NDArray[np.int64]:
    """(windows, 4) int64: first column, first row, and one past the last of both."""
    corners = [(window.col_off, window.row_off, window.col_end, window.row_end) for window in windows]
    return np.array(corners, np.int64).reshape(-1, 4)
