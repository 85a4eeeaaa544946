"""Weights with which overlapping windows are blended.

A window's weight at a pixel is the product of one weight along the rows and one along the columns. Weights of
an axis are divided by their sum over all windows that see the pixel, so those of a pixel add up to 1: there is
no array of weights to divide by at the end, and pixels at a scene's border count as much as any other.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Blend = Literal["crop", "hann", "gaussian"]
"""How windows meet. crop: each keeps its core alone; else they overlap by twice the halo and are averaged."""

_GAUSSIAN_SIGMA = 1 / 8
"""Standard deviation of the gaussian weights, as a share of the window's side."""


def taper(blend: Blend, size: int) -> NDArray[np.float64]:
    """Weights along a window's side before they are normalised, positive everywhere and symmetric.

    hann is a Hann window sampled at pixel centres, so that its ends are not 0 (Harris 1978, "On the use of
    windows for harmonic analysis with the discrete Fourier transform"); gaussian has a standard deviation of an
    eighth of the side.

    Args:
        blend: ``hann`` or ``gaussian``.
        size: Pixels along the side.
    """
    position = (np.arange(size) + 0.5) / size
    if blend == "hann":
        return np.sin(np.pi * position) ** 2
    if blend == "gaussian":
        return np.exp(-((position - 0.5) ** 2) / (2 * _GAUSSIAN_SIGMA**2))
    raise ValueError(f"{blend!r} has no weights")


def axis_weights(blend: Blend, size: int, starts: Sequence[int]) -> NDArray[np.float32]:
    """Weights of windows along one axis, normalised over the windows that see each pixel.

    Only pixels that all their windows are among those given get the scene's weights; with the windows that touch a
    block given, those are the block's.

    Args:
        blend: ``hann`` or ``gaussian``.
        size: Pixels along the side of a window.
        starts: First pixels of the windows, in ascending order, the first of them 0.

    Returns:
        (windows, size) float32.
    """
    weights = taper(blend, size)
    total = np.zeros(starts[-1] + size)
    # In the windows' order, so that a pixel's sum has the same bits whichever of its blocks computes it.
    for start in starts:
        total[start : start + size] += weights
    return np.stack([weights / total[start : start + size] for start in starts]).astype(np.float32)
