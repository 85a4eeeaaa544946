"""Laws of pixel rectangles, against sets of pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbatch.geometry import Window

windows = st.builds(Window, st.integers(-12, 12), st.integers(-12, 12), st.integers(1, 12), st.integers(1, 12))


def pixels(window: Window | None) -> set[tuple[int, int]]:
    if window is None:
        return set()
    return {
        (row, col)
        for row in range(window.row_off, window.row_off + window.height)
        for col in range(window.col_off, window.col_off + window.width)
    }


@given(windows, windows)
def test_intersection_holds_the_common_pixels(one: Window, other: Window) -> None:
    assert pixels(one.intersection(other)) == pixels(one) & pixels(other)
    assert one.intersection(other) == other.intersection(one)


@given(windows, windows)
def test_contains_means_subset(one: Window, other: Window) -> None:
    assert one.contains(other) == (pixels(other) <= pixels(one))


@given(windows, st.integers(0, 6))
def test_buffered_grows_every_side(window: Window, halo: int) -> None:
    grown = window.buffered(halo)
    near = {
        (row + down, col + right)
        for row, col in pixels(window)
        for down in (-halo, 0, halo)
        for right in (-halo, 0, halo)
    }
    assert grown.contains(window)
    assert near <= pixels(grown)
    assert grown.area == (window.width + 2 * halo) * (window.height + 2 * halo) == len(pixels(grown))
    assert grown.buffered(-halo) == window


@given(windows, windows)
def test_relative_to_moves_the_origin(one: Window, origin: Window) -> None:
    moved = one.relative_to(origin)
    assert pixels(moved) == {(row - origin.row_off, col - origin.col_off) for row, col in pixels(one)}
    assert origin.relative_to(origin) == Window(0, 0, origin.width, origin.height)


def test_slices_index_rows_then_columns() -> None:
    grid = np.arange(20).reshape(4, 5)
    window = Window(col_off=1, row_off=2, width=3, height=2)
    assert grid[window.slices].tolist() == [[11, 12, 13], [16, 17, 18]]
    assert (window.col_end, window.row_end) == (4, 4)


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0), (-1, 5)])
def test_a_window_without_pixels_is_refused(width: int, height: int) -> None:
    with pytest.raises(ValueError, match=f"got {width} x {height}"):
        Window(0, 0, width, height)
