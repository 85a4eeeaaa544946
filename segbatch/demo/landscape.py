"""A procedural landscape seen from the air: the data of ``segbatch demo``."""

import math

import numpy as np
from numpy.typing import NDArray

from segbatch.classes import IGNORE_INDEX, ClassTable
from segbatch.demo.noise import Field, blur, smooth_noise
from segbatch.demo.paint import paint
from segbatch.demo.terrain import make_terrain

CLASSES = ClassTable.from_items(
    [
        ("water", "#1f78b4"),
        ("forest", "#2f7d32"),
        ("field", "#d9c77a"),
        ("road", "#5a5a5a"),
        ("building", "#d7301f"),
    ]
)
BANDS = ("red", "green", "blue", "nir")
IMAGE_NODATA = 0


def make_landscape(seed: int, width: int, height: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Make a place and its label.

    The same arguments give the same place. Seeds differ in layout, season, light and haze.

    Args:
        seed: Any integer that is not negative.
        width: Columns, at least 256.
        height: Rows, at least 256.

    Returns:
        The image, uint8 (4, height, width) with `BANDS`, and the label, uint8 (height, width) with the ids of
        `CLASSES`. Beyond the edge of the swath, and in a few holes, all bands are `IMAGE_NODATA` and the
        label is `IGNORE_INDEX`; no real pixel has `IMAGE_NODATA` in any band.
    """
    layout, tones, sensor = (np.random.default_rng([seed, stage]) for stage in range(3))
    terrain = make_terrain(layout, width, height)
    # North of the tropics shadows fall northwards: up.
    azimuth = tones.uniform(-0.9, 0.9)
    sun = (math.sin(azimuth), -math.cos(azimuth))
    image = _sense(sensor, paint(tones, terrain, sun))
    valid = _swath(sensor, width, height)
    image[:, ~valid] = IMAGE_NODATA
    return image, np.where(valid, terrain.label, np.uint8(IGNORE_INDEX))


def _sense(rng: np.random.Generator, light: Field) -> NDArray[np.uint8]:
    """What a camera makes of it: uneven light, haze, blur and noise, as uint8 from 1."""
    shape = light.shape[1:]
    uneven = 1 + 0.07 * smooth_noise(rng, shape, 600)
    gain = rng.uniform(0.93, 1.07) * rng.uniform(0.95, 1.05, 4)
    haze = rng.uniform(0, 14) * np.array((0.5, 0.7, 1.0, 0.2))
    image = np.empty(light.shape, np.uint8)
    for band, noise in enumerate((2.6, 2.2, 2.8, 3.4)):
        plane = blur(light[band] * uneven, 0.17) * np.float32(gain[band]) + np.float32(haze[band])
        plane += noise * rng.standard_normal(shape, dtype=np.float32)
        image[band] = np.clip(np.rint(plane), IMAGE_NODATA + 1, 255)
    return image


def _swath(rng: np.random.Generator, width: int, height: int) -> NDArray[np.bool_]:
    """True inside the swath: its slanted edge cuts one side, and small holes are missing."""
    y, x = np.ogrid[0:height, 0:width]
    slant = rng.uniform(0.06, 0.12) * rng.choice([-1, 1])
    edge = 0.035 * width + slant * (y - height / 2)
    valid: NDArray[np.bool_] = (x > edge) if rng.random() < 0.5 else (width - 1 - x > edge)
    for _ in range(4):
        center_x, center_y = rng.uniform(0.15, 0.85, 2) * (width, height)
        radius_x, radius_y = rng.uniform(3, 22), rng.uniform(3, 9)
        valid &= ((x - center_x) / radius_x) ** 2 + ((y - center_y) / radius_y) ** 2 > 1
    return valid
