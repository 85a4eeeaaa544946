"""Blocks: what they own, what they read, how large they are."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbatch.geometry import Block, BlockGrid, Lattice, Tiling, Window, block_shape

lattices = st.builds(
    Lattice,
    st.integers(1, 70),
    st.integers(1, 70),
    st.integers(1, 25),
    st.integers(1, 25),
    st.integers(0, 30),
    st.booleans(),
)
grids = st.builds(BlockGrid, lattices, st.integers(1, 6), st.integers(1, 6))
overlapping_grids = st.builds(
    BlockGrid,
    st.builds(
        Lattice,
        st.integers(1, 70),
        st.integers(1, 70),
        st.integers(3, 25),
        st.integers(3, 25),
        st.integers(1, 30),
        st.booleans(),
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


@given(grids | overlapping_grids)
def test_a_block_reads_the_union_of_its_windows(grid: BlockGrid) -> None:
    """Counted pixel by pixel on a canvas that holds what lies beyond the scene."""
    lattice = grid.lattice
    canvas = Window(0, 0, 200, 200)
    for block in grid:
        seen = np.zeros((200, 200), bool)
        for tile in lattice_windows(grid, block):
            assert canvas.contains(tile)
            seen[tile.slices] = True
        read = np.zeros((200, 200), bool)
        read[block.read.slices] = True
        assert (read == seen).all()
        for row in range(lattice.rows):
            for col in range(lattice.cols):
                core = lattice.core(row, col)
                assert block.owned.contains(core) or core.intersection(block.owned) is None


def lattice_windows(grid: BlockGrid, block: Block) -> list[Window]:
    """The windows of the lattice that a block has to run, by definition."""
    lattice = grid.lattice
    numbers = [(row, col) for row in range(lattice.rows) for col in range(lattice.cols)]
    return [
        lattice.window(*number)
        for number in numbers
        if (lattice.window(*number) if grid.overlapping else lattice.core(*number)).intersection(block.owned)
    ]


@given(grids | overlapping_grids)
def test_a_block_runs_the_windows_of_the_lattice(grid: BlockGrid) -> None:
    """Counted from what it reads they lie where the lattice has them, whatever the shape of blocks."""
    for block in grid:
        row_off, col_off = block.read.row_off, block.read.col_off
        tiling = grid.tiling(block)
        tiles = list(tiling)
        found = [
            Window(tile.window.col_off + col_off, tile.window.row_off + row_off, tile.window.width, tile.window.height)
            for tile in tiles
        ]
        assert found == lattice_windows(grid, block)
        assert grid.windows(block) == len(tiles)
        assert [(tile.row, tile.col) for tile in tiles] == [
            (row, col) for row in range(len(tiling.row_starts)) for col in range(len(tiling.col_starts))
        ]
        assert tiling.row_starts[0] == tiling.col_starts[0] == 0
        for tile in tiles:
            assert tile.window.contains(tile.core)


@given(grids)
def test_windows_of_cut_cores_lie_in_what_was_read(grid: BlockGrid) -> None:
    """And see as much context as whole ones, but for the border of what was read."""
    lattice = grid.lattice
    for block in grid:
        tiling = grid.tiling(block)
        read = Window(0, 0, tiling.width, tiling.height)
        for parts in (2, 3):
            if lattice.core_height % parts or lattice.core_width % parts:
                continue
            kept = np.zeros((tiling.height, tiling.width), int)
            for tile in tiling.split(parts):
                assert read.contains(tile.window)
                assert tile.window.contains(tile.core)
                context = tile.core.buffered(lattice.halo).intersection(read)
                assert context is not None
                assert tile.window.contains(context)
                kept[tile.core.slices] += 1
            assert (kept[tiling.cores.slices] == 1).all()
            assert kept.sum() == tiling.cores.area


def test_a_tiling_of_anything_but_whole_cores_is_refused() -> None:
    with pytest.raises(ValueError, match="whole cores"):
        Tiling(40, 32, Window(0, 0, 32, 40), (16, 16), (16, 16), 0)
    with pytest.raises(ValueError, match="whole cores"):
        Tiling(32, 32, Window(8, 0, 32, 32), (16, 16), (16, 16), 0)


@given(grids | overlapping_grids)
def test_kept_pixels_are_those_that_the_block_owns(grid: BlockGrid) -> None:
    for block in grid:
        assert block.read.contains(block.owned)
        back = block.kept.col_off + block.read.col_off, block.kept.row_off + block.read.row_off
        assert Window(*back, block.kept.width, block.kept.height) == block.owned


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
