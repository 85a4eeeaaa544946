"""Colours of a terrain: four bands (red, green, blue, near infrared) on the scale of uint8."""

import math

import numpy as np
from numpy.typing import NDArray

from segbatch.demo.layout import MAIN_ROAD, TRACK
from segbatch.demo.noise import Field, fractal_noise, smooth_noise
from segbatch.demo.terrain import BUILDING, FOREST, ROAD, WATER, Terrain

_CROPS = np.array(
    [  # red, green, blue, near infrared, strength of stripes, share
        (80, 108, 66, 168, 0.08, 3),  # young wheat
        (100, 124, 74, 150, 0.06, 3),  # ripening
        (66, 92, 58, 146, 0.10, 2),  # maize
        (106, 130, 78, 138, 0.02, 3),  # pasture
        (138, 116, 92, 112, 0.09, 3),  # ploughed
        (92, 84, 76, 82, 0.08, 2),  # wet and bare
        (166, 148, 120, 130, 0.06, 2),  # dry and bare
        (172, 154, 100, 136, 0.09, 2),  # stubble
        (118, 116, 110, 106, 0.05, 1),  # gravelly, much like asphalt
        (190, 180, 82, 150, 0.05, 0.7),  # rapeseed
    ],
    np.float32,
)
_GARDENS = (1, 3, 3, 3, 3, 0, 4, 8)
"""Crops of gardens: mostly lawn, some beds and gravelled yards."""

_ROOFS = np.array(
    [
        (164, 92, 68, 112),  # red tiles
        (142, 78, 60, 104),  # old tiles
        (112, 84, 68, 98),  # brown
        (88, 89, 94, 88),  # slate
        (70, 70, 73, 68),  # anthracite
        (174, 176, 178, 166),  # metal
        (206, 203, 196, 188),  # flat, gravel
    ],
    np.float32,
)
_CARS = np.array([(210, 210, 212, 190), (48, 50, 56, 52), (150, 44, 40, 84), (60, 82, 130, 70)], np.float32)
_ASPHALT, _GRAVEL, _VERGE = (112, 112, 113, 100), (166, 158, 144, 136), (108, 122, 78, 132)
_DEEP, _SHALLOW, _MUDDY = (30, 50, 58, 16), (62, 84, 74, 30), (92, 92, 74, 46)
_FOREST_FLOOR = (30, 44, 32, 66)


def paint(rng: np.random.Generator, terrain: Terrain, sun: tuple[float, float]) -> Field:
    """Paint a terrain.

    Args:
        rng: Source of tones.
        terrain: What stands where.
        sun: Unit vector in pixels from the sun, the way shadows fall.

    Returns:
        float32 (4, height, width): reflected light, shade included.
    """
    label = terrain.label
    image = _paint_fields(rng, terrain)
    grain = smooth_noise(rng, label.shape, 2.5)
    _paint_water(rng, image, terrain, grain)
    _paint_trees(rng, image, terrain, sun, grain)
    _paint_roads(rng, image, terrain, grain)
    _paint_roofs(rng, image, terrain, sun, grain)
    _fill(image, terrain.car >= 0, _CARS[terrain.car[terrain.car >= 0] % len(_CARS)].T)
    # Sky light, which is blue, still reaches the shade.
    shade = _shade(terrain.height, sun)
    for band, dark in enumerate((0.42, 0.45, 0.55, 0.40)):
        image[band] *= 1 - (1 - dark) * shade
    return image


def _paint_fields(rng: np.random.Generator, terrain: Terrain) -> Field:
    parcels, shape = terrain.parcels, terrain.label.shape
    crop = rng.choice(len(_CROPS), parcels.count, p=_CROPS[:, 5] / _CROPS[:, 5].sum())
    crop[parcels.garden] = rng.choice(_GARDENS, int(parcels.garden.sum()))
    tone = rng.normal(1, 0.07, parcels.count) * np.ones((4, 1)) + rng.normal(0, 0.02, (4, parcels.count))
    color = (_CROPS[crop, :4].T * tone).astype(np.float32)
    period = rng.uniform(5, 10, parcels.count).astype(np.float32)
    strength = (_CROPS[crop, 4] * rng.uniform(0.5, 1.5, parcels.count)).astype(np.float32)
    index = parcels.index
    # Along the border the plough turns, and stripes follow the border.
    across = np.where(parcels.margin < 14, parcels.margin, parcels.stripe)
    stripes = np.sin(across * (2 * math.pi / period)[index]) * strength[index]
    tramline = np.abs(np.abs((parcels.stripe % 46) - 23) - 3.5) < 0.9
    stripes -= tramline * (0.16 * (crop < 3)).astype(np.float32)[index]
    mottle = 0.055 * fractal_noise(rng, shape, 70, 4) + 0.03 * smooth_noise(rng, shape, 3)
    # Damp hollows: darker bare soil, brighter crops.
    damp = np.clip(fractal_noise(rng, shape, 130, 3) - 0.6, 0, 1)
    image = np.empty((4, *shape), np.float32)
    verge = (parcels.margin < 2.2) | ((terrain.road_edge > 0) & (terrain.road_edge < 4))
    for band in range(4):
        plane = color[band][index]
        plane[verge] = _VERGE[band]
        plane *= 1 + stripes + mottle - damp * (0.16 if band < 3 else -0.02)
        image[band] = plane
    return image


def _paint_water(rng: np.random.Generator, image: Field, terrain: Terrain, grain: Field) -> None:
    where = terrain.label == WATER
    depth = terrain.depth[where]
    mud = np.clip(0.35 + 0.5 * smooth_noise(rng, terrain.label.shape, 300)[where], 0, 1)
    glint = (0.05 * smooth_noise(rng, terrain.label.shape, 5)[where] + 0.02 * grain[where]) + 1
    for band in range(4):
        shallow = _SHALLOW[band] + mud * (_MUDDY[band] - _SHALLOW[band])
        image[band][where] = (shallow + depth * (_DEEP[band] - shallow)) * glint


def _paint_trees(
    rng: np.random.Generator, image: Field, terrain: Terrain, sun: tuple[float, float], grain: Field
) -> None:
    where = terrain.label == FOREST
    crown = terrain.crown[where]
    count = int(crown.max(initial=0)) + 1
    rise, run = np.gradient(np.where(terrain.crown >= 0, terrain.height, np.float32(0)))
    slope = np.clip(rise * sun[1] + run * sun[0], -1.6, 1.6)[where]
    # Stands of conifers are darker and bluer than broadleaved ones.
    stand = np.clip(0.5 + 0.9 * smooth_noise(rng, terrain.label.shape, 150)[where], 0, 1)
    tone = rng.normal(1, 0.13, count).astype(np.float32)[crown]
    light = tone * (1 - 0.26 * slope + 0.07 * grain[where])
    warm = rng.normal(0, 7, count).astype(np.float32)[crown]
    conifer, leafy = (40, 62, 44, 96), (70, 96, 52, 146)
    for band in range(4):
        color = conifer[band] + stand * (leafy[band] - conifer[band]) + (warm if band == 0 else 0)
        image[band][where] = np.where(crown >= 0, color * light, np.float32(_FOREST_FLOOR[band]))


def _paint_roads(rng: np.random.Generator, image: Field, terrain: Terrain, grain: Field) -> None:
    where = terrain.label == ROAD
    kinds = np.array(terrain.road_kinds)
    kind, number = kinds[terrain.road[where]], terrain.road[where]
    tone = rng.uniform(0.78, 1.22, len(kinds)).astype(np.float32)[number]
    worn = 0.05 * fractal_noise(rng, terrain.label.shape, 24, 3)[where] + 0.03 * grain[where]
    edge = terrain.road_edge[where]
    line = (kind == MAIN_ROAD) & ((edge > -1.3) | (edge < -4.3))
    for band in range(4):
        color = np.where(kind == TRACK, np.float32(_GRAVEL[band]), np.float32(_ASPHALT[band])) * tone * (1 + worn)
        # Tracks keep a strip of grass between the ruts.
        color = np.where((kind == TRACK) & (edge < -2.4), 0.7 * color + 0.3 * _VERGE[band], color)
        image[band][where] = np.where(line, color + 22, color)


def _paint_roofs(
    rng: np.random.Generator, image: Field, terrain: Terrain, sun: tuple[float, float], grain: Field
) -> None:
    where = terrain.label == BUILDING
    roof = terrain.roof[where]
    count = len(terrain.buildings)
    kind = rng.choice(len(_ROOFS), count, p=(0.26, 0.17, 0.14, 0.12, 0.09, 0.1, 0.12))
    large = np.array([b.length > 36 for b in terrain.buildings], bool)
    kind = np.where(large, rng.choice((2, 3, 5, 6), count), kind)
    flat = kind == len(_ROOFS) - 1
    angle = np.array([b.angle for b in terrain.buildings])
    # A roof's slope faces the sun as far as its normal points against the light.
    facing = ((np.sin(angle) * sun[0] - np.cos(angle) * sun[1]) * 0.34).astype(np.float32)
    side = terrain.roof_side[where]
    gable = 1 + np.sign(side) * facing[roof] - 0.06 * np.abs(side)
    rim = np.where(np.abs(side) > 0.82, np.float32(0.8), np.float32(1.0))
    light = np.where(flat[roof], rim, gable) + 0.04 * grain[where]
    light = light * rng.normal(1, 0.08, count).astype(np.float32)[roof]
    for band in range(4):
        image[band][where] = _ROOFS[kind, band][roof] * light


def _fill(image: Field, where: NDArray[np.bool_], colors: NDArray[np.float32]) -> None:
    for band in range(4):
        image[band][where] = colors[band]


def _shade(height: Field, sun: tuple[float, float], slope: float = 0.8) -> Field:
    """1 where something towards the sun stands ``slope`` pixels higher for each pixel of distance, else 0."""
    shade = np.zeros(height.shape, bool)
    for step in range(1, math.ceil(float(height.max(initial=0)) / slope)):
        dx, dy = round(step * sun[0]), round(step * sun[1])
        lit, blocker = _shifted(height, dx, dy)
        shade[lit] |= height[blocker] > height[lit] + (slope * step + 0.6)
    return shade.astype(np.float32)


def _shifted(array: Field, dx: int, dy: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Slices of an array and of what lies (dx, dy) before it."""
    rows, cols = array.shape
    after = slice(max(dy, 0), rows + min(dy, 0)), slice(max(dx, 0), cols + min(dx, 0))
    before = slice(max(-dy, 0), rows + min(-dy, 0)), slice(max(-dx, 0), cols + min(-dx, 0))
    return after, before
