"""The lattice of cores and the choice of their side."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbatch.geometry import Lattice, Window, balanced_core

lattices = st.builds(
    Lattice, st.integers(1, 70), st.integers(1, 70), st.integers(1, 25), st.integers(1, 25), st.integers(0, 9)
)


@given(lattices)
def test_cores_partition_the_scene(lattice: Lattice) -> None:
    owners = np.zeros((lattice.height, lattice.width), int)
    for row in range(lattice.rows):
        for col in range(lattice.cols):
            core = lattice.core(row, col)
            assert lattice.scene.contains(core)
            owners[core.slices] += 1
    assert (owners == 1).all()


@given(lattices)
def test_cores_are_anchored_at_the_origin(lattice: Lattice) -> None:
    last = lattice.core(lattice.rows - 1, lattice.cols - 1)
    assert lattice.core(0, 0).col_off == lattice.core(0, 0).row_off == 0
    assert last.col_off == (lattice.cols - 1) * lattice.core_width
    assert last.row_off == (lattice.rows - 1) * lattice.core_height
    assert (last.col_end, last.row_end) == (lattice.width, lattice.height)


@given(lattices)
def test_waste_is_pixels_run_over_pixels_kept(lattice: Lattice) -> None:
    run = kept = 0
    for row in range(lattice.rows):
        for col in range(lattice.cols):
            run += lattice.cores(row, col).buffered(lattice.halo).area
            kept += lattice.core(row, col).area
    assert lattice.waste == pytest.approx(run / kept)


def test_waste_of_even_cores_is_the_known_ratio() -> None:
    assert Lattice(4096, 4096, 1024, 1024, 64).waste == pytest.approx((1152 / 1024) ** 2)


@pytest.mark.parametrize(("row", "col"), [(3, 0), (0, 4), (-1, 0), (0, -1)])
def test_a_core_outside_the_lattice_is_an_index_error(row: int, col: int) -> None:
    lattice = Lattice(width=37, height=25, core_width=10, core_height=10, halo=2)
    with pytest.raises(IndexError, match="3 x 4"):
        lattice.core(row, col)


def test_cores_are_not_clipped() -> None:
    lattice = Lattice(width=37, height=25, core_width=10, core_height=8, halo=2)
    assert lattice.cores(2, 3, rows=2, cols=1) == Window(30, 16, 10, 16)
    assert (lattice.window_width, lattice.window_height) == (14, 12)


@pytest.mark.parametrize(
    "sizes", [(0, 5, 1, 1, 0), (5, 0, 1, 1, 0), (5, 5, 0, 1, 0), (5, 5, 1, 0, 0), (5, 5, 1, 1, -1)]
)
def test_sizes_without_sense_are_refused(sizes: tuple[int, int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="positive"):
        Lattice(*sizes)


@given(st.integers(1, 5000), st.integers(1, 64), st.integers(1, 40))
def test_balanced_core_is_the_smallest_side_of_the_fewest_cores(size: int, multiple: int, factor: int) -> None:
    limit = multiple * factor
    side = balanced_core(size, limit, multiple)
    allowed = range(multiple, limit + 1, multiple)
    fewest = min(-(-size // candidate) for candidate in allowed)
    assert side in allowed
    assert side == min(candidate for candidate in allowed if -(-size // candidate) == fewest)
    assert fewest * side - size < fewest * multiple  # the overhang


def test_balanced_core_splits_evenly() -> None:
    assert balanced_core(6272, 1024, 32) == 896
    assert balanced_core(100, 1024, 32) == 128
    assert balanced_core(1024, 1024, 32) == 1024
    assert balanced_core(1025, 1024, 32) == 544


@pytest.mark.parametrize(("limit", "multiple"), [(100, 32), (16, 32), (0, 32)])
def test_balanced_core_refuses_a_limit_that_is_no_multiple(limit: int, multiple: int) -> None:
    with pytest.raises(ValueError, match=f"limit {limit} .* {multiple}"):
        balanced_core(500, limit, multiple)
