"""Smooth random fields and small convolutions: the brushes of the landscape."""

import math

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]

_SPLINE_DEVIATION = 151 / 315
"""Standard deviation of white noise after a cubic B-spline in both directions."""


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cell: float) -> Field:
    """White noise on a grid of ``cell`` pixels, interpolated by cubic B-splines.

    Returns:
        float32 (height, width), mean 0 and deviation 1.
    """
    height, width = shape
    grid = rng.standard_normal((math.ceil(height / cell) + 4, math.ceil(width / cell) + 4), dtype=np.float32)
    field = upsample(grid, shape, cell)
    field /= _SPLINE_DEVIATION
    return field


def upsample(grid: Field, shape: tuple[int, int], cell: float) -> Field:
    """Smooth a grid by cubic B-splines onto ``shape``.

    Args:
        grid: float32; node (1, 1) lies on pixel (0, 0), and two nodes are needed beyond the last pixel.
        shape: (height, width) of the result.
        cell: Pixels from node to node.
    """
    columns = np.ascontiguousarray(_upsample_rows(grid.T, shape[1], cell).T)
    return _upsample_rows(columns, shape[0], cell)


def fractal_noise(rng: np.random.Generator, shape: tuple[int, int], cell: float, octaves: int) -> Field:
    """Sum of `smooth_noise` at ``cell``, ``cell / 2``, ..., each half as strong; mean 0 and deviation 1."""
    total = smooth_noise(rng, shape, cell)
    for octave in range(1, octaves):
        total += smooth_noise(rng, shape, cell / 2**octave) * np.float32(0.5**octave)
    total /= math.sqrt(sum(0.25**octave for octave in range(octaves)))
    return total


def blur(field: Field, weight: float) -> Field:
    """Convolve both directions with (weight, 1 - 2 weight, weight); borders are repeated."""
    for axis in (0, 1):
        padded = np.pad(field, [(1, 1) if axis == a else (0, 0) for a in (0, 1)], mode="edge")
        before, after = (padded[:-2], padded[2:]) if axis == 0 else (padded[:, :-2], padded[:, 2:])
        field = (1 - 2 * weight) * field + weight * (before + after)
    return field


def _upsample_rows(grid: Field, size: int, cell: float) -> Field:
    """Interpolate axis 0 to ``size`` rows, ``cell`` rows a node."""
    position = np.arange(size) / cell + 1
    node = position.astype(np.intp)
    t = (position - node).astype(np.float32)[:, None]
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    rows = np.zeros((size, grid.shape[1]), np.float32)
    for offset, weight in enumerate(weights):
        rows += grid[node + (offset - 1)] * (weight / 6)
    return rows
