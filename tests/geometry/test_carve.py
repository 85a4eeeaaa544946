"""Areas of windows: blocks, what is left without some of them, distances."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from segbatch.geometry import Window, carve, gaps, reach, square_blocks

offsets, sizes = st.integers(-12, 40), st.integers(1, 30)
windows = st.builds(Window, offsets, offsets, sizes, sizes)
areas = st.builds(Window, st.integers(0, 9), st.integers(0, 9), st.integers(1, 40), st.integers(1, 40))
CANVAS = 60


def painted(rectangles: list[Window]) -> NDArray[np.int64]:
    """How many rectangles each pixel of the canvas is in, counted from -20."""
    count = np.zeros((CANVAS + 40, CANVAS + 40), np.int64)
    for window in rectangles:
        count[Window(window.col_off + 20, window.row_off + 20, window.width, window.height).slices] += 1
    return count


@given(areas, st.lists(windows, max_size=6), st.integers(1, 20))
def test_what_is_left_is_covered_once_and_nothing_else_is(area: Window, holes: list[Window], tile: int) -> None:
    expected = (painted([area]) > 0) & (painted(holes) == 0)
    assert np.array_equal(painted(carve(area, holes, tile)), expected.astype(int))


@given(areas, st.lists(areas, max_size=3), st.integers(0, 8))
def test_buffered_blocks_leave_the_pixels_that_are_that_far_away(
    area: Window, blocks: list[Window], buffer: int
) -> None:
    """By the definition: as many pixels lie between, in the direction in which they are farther apart."""
    left = painted(carve(area, [block.buffered(buffer) for block in blocks], 1)) > 0
    for row in range(area.row_off, area.row_end):
        for col in range(area.col_off, area.col_end):
            far = True
            for block in blocks:
                between_cols = max(block.col_off - col - 1, col - block.col_end, -1)
                between_rows = max(block.row_off - row - 1, row - block.row_end, -1)
                far = far and (max(between_cols, between_rows) >= max(buffer, 0))
            assert left[row + 20, col + 20] == far


def test_the_division_where_tiles_fit_is_taken() -> None:
    area = Window(0, 0, 100, 100)
    # Rows give 100 x 40, twice 45 x 20 and 100 x 40; columns 45 x 100, twice 10 x 40 and 45 x 100.
    hole = Window(45, 40, 10, 20)
    assert sorted(carve(area, [hole], 30)) == sorted(
        [Window(0, 0, 45, 100), Window(45, 0, 10, 40), Window(45, 60, 10, 40), Window(55, 0, 45, 100)]
    )
    turned = Window(40, 45, 20, 10)
    assert Window(0, 0, 100, 45) in carve(area, [turned], 30)
    assert carve(area, [], 30) == [area]
    assert carve(area, [area], 30) == []


@given(areas, st.integers(1, 50))
def test_blocks_partition_the_area_and_none_is_a_sliver(area: Window, side: int) -> None:
    blocks = square_blocks(area, side)
    assert np.array_equal(painted(blocks), painted([area]))
    for block in blocks:
        for size, whole in ((block.width, area.width), (block.height, area.height)):
            assert min(side / 2, whole) <= size < 1.5 * side
    for block in blocks[: max(1, (2 * area.width + side) // (2 * side)) - 1]:
        assert block.width == side


@given(windows, windows)
def test_gaps_count_the_pixels_between(one: Window, other: Window) -> None:
    gap = int(gaps([one], [other])[0, 0])
    assert gap == int(gaps([other], [one])[0, 0])
    assert (gap < 0) == (one.intersection(other) is not None)
    if gap >= 0:
        assert one.buffered(gap).intersection(other) is None
    assert one.buffered(max(gap + 1, 0)).intersection(other) is not None


def test_gaps_of_many_windows_are_a_table() -> None:
    assert gaps([Window(0, 0, 2, 2), Window(9, 0, 1, 1)], [Window(2, 2, 1, 1)]).tolist() == [[0], [6]]
    assert gaps([], [Window(0, 0, 1, 1)]).shape == (0, 1)


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        (Window(10, 20, 64, 80), Window(10, 20, 64, 80)),
        (Window(10, 20, 63, 80), Window(9, 20, 64, 80)),
        (Window(10, 20, 60, 2), Window(8, -11, 64, 64)),
    ],
)
def test_tiles_reach_beyond_windows_that_are_smaller(window: Window, expected: Window) -> None:
    assert reach(window, 64) == expected
