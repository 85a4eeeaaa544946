"""Fields: a plane split into parcels, each with its own direction and crop."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segbatch.demo.noise import Field, smooth_noise


@dataclass(frozen=True, slots=True)
class Parcels:
    """Parcels as rasters.

    Args:
        index: int32 (height, width), the parcel of each pixel, 0 to ``count`` - 1.
        stripe: float32 (height, width), pixels across the direction of ploughing.
        margin: float32 (height, width), pixels to the nearest border of the parcel.
        garden: bool (count,), True for a parcel that is a garden.
    """

    index: NDArray[np.int32]
    stripe: Field
    margin: Field
    garden: NDArray[np.bool_]

    @property
    def count(self) -> int:
        """Number of parcels."""
        return len(self.garden)


def split_parcels(rng: np.random.Generator, shape: tuple[int, int], angle: float, area: float) -> Parcels:
    """Split a plane, turned by ``angle`` radians and gently warped, into rectangles of about ``area`` pixels."""
    height, width = shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    warp = 0.22 * math.sqrt(area)
    # Points of the turned plane, shifted so that none is negative.
    reach = math.hypot(width, height) + 8 * warp
    cos, sin = math.cos(angle), math.sin(angle)
    across = (x - width / 2) * cos + (y - height / 2) * sin + warp * smooth_noise(rng, shape, 420) + reach / 2
    down = (y - height / 2) * cos - (x - width / 2) * sin + warp * smooth_noise(rng, shape, 420) + reach / 2
    side = math.ceil(reach)
    boxes = np.array(_split(rng, (0, 0, side, side), area), np.int32)
    plane = np.zeros((side, side), np.int32)
    for number, (left, top, right, bottom) in enumerate(boxes):
        plane[top:bottom, left:right] = number
    index = plane[_cell(down, side), _cell(across, side)]
    left, top, right, bottom = boxes.T.astype(np.float32)
    margin = np.minimum(across - left[index], right[index] - across)
    margin = np.minimum(margin, np.minimum(down - top[index], bottom[index] - down))
    lengthwise = (right - left) > (bottom - top)
    # Stripes run along the longer side, so the coordinate that changes between stripes is the other one.
    return Parcels(index, np.where(lengthwise[index], down, across), margin, np.zeros(len(boxes), bool))


def add_gardens(fields: Parcels, gardens: Parcels, where: NDArray[np.bool_]) -> Parcels:
    """``fields`` with the parcels of ``gardens`` in their place ``where`` that is True, (height, width)."""
    return Parcels(
        index=np.where(where, gardens.index + np.int32(fields.count), fields.index),
        stripe=np.where(where, gardens.stripe, fields.stripe),
        margin=np.where(where, gardens.margin, fields.margin),
        garden=np.concatenate([fields.garden, np.ones(gardens.count, bool)]),
    )


def _cell(coordinate: Field, side: int) -> NDArray[np.intp]:
    return np.clip(coordinate, 0, side - 1).astype(np.intp)


def _split(rng: np.random.Generator, box: tuple[int, int, int, int], area: float) -> list[tuple[int, int, int, int]]:
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    if width * height < area * rng.uniform(0.4, 2.4):
        return [box]
    share = rng.uniform(0.3, 0.7)
    # Long strips are what ploughing likes: a box is cut across only when it is clearly elongated.
    if width > height * rng.uniform(0.6, 2.2):
        cut = left + round(share * width)
        halves = (left, top, cut, bottom), (cut, top, right, bottom)
    else:
        cut = top + round(share * height)
        halves = (left, top, right, cut), (left, cut, right, bottom)
    return [part for half in halves for part in _split(rng, half, area)]
