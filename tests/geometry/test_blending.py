"""Weights of overlapping windows: they add up to 1, and blocks do not matter."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbatch.geometry import Blend, BlockGrid, Lattice, axis_weights
from segbatch.geometry.blending import taper

blends = st.sampled_from(["hann", "gaussian"])
halos = st.integers(1, 70)
"""Of cores of up to 40 pixels: at the most, nine windows see a pixel."""


def laid(weights: np.ndarray, starts: Sequence[int]) -> np.ndarray:
    """(windows, pixels) weights where the windows lie."""
    count, size = weights.shape
    canvas = np.zeros((count, starts[-1] + size), weights.dtype)
    for number, (line, start) in enumerate(zip(weights, starts, strict=True)):
        canvas[number, start : start + size] = line
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


@given(blends, st.integers(1, 200), st.lists(st.integers(0, 90), min_size=0, max_size=12))
def test_the_weights_of_a_pixel_add_up_to_one(blend: Blend, size: int, steps: list[int]) -> None:
    starts = np.cumsum([0, *(min(step, size) for step in steps)]).tolist()
    weights = axis_weights(blend, size, starts)
    assert weights.shape == (len(starts), size)
    assert weights.dtype == np.float32
    assert (weights > 0).all()
    # Turned round, the windows are the same. (Sums are made in another order.)
    turned = axis_weights(blend, size, [starts[-1] - start for start in reversed(starts)])
    np.testing.assert_allclose(weights, turned[::-1, ::-1], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(laid(weights.astype(np.float64), starts).sum(axis=0), 1, atol=1e-6)


@given(blends, st.integers(1, 40), halos, st.integers(1, 12), st.integers(1, 5))
def test_a_pixel_has_the_same_weights_in_every_block(
    blend: Blend, core: int, halo: int, count: int, block: int
) -> None:
    """To the bit, wherever the block owns the pixel."""
    lattice = Lattice(count * core, 1, core, 1, halo)
    every = BlockGrid(lattice, 1, count, overlapping=True)
    starts = every.tiling(every[0]).col_starts
    whole = laid(axis_weights(blend, lattice.window_width, starts), starts)
    grid = BlockGrid(lattice, 1, block, overlapping=True)
    for part in grid:
        here_starts = grid.tiling(part).col_starts
        here = laid(axis_weights(blend, lattice.window_width, here_starts), here_starts)
        first = part.cores.col_off // core
        end = first + len(here_starts)
        owned = slice(part.owned.col_off, part.owned.col_end)
        kept = slice(part.kept.col_off, part.kept.col_end)
        np.testing.assert_array_equal(here[:, kept], whole[first:end, owned])
        others = np.delete(whole[:, owned], np.s_[first:end], axis=0)
        assert not others.any()  # no window that sees the pixel is missing
