"""The pyramid of a scene's raster: its tiles, its overview levels, and what a block makes of them on its own. Pure.

A level is half the one before, rounded up, down to the level that fits in one tile. A pixel of level k stands for
2**k x 2**k pixels of the scene, counted from its upper left, so a block whose sides are multiples of a tile of
level k owns whole tiles of that level: such a level is *local*, and blocks encode it without knowing each other.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import chain, product
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from segbatch.classes import NODATA
from segbatch.geometry import Window

Resampling = Literal["mode", "nearest", "average"]

_LARGEST_TILE = 512
_MULTIPLE = 16
"""TIFF wants sides of tiles to be multiples of this."""


@dataclass(frozen=True)
class Pyramid:
    """A raster of uint8, cut into blocks, its tiles and its overview levels. Level 0 is the raster itself.

    Args:
        width: Columns of the scene.
        height: Rows of the scene.
        block: (rows, columns) of a whole block.
        bands: Number of bands.
        resampling: How four pixels become one; see `halved`.

    Raises:
        ValueError: A block's sides cannot be cut into tiles; see `fits_tiles`.
    """

    width: int
    height: int
    block: tuple[int, int]
    bands: int = 1
    resampling: Resampling = "mode"

    def __post_init__(self) -> None:
        if min(self.width, self.height, *self.block, self.bands) < 1:
            raise ValueError(f"sizes must be positive: {self}")
        if self.resampling not in get_args(Resampling):
            raise ValueError(f"resampling {self.resampling!r} is none of {', '.join(get_args(Resampling))}")
        for size, side in ((self.height, self.block[0]), (self.width, self.block[1])):
            if not fits_tiles(size, side):
                raise ValueError(
                    f"blocks of {self.block[0]} x {self.block[1]} pixels in a scene of {self.height} x {self.width} "
                    f"cannot be cut into tiles: {side} is not a multiple of {_MULTIPLE}"
                )

    @cached_property
    def tile(self) -> tuple[int, int]:
        """(rows, columns) of a tile, the same at every level."""
        return _tile_shape((self.height, self.width), self.block)

    @cached_property
    def levels(self) -> int:
        """Number of levels, the full resolution included."""
        return 1 + _overviews((self.height, self.width), self.tile)

    @cached_property
    def local_levels(self) -> int:
        """Number of levels, the full resolution included, whose tiles lie within one block each."""
        return next((level for level in range(self.levels) if not self._is_local(level)), self.levels)

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of blocks."""
        return -(-self.height // self.block[0]), -(-self.width // self.block[1])

    def size(self, level: int) -> tuple[int, int]:
        """(rows, columns) of pixels of a level."""
        return _halved_side(self.height, level), _halved_side(self.width, level)

    def tiles(self, level: int) -> tuple[int, int]:
        """(rows, columns) of tiles of a level."""
        (rows, cols), (tile_rows, tile_cols) = self.size(level), self.tile
        return -(-rows // tile_rows), -(-cols // tile_cols)

    def block_window(self, row: int, col: int, level: int = 0) -> Window:
        """The pixels of a level that block (row, col) makes, clipped to the scene.

        Of the levels that are not local only the first may be asked for.
        """
        rows, cols = self.block
        row_off, col_off = row * rows >> level, col * cols >> level
        row_end = _halved_side(min((row + 1) * rows, self.height), level)
        col_end = _halved_side(min((col + 1) * cols, self.width), level)
        return Window(col_off, row_off, col_end - col_off, row_end - row_off)

    def block_tiles(self, row: int, col: int, level: int) -> Window:
        """The tiles of a local level that block (row, col) makes, counted in tiles."""
        pixels, (rows, cols) = self.block_window(row, col, level), self.tile
        row_off, col_off = pixels.row_off // rows, pixels.col_off // cols
        return Window(col_off, row_off, -(-pixels.col_end // cols) - col_off, -(-pixels.row_end // rows) - row_off)

    def block_index(self, window: Window) -> tuple[int, int]:
        """(row, column) of the block that owns exactly these pixels.

        Raises:
            ValueError: None does.
        """
        row, col = window.row_off // self.block[0], window.col_off // self.block[1]
        inside = 0 <= row < self.grid[0] and 0 <= col < self.grid[1]
        if not inside or self.block_window(row, col) != window:
            raise ValueError(
                f"{window} is not a block of {self.block[0]} x {self.block[1]} pixels, clipped to a scene of "
                f"{self.height} x {self.width}"
            )
        return row, col

    def _is_local(self, level: int) -> bool:
        sides = zip((self.height, self.width), self.block, self.tile, strict=True)
        return all(_is_local_along(size, side, tile, level) for size, side, tile in sides)


def fits_tiles(size: int, block_side: int) -> bool:
    """Whether blocks of this side can be cut into TIFF tiles along an axis of ``size`` pixels.

    Multiples of 2048 are best: tiles of 512 and two overview levels that need nothing but the block.
    """
    return block_side >= size or block_side % _MULTIPLE == 0


def halved(pixels: NDArray[np.uint8], resampling: Resampling) -> NDArray[np.uint8]:
    """Half the rows and columns, rounded up: each 2 x 2 pixels become one; at an odd border, those that are there.

    - ``mode``: the most frequent valid value; of equally frequent ones that met first, row by row. So a tie favours
      a place, which shifts edges by less than a pixel, and never a class, which would grow it from level to level.
    - ``nearest``: the upper left pixel.
    - ``average``: the mean of the valid values, halves rounded up.

    Valid is what is not `NODATA`; where nothing is valid, mode and average are `NODATA`.

    Args:
        pixels: (..., rows, columns).
        resampling: One of the above.
    """
    if resampling == "nearest":
        return np.ascontiguousarray(pixels[..., ::2, ::2])
    odd = [(0, 0)] * (pixels.ndim - 2) + [(0, side % 2) for side in pixels.shape[-2:]]
    if any(after for _, after in odd):
        pixels = np.pad(pixels, odd, constant_values=NODATA)
    # Whole arrays of one corner each: numpy's comparisons are many times slower on every other byte.
    corners = [np.ascontiguousarray(pixels[..., row::2, col::2]) for row in (0, 1) for col in (0, 1)]
    return _mode(*corners) if resampling == "mode" else _average(*corners)


def _mode(
    first: NDArray[np.uint8], second: NDArray[np.uint8], third: NDArray[np.uint8], fourth: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    mode = fourth.copy()
    for corner in (third, second, first):
        np.copyto(mode, corner, where=corner != NODATA)
    # A value met twice is as frequent as any that comes after it, so the earliest of those wins and is set last.
    np.copyto(mode, third, where=(third == fourth) & (third != NODATA))
    np.copyto(mode, second, where=((second == third) | (second == fourth)) & (second != NODATA))
    np.copyto(mode, first, where=((first == second) | (first == third) | (first == fourth)) & (first != NODATA))
    return mode


def _average(*corners: NDArray[np.uint8]) -> NDArray[np.uint8]:
    total = np.zeros(corners[0].shape, np.uint16)
    gaps = np.zeros(corners[0].shape, np.uint8)
    for corner in corners:
        total += corner
        gaps += corner == NODATA
    mean = ((total + np.uint16(2)) >> np.uint16(2)).astype(np.uint8)
    if not gaps.any():
        return mean
    for gap in (1, 2, 3):
        count = 4 - gap
        partial = (total - np.uint16(gap * NODATA) + np.uint16(count // 2)) // np.uint16(count)
        np.copyto(mean, partial, where=gaps == gap, casting="unsafe")
    # Four gaps have the mean `NODATA` as it is.
    return mean


def _tile_shape(size: tuple[int, int], block: tuple[int, int]) -> tuple[int, int]:
    """The best (rows, columns) of tiles: 512 square, 256 square, or as large as the blocks allow."""
    sides = range(_LARGEST_TILE, 0, -_MULTIPLE)
    by_area = sorted(product(sides, sides), key=lambda shape: shape[0] * shape[1], reverse=True)
    possible = [
        shape
        for shape in chain([(512, 512), (256, 256)], by_area)
        if all(map(_is_local_along, size, block, shape, (0, 0)))
    ]

    def has_local_overview(shape: tuple[int, int]) -> bool:
        return _overviews(size, shape) == 0 or all(map(_is_local_along, size, block, shape, (1, 1)))

    wishes = (
        lambda shape: has_local_overview(shape) and not _looks_untiled(size, shape),
        has_local_overview,
        lambda _: True,
    )
    return next(shape for wish in wishes for shape in possible if wish(shape))


def _is_local_along(size: int, block_side: int, tile_side: int, level: int) -> bool:
    return block_side >= size or block_side % (tile_side << level) == 0


def _looks_untiled(size: tuple[int, int], tile: tuple[int, int]) -> bool:
    """Whether a level is one tile wide and longer than 512 pixels, which rio-cogeo takes for a file of strips."""
    levels = range(1 + _overviews(size, tile))
    return any(
        _halved_side(size[1], level) == tile[1] and max(_halved_side(side, level) for side in size) > _LARGEST_TILE
        for level in levels
    )


def _overviews(size: tuple[int, int], tile: tuple[int, int]) -> int:
    level = 0
    while any(_halved_side(side, level) > limit for side, limit in zip(size, tile, strict=True)):
        level += 1
    return level


def _halved_side(side: int, level: int) -> int:
    return -(-side >> level)
