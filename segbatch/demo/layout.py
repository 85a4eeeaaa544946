"""Where rivers, roads and buildings lie: plane geometry in pixels (x to the right, y down), without a raster."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAIN_ROAD, STREET, TRACK = range(3)

_STEP = 10.0
"""Pixels between the points of a line."""


@dataclass(frozen=True, slots=True)
class Line:
    """A river or road.

    Args:
        points: float64 (n, 2), x and y.
        half_width: float64 (n,), pixels at each point.
        kind: What road it is.
    """

    points: NDArray[np.float64]
    half_width: NDArray[np.float64]
    kind: int = MAIN_ROAD

    @property
    def normals(self) -> NDArray[np.float64]:
        """Unit vectors to the left of the line, (n, 2)."""
        tangents = np.gradient(self.points, axis=0)
        tangents /= np.hypot(tangents[:, 0], tangents[:, 1])[:, None]
        return np.stack([tangents[:, 1], -tangents[:, 0]], axis=1)


@dataclass(frozen=True, slots=True)
class Village:
    """A built-up area around a point of a main road.

    Args:
        center: (x, y).
        radius: Pixels.
    """

    center: tuple[float, float]
    radius: float


@dataclass(frozen=True, slots=True)
class Rectangle:
    """The footprint of a building or car.

    Args:
        x: Center.
        y: Center.
        length: Pixels along ``angle``.
        depth: Pixels across.
        angle: Radians.
    """

    x: float
    y: float
    length: float
    depth: float
    angle: float


def river(rng: np.random.Generator, width: int, height: int) -> Line:
    """A meandering river that crosses the place (a sine-generated curve)."""
    reach = 1.6 * math.hypot(width, height)
    s = np.arange(-reach, reach, _STEP)
    wavelength = rng.uniform(480, 620)
    swing = rng.uniform(0.75, 1.05) * (1 + 0.25 * np.sin(s / rng.uniform(200, 300)))
    heading = rng.uniform(0, math.pi) + swing * np.sin(2 * math.pi * s / wavelength + rng.uniform(0, 6))
    points = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=1) * _STEP, axis=0)
    target = rng.uniform(0.25, 0.75, 2) * (width, height)
    points += target - points[len(points) // 2]
    half_width = rng.uniform(13, 18) * (1 + 0.22 * np.sin(s / 90) + 0.15 * np.sin(s / 37))
    return Line(points, half_width)


def main_roads(rng: np.random.Generator, width: int, height: int, angle: float) -> list[Line]:
    """Roads through the whole place: one along ``angle``, the others across it."""
    across = math.ceil(width * height / 2e6)
    roads = [_road(rng, rng.uniform(0.35, 0.65, 2) * (width, height), angle, width + height)]
    for index in range(across):
        # Spread along the first road, so that two roads do not run side by side.
        share = (index + rng.uniform(0.35, 0.65)) / across - 0.5
        along = share * 0.8 * max(width, height) * np.array([math.cos(angle), math.sin(angle)])
        middle = np.array([width, height]) / 2 + along
        roads.append(_road(rng, middle, angle + math.pi / 2 + rng.uniform(-0.2, 0.2), width + height))
    return roads


def _road(rng: np.random.Generator, through: NDArray[np.float64], angle: float, reach: float) -> Line:
    t = np.arange(-reach, reach, _STEP)
    bend = rng.uniform(20, 45) * np.sin(t / rng.uniform(130, 200) + rng.uniform(0, 6))
    bend += rng.uniform(5, 12) * np.sin(t / rng.uniform(50, 70) + rng.uniform(0, 6))
    along, across = (math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))
    points = through + t[:, None] * np.array(along) + bend[:, None] * np.array(across)
    return Line(points, np.full(len(points), rng.uniform(4.4, 5.2)))


def villages(
    rng: np.random.Generator, roads: list[Line], rivers: list[Line], width: int, height: int
) -> tuple[list[Village], list[Line]]:
    """Villages on main roads, away from the river and from each other, and their streets."""
    count = max(1, round(width * height / 1.1e6))
    wet = np.concatenate([line.points for line in rivers])
    found: list[Village] = []
    streets: list[Line] = []
    for index in range(count):
        road = roads[index % len(roads)]
        radius = rng.uniform(200, 250)
        inside = (road.points > 0.16 * np.array([width, height])) & (road.points < 0.84 * np.array([width, height]))
        positions = np.flatnonzero(inside.all(axis=1))
        if not len(positions):
            continue
        room = np.array([_room(road.points[i], wet, found) for i in positions])
        best = positions[int(np.argmax(np.minimum(room, radius + 60) + rng.uniform(0, 40, len(room))))]
        found.append(Village((float(road.points[best, 0]), float(road.points[best, 1])), radius))
        others = np.concatenate([other.points for other in roads if other is not road] + [s.points for s in streets])
        streets += [
            street for street in _streets(rng, road, int(best), radius) if not _runs_beside(street.points, others)
        ]
    return found, streets


def _runs_beside(points: NDArray[np.float64], others: NDArray[np.float64]) -> bool:
    distance = np.hypot(points[:, None, 0] - others[:, 0], points[:, None, 1] - others[:, 1]).min(axis=1)
    return bool((distance < 45).mean() > 0.45)


def _room(point: NDArray[np.float64], wet: NDArray[np.float64], taken: list[Village]) -> float:
    to_water = np.hypot(*(wet - point).T).min()
    to_village = min((math.dist(point, v.center) - v.radius for v in taken), default=math.inf)
    return float(min(to_water, to_village))


def _streets(rng: np.random.Generator, road: Line, position: int, radius: float) -> list[Line]:
    """A warped grid of streets that follows the main road."""
    normals = road.normals
    streets = []
    offset = rng.uniform(85, 105)
    for side in (-1, 1):
        for rank in range(1, int(radius / offset) + 1):
            shift = side * rank * offset
            half = math.sqrt(radius**2 - shift**2) * rng.uniform(0.75, 1.0)
            span = slice(max(0, position - int(half / _STEP)), position + int(half / _STEP) + 1)
            streets.append(_street(rng, road.points[span] + shift * normals[span]))
    for start in np.arange(-radius * 0.8, radius * 0.8, rng.uniform(120, 150)):
        index = int(np.clip(position + start / _STEP, 0, len(normals) - 1))
        half = math.sqrt(radius**2 - start**2)
        t = np.arange(-half * rng.uniform(0.5, 1.0), half * rng.uniform(0.5, 1.0), _STEP)
        streets.append(_street(rng, road.points[index] + t[:, None] * normals[index]))
    return [street for street in streets if len(street.points) > 4]


def _street(rng: np.random.Generator, points: NDArray[np.float64]) -> Line:
    return Line(points, np.full(len(points), rng.uniform(3.2, 3.9)), STREET)


def tracks(rng: np.random.Generator, roads: list[Line], width: int, height: int) -> list[Line]:
    """Farm tracks that leave main roads sideways."""
    lines = []
    for road in roads:
        inside = np.flatnonzero(((road.points > 0) & (road.points < (width, height))).all(axis=1))
        normals = road.normals
        for index in inside[rng.integers(0, 28) :: 34]:
            side = rng.choice([-1, 1])
            t = np.arange(0, rng.uniform(250, 520), _STEP)
            sway = rng.uniform(6, 16) * np.sin(t / rng.uniform(60, 110))
            normal = normals[index] * side
            points = road.points[index] + t[:, None] * normal + sway[:, None] * normal[::-1] * (1, -1)
            lines.append(Line(points, np.full(len(points), rng.uniform(3.1, 3.5)), TRACK))
    return lines


def building_sites(rng: np.random.Generator, lines: list[Line], built_up: list[Village]) -> list[Rectangle]:
    """Candidate footprints beside roads: houses in villages, a few farm yards with halls elsewhere.

    They may overlap each other, roads or water: whoever places them checks.
    """
    sites = []
    for line in lines:
        if line.kind == TRACK:
            continue
        normals, s = line.normals, rng.uniform(0, 20)
        while s < (len(line.points) - 1) * _STEP:
            index = int(s / _STEP)
            (x, y), normal = line.points[index], normals[index]
            village = any(math.dist((x, y), v.center) < v.radius for v in built_up)
            farm = not village and rng.random() < 0.035
            s += rng.uniform(25, 34)
            if not village and not farm:
                continue
            for side in (-1, 1):
                for rank in range(3 if farm else 1):
                    length, depth = (rng.uniform(38, 62), rng.uniform(20, 28)) if farm else _house(rng)
                    away = line.half_width[index] + rng.uniform(5, 10) + depth / 2 + rank * 40
                    slide = rng.uniform(-30, 30) if farm else 0.0
                    tangent = math.atan2(normal[0], -normal[1])
                    angle = tangent + rng.normal(0, 0.06) + (math.pi / 2 if rng.random() < 0.25 else 0)
                    center = (x, y) + side * away * normal + slide * np.array([-normal[1], normal[0]])
                    sites.append(Rectangle(float(center[0]), float(center[1]), length, depth, angle))
    return sites


def _house(rng: np.random.Generator) -> tuple[float, float]:
    if rng.random() < 0.1:
        return rng.uniform(30, 42), rng.uniform(18, 24)
    return rng.uniform(17, 26), rng.uniform(14, 18)


def cars(rng: np.random.Generator, lines: list[Line]) -> list[Rectangle]:
    """Cars on paved roads, at the right-hand side."""
    found = []
    for line in lines:
        if line.kind == TRACK:
            continue
        normals, count = line.normals, len(line.points)
        for index in rng.integers(0, count, count // 14):
            normal, side = normals[index], rng.choice([-1, 1])
            x, y = line.points[index] + side * 0.45 * line.half_width[index] * normal
            angle = math.atan2(normal[0], -normal[1])
            found.append(Rectangle(float(x), float(y), rng.uniform(7, 9), 3.4, angle))
    return found
