"""What stands where: water, trees, roads and buildings as rasters, with their heights and the label."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segbatch.demo.layout import (
    MAIN_ROAD,
    Line,
    Rectangle,
    Village,
    building_sites,
    cars,
    main_roads,
    river,
    tracks,
    villages,
)
from segbatch.demo.noise import Field, fractal_noise, smooth_noise, upsample
from segbatch.demo.parcels import Parcels, add_gardens, split_parcels

WATER, FOREST, FIELD, ROAD, BUILDING = range(5)

_COARSE = 16
"""Pixels a cell where distances over a whole place are wanted."""

_FAR = 1e3
"""Distance given to pixels that no line is near to."""

_SEED_SPACING = 8
"""Pixels between candidates for a tree."""


@dataclass(frozen=True, slots=True)
class Terrain:
    """A place before it is painted. All rasters are (height, width).

    Args:
        label: uint8 class ids.
        parcels: Fields, also below everything else.
        depth: float32, how far a water pixel is from the shore, about 0 to 1.
        road: int32, number of the nearest road.
        road_edge: float32, pixels to the nearest road's edge, negative on the road.
        road_kinds: Kind of each road.
        crown: int32, number of the tree whose crown is seen, -1 where there is none.
        roof: int32, number of the building, -1 where there is none.
        roof_side: float32, -1 to 1 across the ridge.
        buildings: Footprint of each building.
        car: int32, number of the car, -1 where there is none.
        height: float32, pixels above the ground: crowns, roofs, bridges.
    """

    label: NDArray[np.uint8]
    parcels: Parcels
    depth: Field
    road: NDArray[np.int32]
    road_edge: Field
    road_kinds: tuple[int, ...]
    crown: NDArray[np.int32]
    roof: NDArray[np.int32]
    roof_side: Field
    buildings: tuple[Rectangle, ...]
    car: NDArray[np.int32]
    height: Field


def make_terrain(rng: np.random.Generator, width: int, height: int) -> Terrain:
    """Lay out a place."""
    shape = (height, width)
    angle = rng.uniform(0, math.pi)
    stream = river(rng, width, height)
    mains = main_roads(rng, width, height, angle)
    built_up, streets = villages(rng, mains, [stream], width, height)
    settled = _settled(shape, built_up)
    river_edge, _ = line_distance(shape, [stream], 30)
    river_edge += 2.5 * smooth_noise(rng, shape, 24)
    lake = _lake_level(rng, shape, mains, settled)
    water = (lake > 0) | (river_edge < 0)

    roads = mains + _free_parts(streets, water)
    roads += _free_parts(tracks(rng, mains, width, height), water | (settled > 0.5))
    road_edge, road = line_distance(shape, roads, 14)
    on_road = road_edge < 0

    gardens = split_parcels(rng, shape, angle, 2400)
    inhabited = settled + 0.06 * smooth_noise(rng, shape, 40) > 0.62
    parcels = add_gardens(split_parcels(rng, shape, angle, 19000), gardens, inhabited)
    wooded = fractal_noise(rng, shape, 210, 4) - 1.6 * settled
    wooded[road_edge < 5] = -np.inf
    wooded[water] = -np.inf
    forest = wooded > np.quantile(wooded[::8, ::8], 0.76)

    label = np.full(shape, FIELD, np.uint8)
    label[water] = WATER
    label[on_road] = ROAD
    roof, roof_side, buildings = _place_buildings(building_sites(rng, roads, built_up), label, road_edge, forest)
    canopy, crown = _grow_trees(rng, forest, label, parcels, road_edge, settled)
    trees = (label == FIELD) & (forest | (crown >= 0))
    label[trees] = FOREST
    crown[~trees] = -1

    car, _ = stamp_rectangles(shape, tuple(cars(rng, roads)))
    car[~on_road] = -1
    top = np.where(crown >= 0, canopy, np.float32(0))
    house_heights = np.array([_house_height(b) for b in buildings] or [0.0], np.float32)
    top = np.where(roof >= 0, house_heights[roof] - np.abs(roof_side) * 2, top)
    top[car >= 0] = 2
    top[on_road & water] += 3
    return Terrain(
        label=label,
        parcels=parcels,
        depth=np.clip(np.maximum(lake * 1.6, -river_edge / 22), 0, 1),
        road=road,
        road_edge=road_edge,
        road_kinds=tuple(line.kind for line in roads),
        crown=crown,
        roof=roof,
        roof_side=roof_side,
        buildings=buildings,
        car=car,
        height=top,
    )


def line_distance(shape: tuple[int, int], lines: list[Line], reach: int) -> tuple[Field, NDArray[np.int32]]:
    """Distance of each pixel to the nearest edge of a line (negative inside), and that line's number.

    Pixels further than about ``reach`` from every line have a large distance and number -1.
    """
    height, width = shape
    nearest = np.full(shape, _FAR, np.float32)
    number = np.full(shape, -1, np.int32)
    for index, line in enumerate(lines):
        pad = reach + float(line.half_width.max())
        low, high = np.minimum(line.points[:-1], line.points[1:]), np.maximum(line.points[:-1], line.points[1:])
        first = np.maximum(np.floor(low - pad), 0).astype(int)
        last = np.minimum(np.ceil(high + pad), (width - 1, height - 1)).astype(int)
        for k in np.flatnonzero((first <= last).all(axis=1)):
            rows, cols = slice(first[k, 1], last[k, 1] + 1), slice(first[k, 0], last[k, 0] + 1)
            (x0, y0), (dx, dy) = line.points[k], line.points[k + 1] - line.points[k]
            y, x = np.ogrid[rows, cols]
            t = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
            half_width = line.half_width[k] + t * (line.half_width[k + 1] - line.half_width[k])
            distance = (np.hypot(x - x0 - t * dx, y - y0 - t * dy) - half_width).astype(np.float32)
            closer = distance < nearest[rows, cols]
            nearest[rows, cols][closer] = distance[closer]
            number[rows, cols][closer] = index
    return nearest, number


def stamp_rectangles(shape: tuple[int, int], rectangles: tuple[Rectangle, ...]) -> tuple[NDArray[np.int32], Field]:
    """Number of the last rectangle over each pixel (-1: none), and the place across it, -1 to 1."""
    number = np.full(shape, -1, np.int32)
    side = np.zeros(shape, np.float32)
    for index, rectangle in enumerate(rectangles):
        rows, cols, inside, across = _footprint(shape, rectangle)
        number[rows, cols][inside] = index
        side[rows, cols][inside] = across[inside]
    return number, side


def _footprint(
    shape: tuple[int, int], box: Rectangle, grow: float = 0.0
) -> tuple[slice, slice, NDArray[np.bool_], NDArray[np.float64]]:
    reach = math.hypot(box.length, box.depth) / 2 + grow + 1
    rows = slice(max(0, math.floor(box.y - reach)), max(0, min(shape[0], math.ceil(box.y + reach) + 1)))
    cols = slice(max(0, math.floor(box.x - reach)), max(0, min(shape[1], math.ceil(box.x + reach) + 1)))
    y, x = np.ogrid[rows, cols]
    cos, sin = math.cos(box.angle), math.sin(box.angle)
    along = (x - box.x) * cos + (y - box.y) * sin
    across = (y - box.y) * cos - (x - box.x) * sin
    inside = (np.abs(along) < box.length / 2 + grow) & (np.abs(across) < box.depth / 2 + grow)
    return rows, cols, inside, across / (box.depth / 2)


def _place_buildings(
    sites: list[Rectangle], label: NDArray[np.uint8], road_edge: Field, forest: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], Field, tuple[Rectangle, ...]]:
    """Keep the sites that are free, and mark them in ``label``."""
    kept = []
    for site in sites:
        rows, cols, inside, _ = _footprint(label.shape, site, grow=3)
        taken = (label[rows, cols] != FIELD) | (road_edge[rows, cols] < 2) | forest[rows, cols]
        if not inside.any() or (inside & taken).any():
            continue
        label[rows, cols][inside] = BUILDING
        kept.append(site)
    roof, side = stamp_rectangles(label.shape, tuple(kept))
    label[(label == BUILDING) & (roof < 0)] = FIELD
    return roof, side, tuple(kept)


def _house_height(building: Rectangle) -> float:
    return 8 + 0.08 * building.length


def _grow_trees(
    rng: np.random.Generator,
    forest: NDArray[np.bool_],
    label: NDArray[np.uint8],
    parcels: Parcels,
    road_edge: Field,
    settled: Field,
) -> tuple[Field, NDArray[np.int32]]:
    """Height of the canopy and the number of the tree seen: forest, hedges, garden and roadside trees."""
    height, width = forest.shape
    y, x = np.mgrid[0:height:_SEED_SPACING, 0:width:_SEED_SPACING].reshape(2, -1)
    y = np.clip(y + rng.integers(0, _SEED_SPACING, len(y)), 0, height - 1)
    x = np.clip(x + rng.integers(0, _SEED_SPACING, len(x)), 0, width - 1)
    chance = rng.random(len(x))
    hedged = rng.random(parcels.count) < 0.22
    in_forest = forest[y, x]
    hedge = hedged[parcels.index[y, x]] & (parcels.margin[y, x] < 4) & (chance < 0.8)
    garden = (settled[y, x] > 0.25) & (chance < 0.045)
    alley = (road_edge[y, x] > 5) & (road_edge[y, x] < 12) & (chance < 0.05)
    lone = chance < 0.0025
    keep = (in_forest | hedge | garden | alley | lone) & (label[y, x] == FIELD) & (road_edge[y, x] > 3)
    y, x, in_forest = y[keep], x[keep], in_forest[keep]
    radius = np.where(in_forest, rng.uniform(4.2, 7.2, len(x)), rng.uniform(3.4, 5.6, len(x)))
    return _stamp_crowns(x, y, radius, rng.uniform(0.8, 1.25, len(x)) * (3.5 + radius), forest.shape)


def _stamp_crowns(
    x: NDArray[np.int64],
    y: NDArray[np.int64],
    radius: NDArray[np.float64],
    top: NDArray[np.float64],
    shape: tuple[int, int],
) -> tuple[Field, NDArray[np.int32]]:
    """The upper surface of many domes: its height, and which dome it is (-1: none)."""
    # Height and number share one integer, so that one unbuffered maximum finds both.
    surface = np.zeros(shape[0] * shape[1], np.int64)
    reach = math.ceil(radius.max(initial=1))
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            inside = (math.hypot(dx, dy) < radius) & (x + dx >= 0) & (x + dx < shape[1])
            inside &= (y + dy >= 0) & (y + dy < shape[0])
            which = np.flatnonzero(inside)
            dome = top[which] * np.sqrt(1 - (dx * dx + dy * dy) / radius[which] ** 2 * 0.96)
            key = (dome * 1024).astype(np.int64) << 24 | which
            np.maximum.at(surface, (y[which] + dy) * shape[1] + x[which] + dx, key)
    number = np.where(surface > 0, surface & 0xFFFFFF, -1).astype(np.int32)
    canopy = (surface >> 24).astype(np.float32) / np.float32(1024)
    return canopy.reshape(shape), number.reshape(shape)


def _settled(shape: tuple[int, int], built_up: list[Village]) -> Field:
    """1 inside villages, falling to 0 some way outside."""
    y, x = np.ogrid[0 : shape[0], 0 : shape[1]]
    field = np.zeros(shape, np.float32)
    for village in built_up:
        distance = np.hypot(x - village.center[0], y - village.center[1])
        field = np.maximum(field, np.clip(1.6 - distance / village.radius, 0, 1).astype(np.float32))
    return field


def _lake_level(rng: np.random.Generator, shape: tuple[int, int], mains: list[Line], settled: Field) -> Field:
    """Positive in lakes, which keep off main roads and villages."""
    level = fractal_noise(rng, shape, 230, 3) + 0.08 * smooth_noise(rng, shape, 16)
    points = np.concatenate([line.points for line in mains if line.kind == MAIN_ROAD])
    inside = ((points > -200) & (points < (shape[1] + 200, shape[0] + 200))).all(axis=1)
    points = points[inside][::3]
    y, x = np.mgrid[-_COARSE : shape[0] + 2 * _COARSE : _COARSE, -_COARSE : shape[1] + 2 * _COARSE : _COARSE]
    distance = np.hypot(x[..., None] - points[:, 0], y[..., None] - points[:, 1]).min(axis=-1)
    penalty = (3 * np.exp(-distance / 45)).astype(np.float32)
    level -= upsample(penalty, shape, _COARSE) + 4 * settled
    level -= np.quantile(level[::8, ::8], 0.925)
    return level


def _free_parts(lines: list[Line], blocked: NDArray[np.bool_]) -> list[Line]:
    """Of each line the longest run of points within the place and off ``blocked``, unless it is short."""
    height, width = blocked.shape
    parts = []
    for line in lines:
        x, y = np.round(line.points).astype(int).T
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        free = inside & ~blocked[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
        runs = np.flatnonzero(np.diff(np.concatenate([[0], free.astype(int), [0]]))).reshape(-1, 2)
        start, stop = max(runs.tolist(), key=lambda run: run[1] - run[0], default=(0, 0))
        if stop - start >= 6:
            parts.append(Line(line.points[start:stop], line.half_width[start:stop], line.kind))
    return parts
