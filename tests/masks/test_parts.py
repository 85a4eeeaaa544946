"""Parts against zlib, numpy and damaged files."""

import errno
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from segbatch.errors import SegbatchError
from segbatch.geometry import Window
from segbatch.masks.parts import Part, PartError, empty_part, encode_part, open_part, part_path, write_part
from segbatch.masks.pyramid import Pyramid, halved

PYRAMID = Pyramid(300, 200, (128, 128))
BLOCK = Window(128, 0, 128, 128)


def random_pixels(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).choice(np.array([0, 1, 2, 255], np.uint8), shape)


def decode_run(run: bytes, tile: tuple[int, int]) -> list[NDArray[np.uint8]]:
    """The tiles of a run, with their sizes and last bytes checked."""
    tiles = []
    while run:
        (size,) = struct.unpack_from("<I", run)
        data, trailer, run = run[4 : 4 + size], run[4 + size : 8 + size], run[8 + size :]
        assert trailer == data[-4:]
        tiles.append(np.frombuffer(zlib.decompress(data), np.uint8).reshape(tile))
    return tiles


def read_all(part: Part) -> None:
    for level in range(part.pyramid.local_levels):
        for row in range(part.counts(level).shape[0]):
            part.run(level, row)
    if part.pyramid.local_levels < part.pyramid.levels:
        part.rest()


def test_a_part_holds_the_blocks_tiles_of_all_local_levels(tmp_path: Path) -> None:
    pixels = random_pixels(128, 128)
    write_part(tmp_path, PYRAMID, BLOCK, pixels)
    part = open_part(tmp_path, PYRAMID, 0, 1)
    rows, cols = PYRAMID.tile
    assert (rows, cols, PYRAMID.local_levels, PYRAMID.levels) == (64, 64, 2, 4)
    for level in range(2):
        counts = part.counts(level)
        assert counts.shape == (2 >> level, 2 >> level)
        for row in range(counts.shape[0]):
            run = part.run(level, row)
            assert len(run) == (counts[row].astype(int) + 8).sum()
            strip = np.concatenate(decode_run(run, PYRAMID.tile), axis=1)
            np.testing.assert_array_equal(strip, pixels[row * rows : (row + 1) * rows])
        pixels = halved(pixels, "mode")
    np.testing.assert_array_equal(part.rest(), pixels[None])


def test_a_block_at_the_border_is_padded(tmp_path: Path) -> None:
    pixels = random_pixels(72, 44)
    write_part(tmp_path, PYRAMID, Window(256, 128, 44, 72), pixels)
    part = open_part(tmp_path, PYRAMID, 1, 2)
    assert part.counts(0).shape == (2, 1)
    (tile,) = decode_run(part.run(0, 1), PYRAMID.tile)
    np.testing.assert_array_equal(tile[:8, :44], pixels[64:])
    assert (tile[8:] == 255).all()
    assert (tile[:, 44:] == 255).all()
    assert part.rest().shape == (1, 18, 11)


def test_tiles_of_nodata_take_no_bytes(tmp_path: Path) -> None:
    pixels = random_pixels(128, 128)
    pixels[:64, :64] = 255
    write_part(tmp_path, PYRAMID, BLOCK, pixels)
    part = open_part(tmp_path, PYRAMID, 0, 1)
    assert (part.counts(0) == 0).tolist() == [[True, False], [False, False]]
    assert len(decode_run(part.run(0, 0), PYRAMID.tile)) == 1


def test_a_block_of_nodata_is_a_few_bytes(tmp_path: Path) -> None:
    file = write_part(tmp_path, PYRAMID, BLOCK, np.full((128, 128), 255, np.uint8))
    assert file.stat().st_size < 100
    for part in (open_part(tmp_path, PYRAMID, 0, 1), empty_part(PYRAMID, 0, 1)):
        assert not part.counts(0).any()
        assert not part.counts(1).any()
        assert part.run(0, 1) == b""
        assert (part.rest() == 255).all()
        read_all(part)


def test_the_same_pixels_give_the_same_bytes(tmp_path: Path) -> None:
    pixels = random_pixels(128, 128)
    wide = np.zeros((128, 300), np.uint8)
    wide[:, 128:256] = pixels
    once = encode_part(PYRAMID, BLOCK, pixels)
    assert encode_part(PYRAMID, BLOCK, wide[:, 128:256]) == once
    assert encode_part(PYRAMID, BLOCK, pixels[None]) == once
    write_part(tmp_path, PYRAMID, BLOCK, random_pixels(128, 128, seed=1))
    file = write_part(tmp_path, PYRAMID, BLOCK, pixels)
    assert file == part_path(tmp_path, 0, 1)
    assert file.read_bytes() == once
    assert [entry.name for entry in file.parent.iterdir()] == ["1.part"]


def test_pixels_are_left_as_they_were() -> None:
    pixels = random_pixels(3, 128, 128)
    before = pixels.copy()
    encode_part(Pyramid(300, 200, (128, 128), bands=3, resampling="average"), BLOCK, pixels)
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize("position", [0, 9, 25, 30, 60, 200, -200, -1])
def test_every_changed_byte_is_noticed(tmp_path: Path, position: int) -> None:
    file = write_part(tmp_path, PYRAMID, BLOCK, random_pixels(128, 128))
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)
    with pytest.raises(PartError, match=r"0/1\.part (is damaged|belongs to another).* Run the same command") as caught:
        read_all(open_part(tmp_path, PYRAMID, 0, 1))
    assert caught.value.block == (0, 1)


@pytest.mark.parametrize("length", [0, 5, 28, 40, 500, -1])
def test_a_truncated_part_is_noticed(tmp_path: Path, length: int) -> None:
    file = write_part(tmp_path, PYRAMID, BLOCK, random_pixels(128, 128))
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(PartError, match=r"0/1\.part is damaged"):
        read_all(open_part(tmp_path, PYRAMID, 0, 1))


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    with pytest.raises(PartError, match=r"1/2\.part is missing\. Run the same command again") as caught:
        open_part(tmp_path, PYRAMID, 1, 2)
    assert caught.value.block == (1, 2)


def test_a_part_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    part_path(tmp_path, 0, 0).mkdir(parents=True)
    with pytest.raises(PartError, match=r"0/0\.part cannot be read: Is a directory"):
        open_part(tmp_path, PYRAMID, 0, 0)


def test_the_error_keeps_its_block_between_processes() -> None:
    error = pickle.loads(pickle.dumps(PartError("text", (3, 4))))
    assert (str(error), error.block) == ("text", (3, 4))


@pytest.mark.parametrize("change", [{"resampling": "nearest"}, {"width": 299}, {"height": 201}, {"block": (128, 144)}])
def test_a_part_of_another_raster_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    write_part(tmp_path, PYRAMID, Window(0, 0, 128, 128), random_pixels(128, 128))
    other = Pyramid(**({"width": 300, "height": 200, "block": (128, 128)} | change))
    with pytest.raises(PartError, match="belongs to another scene or was written with other settings"):
        open_part(tmp_path, other, 0, 0)


def test_a_part_of_another_block_is_refused(tmp_path: Path) -> None:
    file = write_part(tmp_path, PYRAMID, Window(0, 0, 128, 128), random_pixels(128, 128))
    file.rename(part_path(tmp_path, 0, 1))
    with pytest.raises(PartError, match="belongs to another"):
        open_part(tmp_path, PYRAMID, 0, 1)


@pytest.mark.parametrize(
    "pixels", [np.zeros((128, 127), np.uint8), np.zeros((128, 128), np.int64), np.zeros((2, 128, 128), np.uint8)]
)
def test_pixels_that_do_not_fit_are_refused(pixels: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match="uint8 pixels of shape"):
        encode_part(PYRAMID, BLOCK, pixels)
    with pytest.raises(ValueError, match="is not a block"):
        encode_part(PYRAMID, Window(1, 0, 128, 128), np.zeros((128, 128), np.uint8))


def test_a_full_disk_names_the_part_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("segbatch.storage.staging.os.fsync", full)
    with pytest.raises(SegbatchError, match=r"0/1\.part cannot be written: No space left on device"):
        write_part(tmp_path, PYRAMID, BLOCK, random_pixels(128, 128))
    assert list((tmp_path / "0").iterdir()) == []
