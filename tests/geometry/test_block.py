"""Blocks: what they own, what they read, how large they are."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbatch.geometry import Block, BlockGrid, Lattice, Window, block_shape

lattices = st.builds(
    Lattice, st.integers(1, 70), st.integers(1, 70), st.integers(1, 25), st.integers(1, 25), st.integers(0, 9)
)
grids = st.builds(BlockGrid, lattices, st.integers(1, 6), st.integers(1, 6))
overlapping_grids = st.builds(
    BlockGrid,
    st.builds(
        Lattice, st.integers(1, 70), st.integers(1, 70), st.integers(3, 25), st.integers(3, 25), st.integers(1, 30)
    ),
    st.integers(1, 6),
    st.integers(1, 6),
    st.just(True),
)


@given(grids | overlapping_grids)
def test_blocks_partition_the_scene(grid: BlockGrid) -> None:
    scene = grid.lattice.scene
    owners = np.zeros((scene.height, scene.width), int)
    for block in grid:
        assert scene.contains(block.owned)
        assert block.owned.width <= grid.block_width
        assert block.owned.height <= grid.block_height
        owners[block.owned.slices] += 1
    assert (owners == 1).all()


@given(grids | overlapping_grids)
def test_every_block_starts_on_a_shard(grid: BlockGrid) -> None:
    for block in grid:
        assert block.owned.row_off == block.row * grid.block_height
        assert block.owned.col_off == block.col * grid.block_width


@given(grids)
def test_a_block_reads_the_union_of_its_windows(grid: BlockGrid) -> None:
    """Counted pixel by pixel on a canvas that holds what lies beyond the scene."""
    lattice = grid.lattice
    edge = lattice.halo + max(lattice.core_width, lattice.core_height)
    shape = lattice.height + 2 * edge, lattice.width + 2 * edge
    canvas = lattice.scene.buffered(edge)
    seen = {index: np.zeros(shape, bool) for index in range(len(grid))}
    for row in range(lattice.rows):
        for col in range(lattice.cols):
            index = row // grid.block_rows * grid.cols + col // grid.block_cols
            window = lattice.cores(row, col).buffered(lattice.halo)
            seen[index][window.relative_to(canvas).slices] = True
            assert grid[index].owned.contains(lattice.core(row, col))
    for index, block in enumerate(grid):
        read = np.zeros(shape, bool)
        read[block.read.relative_to(canvas).slices] = True
        assert (read == seen[index]).all()


@given(lattices, st.data())
def test_windows_do_not_depend_on_the_block_shape(lattice: Lattice, data: st.DataObject) -> None:
    """The windows that blocks run, found from what they read, are the lattice's, each run once."""
    rows, cols = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    run = []
    for block in BlockGrid(lattice, rows, cols):
        cores = block.read.buffered(-lattice.halo)
        for row_off in range(cores.row_off, cores.row_end, lattice.core_height):
            for col_off in range(cores.col_off, cores.col_end, lattice.core_width):
                run.append((row_off, col_off))
    of_lattice = [
        (row * lattice.core_height, col * lattice.core_width)
        for row in range(lattice.rows)
        for col in range(lattice.cols)
    ]
    assert sorted(run) == of_lattice


def read_windows(grid: BlockGrid, block: Block) -> list[Window]:
    """The cores of the windows that lie in what a block reads."""
    lattice, cores = grid.lattice, block.read.buffered(-grid.lattice.halo)
    return [
        Window(col_off, row_off, lattice.core_width, lattice.core_height)
        for row_off in range(cores.row_off, cores.row_end, lattice.core_height)
        for col_off in range(cores.col_off, cores.col_end, lattice.core_width)
    ]


@given(overlapping_grids)
def test_an_overlapping_block_runs_the_windows_that_touch_it(grid: BlockGrid) -> None:
    lattice = grid.lattice
    cores = [lattice.cores(row, col) for row in range(lattice.rows) for col in range(lattice.cols)]
    for block in grid:
        touching = [core for core in cores if core.buffered(lattice.halo).intersection(block.owned)]
        assert read_windows(grid, block) == touching
        assert grid.windows(block) == len(touching)


@given(grids | overlapping_grids)
def test_kept_pixels_are_those_that_the_block_owns(grid: BlockGrid) -> None:
    for block in grid:
        assert block.read.contains(block.owned)
        back = block.kept.col_off + block.read.col_off, block.kept.row_off + block.read.row_off
        assert Window(*back, block.kept.width, block.kept.height) == block.owned
        assert grid.windows(block) == len(read_windows(grid, block))


@given(overlapping_grids)
def test_overlapping_changes_nothing_of_what_blocks_own(grid: BlockGrid) -> None:
    plain = BlockGrid(grid.lattice, grid.block_rows, grid.block_cols)
    assert [block.owned for block in plain] == [block.owned for block in grid]
    assert all(wide.read.contains(block.read) for wide, block in zip(grid, plain, strict=True))


def test_blocks_are_numbered_row_by_row() -> None:
    grid = BlockGrid(Lattice(width=50, height=30, core_width=10, core_height=10, halo=0), block_rows=2, block_cols=2)
    assert (grid.rows, grid.cols, len(grid)) == (2, 3, 6)
    assert [(block.row, block.col) for block in grid] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert grid[4].row == 1
    assert grid[4].col == 1


@pytest.mark.parametrize("index", [-1, 6, 100])
def test_an_index_outside_the_grid_is_refused(index: int) -> None:
    grid = BlockGrid(Lattice(width=50, height=30, core_width=10, core_height=10, halo=0), block_rows=2, block_cols=2)
    with pytest.raises(IndexError, match=f"block {index} .* 2 x 3"):
        grid[index]


@given(lattices, st.integers(1, 32), st.integers(1, 200_000))
def test_block_shape_fits_the_budget_and_the_scene(lattice: Lattice, bytes_per_pixel: int, budget: int) -> None:
    rows, cols = block_shape(lattice, bytes_per_pixel, budget)
    core_bytes = lattice.core_width * lattice.core_height * bytes_per_pixel
    assert 1 <= rows <= lattice.rows
    assert 1 <= cols <= lattice.cols
    assert rows * cols * core_bytes <= budget or (rows, cols) == (1, 1)
    # Largest: neither a row nor a column of cores more would fit.
    assert rows == lattice.rows or (rows + 1) * cols * core_bytes > budget
    assert cols == lattice.cols or rows * (cols + 1) * core_bytes > budget


@given(lattices, st.integers(1, 8), st.integers(1, 20_000), st.sampled_from([2, 3, 16]))
def test_sides_of_blocks_are_multiples(lattice: Lattice, bytes_per_pixel: int, budget: int, multiple: int) -> None:
    shape = block_shape(lattice, bytes_per_pixel, budget, multiple)
    sides = (lattice.core_height, lattice.rows), (lattice.core_width, lattice.cols)
    core_bytes = lattice.core_width * lattice.core_height * bytes_per_pixel
    least = [min(limit, multiple // math.gcd(core, multiple)) for core, limit in sides]
    for count, (core, limit) in zip(shape, sides, strict=True):
        assert 1 <= count <= limit
        assert count == limit or count * core % multiple == 0
    # The budget gives way to the multiple alone.
    grown = [count > few for count, few in zip(shape, least, strict=True)]
    assert not any(grown) or shape[0] * shape[1] * core_bytes <= budget
    # Largest: not a multiple more would fit, in either direction.
    for axis, (core, limit) in enumerate(sides):
        more = list(shape)
        more[axis] = min(limit, more[axis] + multiple // math.gcd(core, multiple))
        assert shape[axis] == limit or more[0] * more[1] * core_bytes > budget


@given(lattices, st.integers(1, 8))
def test_a_budget_for_the_scene_gives_one_block(lattice: Lattice, bytes_per_pixel: int) -> None:
    cores = lattice.rows * lattice.cols * lattice.core_width * lattice.core_height
    # A square of this many pixels is wide and high enough for both sides of the scene.
    side = max(lattice.rows * lattice.core_height, lattice.cols * lattice.core_width)
    rows, cols = block_shape(lattice, bytes_per_pixel, 4 * max(cores, side * side) * bytes_per_pixel)
    assert len(BlockGrid(lattice, rows, cols)) == 1


def test_block_shape_is_near_square_in_pixels() -> None:
    wide_cores = Lattice(width=100_000, height=100_000, core_width=1024, core_height=256, halo=0)
    rows, cols = block_shape(wide_cores, bytes_per_pixel=4, budget=64 << 20)
    assert (rows * 256, cols * 1024) == (4096, 4096)
