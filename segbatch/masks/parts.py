"""A part: the file that the write task of a block leaves for the COG of its scene.

It holds the compressed tiles of all levels that are local to the block, row by row and framed as the TIFF wants
them, so that a row of tiles is copied in one piece, with a checksum for each. Where levels are left that blocks
share tiles of, it ends with the block's pixels of the first of them. A part that is missing is an error, but for
blocks known to be nodata.
"""

import hashlib
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segbatch.classes import NODATA
from segbatch.errors import SegbatchError
from segbatch.geometry import Window
from segbatch.masks.pyramid import Pyramid, halved
from segbatch.masks.tiff import compress, encode_tile, frame_tile, framed_sizes
from segbatch.storage import read_range, write_whole

_HEAD = struct.Struct("<8s16sI")
"""Magic number, what the part is of, checksum of the index."""

_MAGIC = b"SEGPART1"


class PartError(SegbatchError):
    """A part is missing or damaged, and its block has to be written again.

    Args:
        message: For the user.
        block: (row, column) of the block.
    """

    def __init__(self, message: str, block: tuple[int, int] = (-1, -1)) -> None:
        super().__init__(message)
        self.block = block


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The index of a part; tiles and pixels are read when asked for.

    Args:
        source: The file, or its content; nothing for a block known to be nodata, which reads as empty tiles.
        pyramid: Of the scene.
        block: (row, column) of the block.
        index: uint32: bytes of each tile, checksum of each row of tiles, bytes and checksum of the rest.
    """

    source: Path | bytes
    pyramid: Pyramid
    block: tuple[int, int]
    index: NDArray[np.uint32]

    def counts(self, level: int) -> NDArray[np.uint32]:
        """(rows, columns) bytes of each tile of a local level."""
        sizes, _ = _index_sizes(self.pyramid, self.block)
        before = sum(rows * cols for rows, cols in sizes[:level])
        rows, cols = sizes[level]
        return self.index[before : before + rows * cols].reshape(rows, cols)

    def run(self, level: int, row: int) -> bytes:
        """The framed tiles of one row of a local level, counted from the block's first.

        Raises:
            PartError: The file is damaged.
        """
        sizes, tiles = _index_sizes(self.pyramid, self.block)
        runs_before = sum(rows for rows, _ in sizes[:level]) + row
        before = sum(rows * cols for rows, cols in sizes[:level]) + row * sizes[level][1]
        start = int(framed_sizes(self.index[:before]).sum())
        size = int(framed_sizes(self.index[before : before + sizes[level][1]]).sum())
        return self._read(start, size, int(self.index[tiles + runs_before]))

    def rest(self) -> NDArray[np.uint8]:
        """(bands, rows, columns) of the block at the first level that is not local.

        Raises:
            PartError: The file is damaged.
        """
        _, tiles = _index_sizes(self.pyramid, self.block)
        window = self.pyramid.block_window(*self.block, self.pyramid.local_levels)
        shape = self.pyramid.bands, window.height, window.width
        size, checksum = (int(value) for value in self.index[-2:])
        content = self._read(int(framed_sizes(self.index[:tiles]).sum()), size, checksum)
        if not content:
            return np.full(shape, NODATA, np.uint8)
        return np.frombuffer(zlib.decompress(content), np.uint8).reshape(shape)

    def _read(self, start: int, size: int, checksum: int) -> bytes:
        if size == 0:
            return b""
        start += _HEAD.size + self.index.nbytes
        if isinstance(self.source, bytes):
            return self.source[start : start + size]
        try:
            content = read_range(self.source, start, size)
        except OSError as error:
            raise _problem(self.source, self.block, f"cannot be read: {error.strerror or error}") from error
        if len(content) != size or zlib.crc32(content) != checksum:
            raise _problem(self.source, self.block, "is damaged: its checksum differs")
        return content


def part_path(folder: Path, row: int, col: int) -> Path:
    """The file of block (row, col)."""
    return folder / str(row) / f"{col}.part"


def encode_part(pyramid: Pyramid, window: Window, pixels: NDArray[np.uint8]) -> bytes:
    """The bytes of a block's part, a function of its pixels alone.

    Args:
        pyramid: Of the scene.
        window: The pixels that the block owns: a whole block, clipped to the scene.
        pixels: (height, width), or (bands, height, width), uint8.

    Raises:
        ValueError: The window is not a block, or the pixels do not fit it.
    """
    block = pyramid.block_index(window)
    shape = pyramid.bands, window.height, window.width
    if pixels.dtype != np.uint8 or pixels.shape not in (shape, shape[1:] if pyramid.bands == 1 else shape):
        raise ValueError(f"uint8 pixels of shape {shape} are needed, got {pixels.dtype} of shape {pixels.shape}")
    pixels = pixels.reshape(shape)
    counts: list[int] = []
    runs: list[bytes] = []
    for level in range(pyramid.local_levels):
        if level > 0:
            pixels = halved(pixels, pyramid.resampling)
        for tiles in _encode_rows(pixels, pyramid.tile):
            counts += map(len, tiles)
            runs.append(b"".join(map(frame_tile, tiles)))
    rest = b""
    if pyramid.local_levels < pyramid.levels:
        pixels = halved(pixels, pyramid.resampling)
        rest = b"" if (pixels == NODATA).all() else compress(pixels)
    index = np.array([*counts, *map(zlib.crc32, runs), len(rest), zlib.crc32(rest)], "<u4").tobytes()
    head = _HEAD.pack(_MAGIC, _identity(pyramid, block), zlib.crc32(index))
    return b"".join([head, index, *runs, rest])


def write_part(folder: Path, pyramid: Pyramid, window: Window, pixels: NDArray[np.uint8]) -> Path:
    """Write a block's part: whole, atomically, and with the same bytes each time. For arguments see `encode_part`.

    Raises:
        ValueError: The window is not a block, or the pixels do not fit it.
        SegbatchError: The file cannot be written.
    """
    file = part_path(folder, *pyramid.block_index(window))
    content = encode_part(pyramid, window, pixels)
    try:
        write_whole(file, content)
    except OSError as error:
        raise SegbatchError(f"{file} cannot be written: {error.strerror or error}.") from error
    return file


def open_part(folder: Path, pyramid: Pyramid, row: int, col: int) -> Part:
    """The part of block (row, col).

    Raises:
        PartError: It is missing, damaged, or of another raster.
    """
    file, block = part_path(folder, row, col), (row, col)
    length = _index_length(pyramid, block)
    try:
        begin = read_range(file, 0, _HEAD.size + 4 * length)
    except FileNotFoundError as error:
        raise _problem(file, block, "is missing") from error
    except OSError as error:
        raise _problem(file, block, f"cannot be read: {error.strerror or error}") from error
    head, content = begin[: _HEAD.size], begin[_HEAD.size :]
    if len(head) != _HEAD.size:
        raise _problem(file, block, "is damaged: it is too short")
    magic, identity, checksum = _HEAD.unpack(head)
    if magic != _MAGIC or identity != _identity(pyramid, block):
        raise _problem(file, block, "belongs to another scene or was written with other settings")
    if zlib.crc32(content) != checksum:
        raise _problem(file, block, "is damaged: its checksum differs")
    return Part(file, pyramid, block, np.frombuffer(content, "<u4"))


def empty_part(pyramid: Pyramid, row: int, col: int) -> Part:
    """The part of a block known to be nodata, for which there is no file."""
    return Part(b"", pyramid, (row, col), np.zeros(_index_length(pyramid, (row, col)), np.uint32))


def make_part(pyramid: Pyramid, window: Window, pixels: NDArray[np.uint8]) -> Part:
    """The part of a block, in memory. For arguments see `encode_part`.

    Raises:
        ValueError: The window is not a block, or the pixels do not fit it.
    """
    block = pyramid.block_index(window)
    if (pixels == NODATA).all():
        return empty_part(pyramid, *block)
    content = encode_part(pyramid, window, pixels)
    index = np.frombuffer(content, "<u4", _index_length(pyramid, block), _HEAD.size)
    return Part(content, pyramid, block, index)


def _encode_rows(pixels: NDArray[np.uint8], tile: tuple[int, int]) -> list[list[bytes]]:
    rows, cols = tile
    return [
        [
            encode_tile(pixels[:, row : row + rows, col : col + cols], tile)
            for col in range(0, pixels.shape[2], cols)
        ]
        for row in range(0, pixels.shape[1], rows)
    ]  # fmt: skip


def _index_sizes(pyramid: Pyramid, block: tuple[int, int]) -> tuple[list[tuple[int, int]], int]:
    """(rows, columns) of tiles of each local level, and the number of all of them."""
    windows = [pyramid.block_tiles(*block, level) for level in range(pyramid.local_levels)]
    return [(window.height, window.width) for window in windows], sum(window.area for window in windows)


def _index_length(pyramid: Pyramid, block: tuple[int, int]) -> int:
    """Numbers in the index of a part."""
    sizes, tiles = _index_sizes(pyramid, block)
    return tiles + sum(rows for rows, _ in sizes) + 2


def _identity(pyramid: Pyramid, block: tuple[int, int]) -> bytes:
    return hashlib.sha256(repr((pyramid, pyramid.tile, block)).encode()).digest()[:16]


def _problem(file: Path, block: tuple[int, int], what: str) -> PartError:
    return PartError(f"{file} {what}. Run the same command again to make this block anew.", block)
