"""Augmentation of tiles: the same geometry for pixels, valid mask and label; colour by band.

Each function draws from a generator that is the tile's own, so training is repeatable.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from segbatch.training.tiles import Tile

Augment = Literal["none", "flips", "full"]

_BRIGHTNESS = 0.25
_CONTRAST = 0.25
_BAND = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Color:
    """A change of brightness and contrast of normalised pixels: ``x * gain + offset``.

    Args:
        gain: (bands,) float32.
        offset: (bands,) float32, in standard deviations.
    """

    gain: NDArray[np.float32]
    offset: NDArray[np.float32]


def source_side(side: int, augment: Augment, scale: float, rng: np.random.Generator) -> int:
    """How many pixels a side to cut for a tile of ``side`` pixels: a change of scale when they differ."""
    if augment != "full":
        return side
    return round(side * math.exp(rng.uniform(-math.log(scale), math.log(scale))))


def geometry(tile: Tile, side: int, augment: Augment, rng: np.random.Generator) -> Tile:
    """Resize to ``side`` pixels, then flip and turn by quarters.

    Pixels are resized bilinearly, valid mask and label by nearest neighbour.
    """
    if tile.label.shape[0] != side:
        tile = _resize(tile, side)
    if augment == "none":
        return tile
    turns, flip = int(rng.integers(4)), bool(rng.integers(2))
    arrays = (np.rot90(array, turns, axes=(-2, -1)) for array in tile)
    return Tile(*(np.ascontiguousarray(array[..., ::-1] if flip else array) for array in arrays))


def color(bands: int, augment: Augment, rng: np.random.Generator) -> Color:
    """A change of colour: one of the whole tile and a smaller one of each band."""
    if augment != "full":
        return Color(np.ones(bands, np.float32), np.zeros(bands, np.float32))
    gain = 1 + rng.uniform(-_CONTRAST, _CONTRAST) + rng.uniform(-_BAND, _BAND, bands)
    offset = rng.uniform(-_BRIGHTNESS, _BRIGHTNESS) + rng.uniform(-_BAND, _BAND, bands)
    return Color(gain.astype(np.float32), offset.astype(np.float32))


def _resize(tile: Tile, side: int) -> Tile:
    index = (np.arange(side) + 0.5) * (tile.label.shape[0] / side)
    nearest = np.ix_(index.astype(np.intp), index.astype(np.intp))
    dtype = tile.values.dtype
    # Float32 cannot hold every 32-bit integer.
    real = np.where(tile.valid, tile.values, 0).astype(np.result_type(dtype, np.float32))
    resized = _bilinear(real, side)
    if not tile.valid.all():
        # A pixel beside fill values or NaN is the mean of its valid neighbours alone.
        share = _bilinear(tile.valid[np.newaxis].astype(real.dtype), side)
        resized = np.divide(resized, share, out=np.zeros_like(resized), where=share > 0)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype.name)
        resized = np.clip(np.rint(resized), limits.min, limits.max)
    return Tile(resized.astype(dtype), tile.valid[nearest], tile.label[nearest])


def _bilinear(values: NDArray[Any], side: int) -> NDArray[Any]:
    return torch.nn.functional.interpolate(
        torch.from_numpy(values)[None], size=(side, side), mode="bilinear", align_corners=False
    )[0].numpy()
