"""Augmentation of tiles: the same geometry for pixels, valid mask and label; colour by band.

Each function draws from a generator that is the tile's own, so training is repeatable.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from segbatch.training.tiles import Tile

_BRIGHTNESS = 0.25
_CONTRAST = 0.25
_BAND = 0.1
_GAMMA = 1.25
_HOLE = (0.125, 0.5)


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How tiles are changed.

    Args:
        kind: ``none``; ``flips``: flips and quarter turns; ``full``: those, scale, and colour by band.
        scale: Of ``full``: the largest factor by which a tile is cut smaller or larger.
        noise: Largest standard deviation of noise, in standard deviations of a band.
        cutout: Share of tiles in which a square is hidden.
    """

    kind: Literal["none", "flips", "full"] = "none"
    scale: float = 1.0
    noise: float = 0.0
    cutout: float = 0.0


class Color(NamedTuple):
    """A change of a tile's colours.

    Args:
        gamma: (bands,) float32 exponent, on a scale on which the band's darkest pixels are 0 and its brightest 1.
        gain: (bands,) float32 factor of the normalised pixels.
        offset: (bands,) float32 added to them, in standard deviations.
        noise: Standard deviation of the noise, in those of the band.
    """

    gamma: NDArray[np.float32]
    gain: NDArray[np.float32]
    offset: NDArray[np.float32]
    noise: float


def source_side(side: int, augmentation: Augmentation, rng: np.random.Generator) -> int:
    """How many pixels a side to cut for a tile of ``side`` pixels: a change of scale when they differ."""
    if augmentation.kind != "full":
        return side
    reach = math.log(augmentation.scale)
    return round(side * math.exp(rng.uniform(-reach, reach)))


def geometry(tile: Tile, side: int, augmentation: Augmentation, rng: np.random.Generator) -> Tile:
    """Resize to ``side`` pixels, flip and turn by quarters, and hide a square.

    Pixels are resized bilinearly, valid mask and label by nearest neighbour. What is hidden (cutout: DeVries and
    Taylor 2017) is not valid, but keeps its label: the model is to tell it by what is around.
    """
    if tile.label.shape[0] != side:
        tile = _resize(tile, side)
    if augmentation.kind != "none":
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        arrays = (np.rot90(array, turns, axes=(-2, -1)) for array in tile)
        tile = Tile(*(np.ascontiguousarray(array[..., ::-1] if flip else array) for array in arrays))
    if rng.random() < augmentation.cutout:
        hole = round(side * rng.uniform(*_HOLE))
        row, col = rng.integers(side - hole + 1, size=2)
        valid = tile.valid.copy()
        valid[row : row + hole, col : col + hole] = False
        tile = tile._replace(valid=valid)
    return tile


def color(bands: int, augmentation: Augmentation, rng: np.random.Generator) -> Color:
    """A change of colour: one of the whole tile and a smaller one of each band."""
    noise = rng.uniform(0, augmentation.noise)
    if augmentation.kind != "full":
        same = np.ones(bands, np.float32)
        return Color(same, same, np.zeros(bands, np.float32), noise)
    gain = 1 + rng.uniform(-_CONTRAST, _CONTRAST) + rng.uniform(-_BAND, _BAND, bands)
    offset = rng.uniform(-_BRIGHTNESS, _BRIGHTNESS) + rng.uniform(-_BAND, _BAND, bands)
    reach = math.log(_GAMMA)
    gamma = np.exp(rng.uniform(-reach, reach) + rng.uniform(-reach, reach, bands) / 2)
    return Color(gamma.astype(np.float32), gain.astype(np.float32), offset.astype(np.float32), noise)


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
