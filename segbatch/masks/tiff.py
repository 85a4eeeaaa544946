"""As much of the TIFF format as laying out a Cloud Optimized GeoTIFF takes: fields, directories, tiles. Pure.

The layout is the one of GDAL's COG driver: all directories before the data, the full resolution's first, and tiles
with their size before and their last bytes after them. A ghost area says so, and lets GDAL read a tile at once.
"""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segbatch.classes import NODATA

CLASSIC_LIMIT = 0xFFFFFFFF
"""Most bytes of a classic TIFF, whose offsets are 32 bits wide; a larger file is a BigTIFF."""

LEADER_BYTES = TRAILER_BYTES = 4

# Numbers of fields. Those of the raster's size and place in the file:
NEW_SUBFILE_TYPE, IMAGE_WIDTH, IMAGE_LENGTH, COMPRESSION = 254, 256, 257, 259
STRIP_OFFSETS, ROWS_PER_STRIP, STRIP_BYTE_COUNTS, PREDICTOR = 273, 278, 279, 317
TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_BYTE_COUNTS = 322, 323, 324, 325
# Those of the pixels' meaning, which overviews share with the full resolution:
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLES_PER_PIXEL, PLANAR_CONFIGURATION = 258, 262, 277, 284
COLOR_MAP, EXTRA_SAMPLES, SAMPLE_FORMAT, GDAL_NODATA = 320, 338, 339, 42113

DEFLATE = 8

_SHORT, _LONG, _LONG8 = 3, 4, 16
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8, 17: 8}

_STRUCTURE = (
    b"LAYOUT=IFDS_BEFORE_DATA\n"
    b"BLOCK_ORDER=ROW_MAJOR\n"
    b"BLOCK_LEADER=SIZE_AS_UINT4\n"
    b"BLOCK_TRAILER=LAST_4_BYTES_REPEATED\n"
    b"KNOWN_INCOMPATIBLE_EDITION=NO\n "  # GDAL overwrites these bytes with "YES\n" where it edits a file in place
)
_GHOST = b"GDAL_STRUCTURAL_METADATA_SIZE=%06d bytes\n" % len(_STRUCTURE) + _STRUCTURE


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a directory.

    Args:
        type: TIFF's number for the type of its values.
        count: Number of values.
        data: The values, little endian.
    """

    type: int
    count: int
    data: bytes


Directory = dict[int, Field]
"""Fields by their number."""


def long_field(*values: int) -> Field:
    """Unsigned integers of 32 bits."""
    return Field(_LONG, len(values), struct.pack(f"<{len(values)}I", *values))


def short_field(*values: int) -> Field:
    """Unsigned integers of 16 bits."""
    return Field(_SHORT, len(values), struct.pack(f"<{len(values)}H", *values))


def tile_fields(offsets: NDArray[np.int64], counts: NDArray[np.uint32], *, big: bool) -> Directory:
    """Where the tiles of a level are, row by row; 0 and 0 is a tile of nodata."""
    offset_type, dtype = (_LONG8, "<u8") if big else (_LONG, "<u4")
    return {
        TILE_OFFSETS: Field(offset_type, offsets.size, offsets.astype(dtype).tobytes()),
        TILE_BYTE_COUNTS: Field(_LONG, counts.size, counts.astype("<u4").tobytes()),
    }


def read_directory(content: bytes) -> Directory:
    """The first directory of a classic little endian TIFF.

    Raises:
        ValueError: It is none.
    """
    if content[:4] != b"II*\0":
        raise ValueError(f"a little endian TIFF does not begin with {content[:4]!r}")
    (start,) = struct.unpack_from("<I", content, 4)
    (number,) = struct.unpack_from("<H", content, start)
    fields = {}
    for index in range(number):
        entry = start + 2 + 12 * index
        tag, kind, count, position = struct.unpack_from("<HHII", content, entry)
        size = _TYPE_BYTES[kind] * count
        if size <= 4:
            position = entry + 8
        fields[tag] = Field(kind, count, content[position : position + size])
    return fields


def encode_head(directories: Sequence[Directory], *, big: bool) -> bytes:
    """All that comes before the data: header, ghost area and the directories, each followed by its values.

    The length depends on types and counts alone, so it is known before the tiles' offsets are.

    Args:
        directories: In the order of the levels.
        big: Whether the file is a BigTIFF.
    """
    # TIFF has directories begin at even places.
    start = len(_file_header(0, big=big) + _GHOST)
    parts = [_file_header(start + start % 2, big=big), _GHOST, bytes(start % 2)]
    start += start % 2
    for index, directory in enumerate(directories):
        content = _encode_directory(directory, start, is_last=index == len(directories) - 1, big=big)
        parts.append(content)
        start += len(content)
    return b"".join(parts)


def encode_tile(pixels: NDArray[np.uint8], tile: tuple[int, int]) -> bytes:
    """A compressed tile, padded with nodata; empty where all is nodata.

    Run lengths (Z_RLE) suit class masks: on land cover labels the files are 7 % smaller than with deflate's full
    search, in a fifth to a third of the time. The bands of probabilities get runs by the predictor, the difference
    to the pixel on the left.

    Args:
        pixels: (bands, rows, columns), no larger than a tile.
        tile: (rows, columns) of a tile.
    """
    if (pixels == NODATA).all():
        return b""
    bands, rows, cols = pixels.shape
    samples = np.full((*tile, bands), NODATA, np.uint8)
    samples[:rows, :cols] = pixels.transpose(1, 2, 0)
    if predictor(bands) == 2:
        samples[:, 1:] -= samples[:, :-1].copy()
    return compress(samples)


def predictor(bands: int) -> int:
    """TIFF's number of what `encode_tile` does to the pixels before it compresses them."""
    return 1 if bands == 1 else 2


def compress(pixels: NDArray[np.uint8]) -> bytes:
    """As a zlib stream: of the same bytes each time, and without Python's lock."""
    stream = zlib.compressobj(strategy=zlib.Z_RLE)
    return stream.compress(np.ascontiguousarray(pixels).data) + stream.flush()


def frame_tile(data: bytes) -> bytes:
    """A tile as it stands in the file: its size before it and its last bytes again after it; nothing if empty."""
    return struct.pack("<I", len(data)) + data + data[-TRAILER_BYTES:] if data else b""


def framed_sizes(counts: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Bytes that tiles of these sizes take in the file."""
    return counts.astype(np.int64) + (counts > 0) * (LEADER_BYTES + TRAILER_BYTES)


def tile_offsets(counts: NDArray[np.uint32], start: int) -> NDArray[np.int64]:
    """Places of tiles that follow each other, with the first one's leader at ``start``; 0 for empty ones."""
    sizes = framed_sizes(counts).ravel()
    offsets = start + LEADER_BYTES + np.cumsum(sizes) - sizes
    return np.where(sizes > 0, offsets, 0).reshape(counts.shape)


def _file_header(first_directory: int, *, big: bool) -> bytes:
    if big:
        return struct.pack("<2sHHHQ", b"II", 43, 8, 0, first_directory)
    return struct.pack("<2sHI", b"II", 42, first_directory)


def _encode_directory(directory: Directory, start: int, *, is_last: bool, big: bool) -> bytes:
    number_format, entry_format, offset_format = ("<Q", "<HHQ", "<Q") if big else ("<H", "<HHI", "<I")
    inline = struct.calcsize(offset_format)
    entries_size = len(directory) * (struct.calcsize(entry_format) + inline)
    values_start = start + struct.calcsize(number_format) + entries_size + inline
    entries, values = [struct.pack(number_format, len(directory))], bytearray()
    for tag, field in sorted(directory.items()):
        entries.append(struct.pack(entry_format, tag, field.type, field.count))
        if len(field.data) <= inline:
            entries.append(field.data.ljust(inline, b"\0"))
        else:
            entries.append(struct.pack(offset_format, values_start + len(values)))
            values += field.data + bytes(len(field.data) % 2)
    end = values_start + len(values) + len(values) % 2
    entries.append(struct.pack(offset_format, 0 if is_last else end))
    return b"".join(entries) + values
