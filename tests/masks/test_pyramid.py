"""The pyramid against brute force, GDAL's resampling and the rule that blocks partition every local level."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.enums import Resampling as GdalResampling
from rasterio.io import MemoryFile

from segbatch.geometry import Window
from segbatch.masks.pyramid import Pyramid, fits_tiles, halved


def brute_force(cell: tuple[int, ...], resampling: str) -> int:
    """What the (up to four) pixels of a cell become, row by row."""
    valid = [value for value in cell if value != 255]
    if resampling == "nearest":
        return cell[0]
    if not valid:
        return 255
    if resampling == "mode":
        return Counter(valid).most_common(1)[0][0]  # in the order of meeting, where counts are equal
    return int(np.floor(sum(valid) / len(valid) + 0.5))


@pytest.mark.parametrize("resampling", ["mode", "nearest", "average"])
def test_every_cell_of_few_values(resampling: str) -> None:
    cells = np.array(list(itertools.product([0, 1, 2, 253, 254, 255], repeat=4)), np.uint8)
    pixels = cells.reshape(-1, 2, 2).transpose(1, 0, 2).reshape(2, -1)
    expected = [brute_force(tuple(map(int, cell)), resampling) for cell in cells]
    np.testing.assert_array_equal(halved(pixels, resampling), [expected])  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_odd_borders_use_the_pixels_there_are(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)))
    resampling = data.draw(st.sampled_from(["mode", "nearest", "average"]))
    values = np.array([0, 3, 7, 200, 254, 255], np.uint8)
    pixels = np.random.default_rng(data.draw(st.integers(0, 99))).choice(values, shape)
    small = halved(pixels, resampling)
    assert small.shape == (shape[0], -(-shape[1] // 2), -(-shape[2] // 2))
    for band, row, col in np.ndindex(small.shape):
        cell = pixels[band, 2 * row : 2 * row + 2, 2 * col : 2 * col + 2].ravel().tolist()
        assert small[band, row, col] == brute_force(tuple(cell), resampling)


def has_tie(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    rows, cols = (side // 2 for side in pixels.shape)
    cells = pixels.reshape(rows, 2, cols, 2).swapaxes(1, 2).reshape(rows, cols, 4)
    counts = np.sort([(cells == value).sum(axis=-1) for value in range(4)], axis=0)
    return (counts[-1] == counts[-2]) & (counts[-1] > 0)


@pytest.mark.parametrize("resampling", ["mode", "average"])
def test_gdal_resamples_alike(resampling: str) -> None:
    values = np.array([0, 1, 2, 3, 255], np.uint8)
    pixels = np.random.default_rng(0).choice(values, (256, 320), p=[0.4, 0.2, 0.1, 0.1, 0.2])
    with MemoryFile() as file, file.open(
        driver="GTiff", width=320, height=256, count=1, dtype="uint8", nodata=255, tiled=True
    ) as dataset:  # fmt: skip
        dataset.write(pixels, 1)
        dataset.build_overviews([2], GdalResampling[resampling])
        by_gdal = dataset.read(1, out_shape=(128, 160))
    ours = halved(pixels, resampling)  # type: ignore[arg-type]
    decided = ~has_tie(pixels) if resampling == "mode" else np.ones(ours.shape, bool)
    assert decided.mean() > 0.5
    np.testing.assert_array_equal(ours[decided], by_gdal[decided])


@pytest.mark.parametrize(
    ("size", "block", "tile", "levels", "local"),
    [
        ((5000, 5000), (2048, 2048), (512, 512), 5, 3),
        ((5000, 5000), (5000, 5000), (512, 512), 5, 5),
        ((5000, 5000), (5120, 2048), (512, 512), 5, 3),
        ((5000, 5000), (1536, 1536), (256, 256), 6, 2),
        ((5000, 5000), (512, 512), (256, 256), 6, 2),
        ((4928, 6272), (2688, 2688), (448, 448), 5, 2),
        ((100, 200), (64, 96), (32, 48), 4, 2),
        ((100, 40), (16, 16), (16, 16), 4, 1),
        ((512, 512), (512, 512), (512, 512), 1, 1),
        ((513, 1), (513, 1), (512, 512), 2, 2),
        ((1, 1), (1024, 1024), (512, 512), 1, 1),
        ((100_000, 100_000), (2048, 4096), (512, 512), 9, 3),
    ],
)
def test_tiles_and_levels(
    size: tuple[int, int], block: tuple[int, int], tile: tuple[int, int], levels: int, local: int
) -> None:
    pyramid = Pyramid(size[1], size[0], block)
    assert (pyramid.tile, pyramid.levels, pyramid.local_levels) == (tile, levels, local)


@pytest.mark.parametrize(("height", "width"), [(2000, 1024), (700, 512), (4000, 1024), (3000, 256), (9000, 512)])
def test_no_level_looks_like_strips(height: int, width: int) -> None:
    # rio-cogeo calls a level untiled that is one tile wide and larger than 512 pixels.
    pyramid = Pyramid(width, height, (height, width))
    for rows, cols in map(pyramid.size, range(pyramid.levels)):
        assert cols != pyramid.tile[1] or max(rows, cols) <= 512


def test_levels_are_halves_rounded_up_until_one_tile() -> None:
    pyramid = Pyramid(1107, 1301, (2048, 2048))
    assert [pyramid.size(level) for level in range(pyramid.levels)] == [(1301, 1107), (651, 554), (326, 277)]
    assert [pyramid.tiles(level) for level in range(pyramid.levels)] == [(3, 3), (2, 2), (1, 1)]


sizes = st.integers(1, 3000)
sides = st.integers(1, 40).map(lambda count: 16 * count) | st.sampled_from([1024, 2048, 4096])


@settings(max_examples=150, deadline=None)
@given(width=sizes, height=sizes, block=st.tuples(sides, sides))
def test_blocks_partition_every_level_they_make(width: int, height: int, block: tuple[int, int]) -> None:
    pyramid = Pyramid(width, height, block)
    assert pyramid.tile[0] % 16 == pyramid.tile[1] % 16 == 0
    assert max(pyramid.tile) <= 512
    assert pyramid.local_levels >= 1
    for level in range(min(pyramid.local_levels + 1, pyramid.levels)):
        pixels = np.zeros(pyramid.size(level), np.uint8)
        tiles = np.zeros(pyramid.tiles(level), np.uint8)
        for row, col in np.ndindex(pyramid.grid):
            pixels[pyramid.block_window(row, col, level).slices] += 1
            if level < pyramid.local_levels:
                tiles[pyramid.block_tiles(row, col, level).slices] += 1
                assert pyramid.block_window(row, col, level).row_off % pyramid.tile[0] == 0
        assert (pixels == 1).all()
        assert level == pyramid.local_levels or (tiles == 1).all()


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_blocks_reduced_alone_are_the_scene_reduced(data: st.DataObject) -> None:
    small = st.integers(1, 150)
    width, height, rows, cols = (data.draw(small) for _ in range(4))
    pyramid = Pyramid(width, height, (16 * -(-rows // 8), 16 * -(-cols // 8)), resampling="mode")
    whole = np.random.default_rng(0).choice(np.array([0, 1, 2, 255], np.uint8), (height, width))
    pieces = {
        (row, col): whole[pyramid.block_window(row, col).slices] for row, col in np.ndindex(pyramid.grid)
    }  # fmt: skip
    for level in range(1, min(pyramid.local_levels + 1, pyramid.levels)):
        whole = halved(whole, "mode")
        for block in pieces:
            pieces[block] = halved(pieces[block], "mode")
            np.testing.assert_array_equal(pieces[block], whole[pyramid.block_window(*block, level).slices])


@pytest.mark.parametrize(
    ("size", "side", "fits"), [(100, 100, True), (99, 100, True), (101, 100, False), (101, 96, True)]
)
def test_which_block_sides_fit(size: int, side: int, fits: bool) -> None:
    assert fits_tiles(size, side) is fits
    for width, height, block in ((size, 5, (5, side)), (5, size, (side, 5))):
        if fits:
            Pyramid(width, height, block)
        else:
            with pytest.raises(ValueError, match=f"cannot be cut into tiles: {side} is not a multiple of 16"):
                Pyramid(width, height, block)


@pytest.mark.parametrize("change", [{"width": 0}, {"bands": 0}, {"block": (0, 16)}, {"resampling": "cubic"}])
def test_impossible_pyramids_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be positive|'cubic' is none of mode, nearest, average"):
        Pyramid(**({"width": 5, "height": 5, "block": (16, 16)} | change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "window", [Window(1, 0, 32, 32), Window(0, 0, 31, 32), Window(-32, 0, 32, 32), Window(96, 0, 4, 32)]
)
def test_a_window_that_is_no_block_is_refused(window: Window) -> None:
    pyramid = Pyramid(70, 100, (32, 32))
    assert pyramid.block_index(Window(64, 96, 6, 4)) == (3, 2)
    with pytest.raises(ValueError, match="is not a block of 32 x 32 pixels, clipped to a scene of 100 x 70"):
        pyramid.block_index(window)
