"""TIFF's directories and tiles against GDAL and zlib."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.io import MemoryFile

from segbatch.masks import tiff

DIRECTORIES: list[tiff.Directory] = [
    {
        tiff.IMAGE_WIDTH: tiff.long_field(70),
        tiff.IMAGE_LENGTH: tiff.long_field(60),
        tiff.BITS_PER_SAMPLE: tiff.short_field(8, 8, 8),
        tiff.GDAL_NODATA: tiff.Field(2, 5, b"255.\0"),
    },
    {tiff.NEW_SUBFILE_TYPE: tiff.long_field(1), tiff.IMAGE_WIDTH: tiff.long_field(35)},
]


def test_the_ghost_area_is_gdals(tmp_path: Path) -> None:
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", width=600, height=600, count=1, dtype="uint8"
    ) as dataset:
        dataset.write(np.zeros((1, 600, 600), np.uint8))
    rasterio.shutil.copy(tmp_path / "a.tif", tmp_path / "cog.tif", driver="COG", COMPRESS="DEFLATE")
    by_gdal = (tmp_path / "cog.tif").read_bytes()
    (start,) = struct.unpack_from("<I", by_gdal, 4)
    assert tiff.encode_head(DIRECTORIES, big=False)[:start] == by_gdal[:start]


def test_directories_come_back() -> None:
    assert tiff.read_directory(tiff.encode_head(DIRECTORIES, big=False)) == DIRECTORIES[0]


@pytest.mark.parametrize("big", [False, True])
def test_directories_and_their_values_follow_each_other_at_even_places(big: bool) -> None:
    content = tiff.encode_head(DIRECTORIES, big=big)
    start = struct.unpack_from("<Q" if big else "<I", content, 8 if big else 4)[0]
    entry = 20 if big else 12
    found = []
    while start:
        assert start % 2 == 0
        (number,) = struct.unpack_from("<Q" if big else "<H", content, start)
        found.append(number)
        start += (8 if big else 2) + number * entry
        (start,) = struct.unpack_from("<Q" if big else "<I", content, start)
    assert found == [4, 2]
    # Three numbers of 16 bits lie in the entry of a BigTIFF and behind the directory of a classic one.
    assert content.count(struct.pack("<3H", 8, 8, 8)) == 1


def test_what_gdal_writes_is_read() -> None:
    with MemoryFile() as file:
        with file.open(driver="GTiff", width=3, height=2, count=1, dtype="uint8", nodata=7, endianness="LITTLE"):
            pass
        directory = tiff.read_directory(bytes(file.getbuffer()))
    assert directory[tiff.GDAL_NODATA] == tiff.Field(2, 2, b"7\0")
    assert directory[tiff.IMAGE_WIDTH] == tiff.short_field(3)


def test_what_is_no_tiff_is_refused() -> None:
    with pytest.raises(ValueError, match="does not begin with"):
        tiff.read_directory(b"MM\0*\0\0\0\x08")


def test_a_tile_is_padded_with_nodata() -> None:
    pixels = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    expected = np.full((16, 32), 255, np.uint8)
    expected[:2, :3] = pixels[0]
    np.testing.assert_array_equal(
        np.frombuffer(zlib.decompress(tiff.encode_tile(pixels, (16, 32))), np.uint8).reshape(16, 32), expected
    )


def test_bands_are_interleaved_and_differences_to_the_left() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 16, 16)).astype(np.uint8)
    differences = np.frombuffer(zlib.decompress(tiff.encode_tile(pixels, (16, 16))), np.uint8).reshape(16, 16, 3)
    restored = np.cumsum(differences, axis=1, dtype=np.uint8)
    np.testing.assert_array_equal(restored.transpose(2, 0, 1), pixels)
    assert (tiff.predictor(1), tiff.predictor(3)) == (1, 2)


def test_a_tile_of_nodata_takes_no_bytes() -> None:
    assert tiff.encode_tile(np.full((2, 16, 16), 255, np.uint8), (16, 16)) == b""
    assert tiff.frame_tile(b"") == b""
    assert tiff.frame_tile(b"abcdef") == b"\x06\0\0\0abcdefcdef"


def test_offsets_skip_tiles_of_nodata() -> None:
    counts = np.array([[10, 0, 20], [0, 30, 0]], np.uint32)
    np.testing.assert_array_equal(tiff.framed_sizes(counts), [[18, 0, 28], [0, 38, 0]])
    np.testing.assert_array_equal(tiff.tile_offsets(counts, 100), [[104, 0, 122], [0, 150, 0]])


def test_offsets_beyond_four_gigabytes() -> None:
    counts = np.full(3, 0xF0000000, np.uint32)
    offsets = tiff.tile_offsets(counts, 0)
    fields = tiff.tile_fields(offsets, counts, big=True)
    assert struct.unpack("<3Q", fields[tiff.TILE_OFFSETS].data) == (4, 0xF0000000 + 12, 2 * 0xF0000000 + 20)
    assert struct.unpack("<3I", fields[tiff.TILE_BYTE_COUNTS].data) == (0xF0000000,) * 3
