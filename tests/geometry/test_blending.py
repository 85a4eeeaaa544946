"""Weights of overlapping windows: they add up to 1, and blocks do not matter."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbatch.geometry import Blend, BlockGrid, Lattice, axis_weights
from segbatch.geometry.blending import taper

blends = st.sampled_from(["hann", "gaussian"])
halos = st.integers(1, 70)
"""Of cores of up to 40 pixels: at the most, nine windows see a pixel."""


def laid(weights: np.ndarray, core: int) -> np.ndarray:
    """(windows, pixels) weights where the windows lie."""
    count, size = weights.shape
    canvas = np.zeros((count, (count - 1) * core + size), weights.dtype)
    for number, line in enumerate(weights):
        canvas[number, number * core : number * core + size] = line
    return canvas


@given(blends, st.integers(1, 500))
def test_tapers_are_positive_symmetric_and_largest_in_the_middle(blend: Blend, size: int) -> None:
    weights = taper(blend, size)
    assert weights.shape == (size,)
    assert (weights > 0).all()
    np.testing.assert_allclose(weights, weights[::-1], rtol=1e-9)
    assert (np.diff(weights[: (size + 1) // 2]) > 0).all()
    assert weights.max() <= 1


def test_tapers_are_what_their_names_say() -> None:
    np.testing.assert_allclose(taper("hann", 64), 0.5 * (1 - np.cos(2 * np.pi * (np.arange(64) + 0.5) / 64)))
    distance = (np.arange(64) - 31.5) / (64 / 8)
    np.testing.assert_allclose(taper("gaussian", 64), np.exp(-0.5 * distance**2))


def test_crop_has_no_weights() -> None:
    with pytest.raises(ValueError, match="'crop' has no weights"):
        taper("crop", 8)


@given(blends, st.integers(1, 40), halos, st.integers(1, 12))
def test_the_weights_of_a_pixel_add_up_to_one(blend: Blend, core: int, halo: int, count: int) -> None:
    weights = axis_weights(blend, core, halo, count)
    assert weights.shape == (count, core + 2 * halo)
    assert weights.dtype == np.float32
    assert (weights > 0).all()
    # Turned round, the windows are the same. (Sums are made in another order.)
    np.testing.assert_allclose(weights, weights[::-1, ::-1], rtol=1e-6)
    np.testing.assert_allclose(laid(weights.astype(np.float64), core).sum(axis=0), 1, atol=1e-6)


@given(blends, st.integers(1, 40), halos, st.integers(1, 12), st.integers(1, 5))
def test_a_pixel_has_the_same_weights_in_every_block(
    blend: Blend, core: int, halo: int, count: int, block: int
) -> None:
    """To the bit, wherever the block owns the pixel."""
    lattice = Lattice(count * core, 1, core, 1, halo)
    whole = laid(axis_weights(blend, core, halo, count), core)
    for part in BlockGrid(lattice, 1, block, overlapping=True):
        first, end = (part.read.col_off + halo) // core, (part.read.col_end - halo) // core
        here = laid(axis_weights(blend, core, halo, end - first), core)
        owned = slice(part.owned.col_off + halo, part.owned.col_end + halo)
        kept = slice(part.kept.col_off, part.kept.col_end)
        np.testing.assert_array_equal(here[:, kept], whole[first:end, owned])
        others = np.delete(whole[:, owned], np.s_[first:end], axis=0)
        assert not others.any()  # no window that sees the pixel is missing
