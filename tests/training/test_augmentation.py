"""Augmentation with an image that says of each pixel where it came from."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from segbatch.training.augmentation import Augmentation, color, geometry, source_side
from segbatch.training.tiles import Tile


def coded_tile(side: int, dtype: str = "uint16") -> Tile:
    """Pixels hold their row and column; the label and the valid mask follow from them by a rule."""
    rows, cols = np.mgrid[:side, :side]
    label = ((rows // 8 + 3 * (cols // 8)) % 5).astype(np.uint8)
    return Tile(np.stack([rows, cols]).astype(dtype), (rows // 8) % 4 != 3, label)


@pytest.mark.parametrize("kind", ["flips", "full"])
def test_pixels_valid_mask_and_label_move_together(kind: Any) -> None:
    seen = set()
    for seed in range(40):
        tile = geometry(coded_tile(32), 32, Augmentation(kind), np.random.default_rng(seed))
        rows, cols = tile.values.astype(int)
        source = coded_tile(32)
        assert sorted(zip(rows.ravel().tolist(), cols.ravel().tolist(), strict=True)) == [
            (row, col) for row in range(32) for col in range(32)
        ]
        assert np.array_equal(tile.label, source.label[rows, cols])
        assert np.array_equal(tile.valid, source.valid[rows, cols])
        seen.add((rows[0, 0], cols[0, 0], rows[0, 31], cols[0, 31]))
    assert len(seen) == 8  # the four turns, flipped or not


def test_without_augmentation_nothing_moves() -> None:
    for seed in range(10):
        tile = geometry(coded_tile(32), 32, Augmentation(), np.random.default_rng(seed))
        for found, expected in zip(tile, coded_tile(32), strict=True):
            assert np.array_equal(found, expected)


@pytest.mark.parametrize("source", [48, 64, 85])
def test_a_change_of_scale_keeps_the_label_on_its_pixels(source: int) -> None:
    """Pixels are smooth in row and column, so the source of each is read off them, to half a pixel."""
    whole = Tile(
        np.stack(np.mgrid[:source, :source]).astype(np.float32),
        np.ones((source, source), bool),
        coded_tile(source).label,
    )
    tile = geometry(whole, 64, Augmentation(), np.random.default_rng(0))
    assert tile.values.shape == (2, 64, 64)
    rows, cols = tile.values
    scale = source / 64
    expected = np.clip((np.arange(64) + 0.5) * scale - 0.5, 0, source - 1)
    assert rows[:, 0] == pytest.approx(expected, abs=1e-3)
    assert cols[0] == pytest.approx(expected, abs=1e-3)
    nearest = np.floor((np.arange(64) + 0.5) * scale).astype(int)
    assert np.array_equal(tile.label, whole.label[np.ix_(nearest, nearest)])
    # The two grids agree: a label is never further than half a pixel of the source from its colour.
    assert np.abs(nearest - expected).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"])
@pytest.mark.parametrize("source", [40, 32, 20])
def test_the_pixel_type_is_kept(dtype: str, source: int) -> None:
    tile = geometry(coded_tile(source, dtype), 32, Augmentation("full"), np.random.default_rng(1))
    assert tile.values.dtype == np.dtype(dtype)
    assert (tile.valid.dtype, tile.label.dtype) == (np.dtype(bool), np.dtype(np.uint8))
    assert tile.values.shape == (2, 32, 32)
    assert tile.label.shape == tile.valid.shape == (32, 32)
    assert all(array.flags["C_CONTIGUOUS"] for array in tile)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32"])
def test_the_largest_and_smallest_pixel_values_survive_a_change_of_scale(dtype: str) -> None:
    limits = np.iinfo(dtype)
    for value in (limits.min, limits.max):
        flat = Tile(np.full((1, 24, 24), value, dtype), np.ones((24, 24), bool), np.zeros((24, 24), np.uint8))
        assert np.unique(geometry(flat, 32, Augmentation(), np.random.default_rng(0)).values).tolist() == [value]


@pytest.mark.parametrize("fill", [0.0, -32768.0, np.nan, np.inf])
@pytest.mark.parametrize("source", [24, 43])
def test_fill_values_do_not_bleed_into_real_pixels(fill: float, source: int) -> None:
    valid = np.random.default_rng(0).random((source, source)) < 0.7
    values = np.where(valid, 3000.0, fill).astype(np.float32)[None]
    tile = geometry(Tile(values, valid, np.zeros(valid.shape, np.uint8)), 32, Augmentation(), np.random.default_rng(0))
    assert tile.valid.any()
    assert not tile.valid.all()
    assert tile.values[:, tile.valid] == pytest.approx(3000)
    assert np.isfinite(tile.values).all()


def test_a_tile_without_a_valid_pixel_stays_one() -> None:
    nothing = Tile(np.full((2, 24, 24), np.nan, np.float32), np.zeros((24, 24), bool), np.full((24, 24), 255, np.uint8))
    tile = geometry(nothing, 32, Augmentation("full"), np.random.default_rng(0))
    assert not tile.valid.any()
    assert np.isfinite(tile.values).all()
    assert (tile.label == 255).all()


def test_scales_are_drawn_evenly_around_one() -> None:
    rng = np.random.default_rng(0)
    sides = [source_side(100, Augmentation("full", scale=4 / 3), rng) for _ in range(2000)]
    assert min(sides) >= 75
    assert max(sides) <= 133
    # As often larger as smaller.
    assert np.mean([side > 100 for side in sides]) == pytest.approx(0.5, abs=0.04)
    edges = [75, 87, 100, 115, 133]
    assert all(any(low <= side < high for side in sides) for low, high in pairwise(edges))


@pytest.mark.parametrize("kind", ["none", "flips"])
def test_other_augmentation_changes_no_scale_and_no_color(kind: Any) -> None:
    assert {source_side(96, Augmentation(kind, scale=1.5), np.random.default_rng(seed)) for seed in range(20)} == {96}
    change = color(4, Augmentation(kind), np.random.default_rng(0))
    assert change.gamma.tolist() == change.gain.tolist() == [1.0] * 4
    assert change.noise == 0
    assert change.offset.tolist() == [0.0] * 4


def test_colors_change_about_the_identity_as_a_whole_and_by_band() -> None:
    changes = [color(3, Augmentation("full"), np.random.default_rng(seed)) for seed in range(500)]
    gain, offset, gamma = (
        np.stack([getattr(change, name) for change in changes]) for name in ("gain", "offset", "gamma")
    )
    assert gamma.dtype == np.float32
    assert np.abs(np.log(gamma)).max() <= 1.5 * np.log(1.25) + 1e-6
    assert np.log(gamma).mean() == pytest.approx(0, abs=0.02)
    assert np.log(gamma).mean(axis=1).std() > np.log(gamma).std(axis=1).mean() > 0
    assert gain.dtype == offset.dtype == np.float32
    assert gain.shape == (500, 3)
    assert np.abs(gain - 1).max() <= 0.35 + 1e-6
    assert np.abs(offset).max() <= 0.35 + 1e-6
    assert gain.mean() == pytest.approx(1, abs=0.02)
    assert offset.mean() == pytest.approx(0, abs=0.02)
    # Bands differ from each other by less than tiles do.
    assert 0 < np.ptp(gain, axis=1).max() <= 0.2 + 1e-6
    assert gain.mean(axis=1).std() > gain.std(axis=1).mean()


def test_what_is_hidden_keeps_its_label() -> None:
    tiles = [geometry(coded_tile(64), 64, Augmentation(cutout=0.5), np.random.default_rng(seed)) for seed in range(200)]
    plain = coded_tile(64)
    hidden = [plain.valid & ~tile.valid for tile in tiles]
    assert all(np.array_equal(tile.label, plain.label) for tile in tiles)
    assert not any((tile.valid & ~plain.valid).any() for tile in tiles)
    assert np.mean([hole.any() for hole in hidden]) == pytest.approx(0.5, abs=0.1)
    for hole in hidden:
        if hole.any():
            rows, cols = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
            box = np.s_[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
            assert np.array_equal(hole[box], plain.valid[box])  # nothing valid is left inside
            assert max(np.ptp(rows), np.ptp(cols)) + 1 <= 32


def test_noise_is_drawn_up_to_its_limit() -> None:
    drawn = [color(3, Augmentation(noise=0.2), np.random.default_rng(seed)).noise for seed in range(200)]
    assert 0 <= min(drawn) < 0.02 < 0.18 < max(drawn) <= 0.2
