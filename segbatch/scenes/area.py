"""The pixels of a scene that lie in an area of interest."""

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from segbatch.geometry import Window

if TYPE_CHECKING:
    from shapely import Geometry

_CROSSINGS_AT_ONCE = 2**20
"""Bounds the memory of drawing a window, however many edges cross it."""


@dataclass(frozen=True, slots=True)
class SceneArea:
    """The part of a scene that lies in an area of interest; nothing beyond the scene does.

    A pixel belongs to it if its centre lies inside the polygons. A centre exactly on an edge belongs to the
    polygon on its right, or below it, so areas that share an edge share no pixel.

    Args:
        wkb: The polygons in pixels of the scene. Windows ask for them often: they are parsed once a process.
    """

    wkb: bytes = field(repr=False)

    @property
    def is_empty(self) -> bool:
        """Whether the scene and the area have nothing in common."""
        return bool(_opened(self.wkb).geometry.is_empty)

    @property
    def digest(self) -> str:
        """Equal for areas whose masks are equal because their polygons are."""
        return hashlib.sha256(self.wkb).hexdigest()[:16]

    def intersects(self, window: Window) -> bool:
        """Whether the window may have pixels inside; False is certain."""
        import shapely

        return bool(shapely.intersects(_opened(self.wkb).geometry, outline(window)))

    def covers(self, window: Window) -> bool:
        """Whether all pixels of the window are inside; True is certain."""
        import shapely

        return bool(shapely.covers(_opened(self.wkb).geometry, outline(window)))

    def pixels(self, window: Window) -> float:
        """About how many pixels of the window are inside: the polygons' area there."""
        import shapely

        if self.covers(window):
            return float(window.area)
        if not self.intersects(window):
            return 0.0
        return float(shapely.clip_by_rect(_opened(self.wkb).geometry, *outline(window).bounds).area)

    def mask(self, window: Window) -> NDArray[np.bool_]:
        """Which pixels of the window are inside, (height, width); the same for a pixel in whichever window it is."""
        shape = window.height, window.width
        if not self.intersects(window):
            return np.zeros(shape, bool)
        if self.covers(window):
            return np.ones(shape, bool)
        return scan(_opened(self.wkb).edges, window)


def outline(window: Window) -> "Geometry":
    """The rectangle that a window's pixels fill."""
    import shapely

    return shapely.box(window.col_off, window.row_off, window.col_end, window.row_end)


def edges_of(geometries: "Geometry | NDArray[np.object_]") -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Edges of all outlines as x0, y0, x1, y1, and the index of the geometry of each, in order.

    Each goes from its smaller y on: an edge that polygons share is one edge.
    """
    import shapely

    parts, geometry = shapely.get_parts(geometries, return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    inner = ring[:-1] == ring[1:]
    edges = np.hstack([points[:-1], points[1:]])[inner]
    return np.where(edges[:, 1:2] <= edges[:, 3:4], edges, edges[:, [2, 3, 0, 1]]), geometry[part[ring[:-1][inner]]]


@dataclass(frozen=True, slots=True)
class _Opened:
    geometry: "Geometry"
    edges: NDArray[np.float64]


@lru_cache(maxsize=8)
def _opened(wkb: bytes) -> _Opened:
    import shapely

    geometry = shapely.from_wkb(wkb)
    shapely.prepare(geometry)
    return _Opened(geometry, edges_of(geometry)[0])


def scan(edges: NDArray[np.float64], window: Window) -> NDArray[np.bool_]:
    """Which pixels of a window have their centres inside outlines, (height, width).

    The even-odd rule: along a row, each edge that is passed turns outside into inside or back. GDAL's rasteriser counts
    coordinates from the window's corner, so that rounding decides differently in different windows where a centre
    lies on an edge. Here an edge meets a row at a column that depends on these two alone.

    Args:
        edges: As `edges_of` gives them.
        window: Pixels.
    """
    near = (edges[:, 1] < window.row_end) & (edges[:, 3] > window.row_off)
    edges = edges[near & (edges[:, [0, 2]].min(axis=1) < window.col_end)]
    turns = np.zeros(window.area, np.uint8)
    size = max(1, _CROSSINGS_AT_ONCE // window.height)
    for start in range(0, len(edges), size):
        np.bitwise_xor.at(turns, _crossings(edges[start : start + size], window), np.uint8(1))
    return np.logical_xor.accumulate(turns.reshape(window.height, window.width).view(bool), axis=1)


def _crossings(edges: NDArray[np.float64], window: Window) -> NDArray[np.int64]:
    """Flat indices into the window: the first pixel whose centre is not left of an edge, for each row of each edge."""
    x0, y0, x1, y1 = edges.T
    first, end = (np.clip(np.ceil(y - 0.5), window.row_off, window.row_end).astype(np.int64) for y in (y0, y1))
    rows = end - first
    edge = np.repeat(np.arange(len(edges)), rows)
    row = np.arange(len(edge)) + np.repeat(first - (np.cumsum(rows) - rows), rows)
    x = x0[edge] + (row + 0.5 - y0[edge]) / (y1 - y0)[edge] * (x1 - x0)[edge]
    col = np.maximum(np.ceil(x - 0.5), window.col_off).astype(np.int64)
    inside = col < window.col_end
    return (row[inside] - window.row_off) * window.width + col[inside] - window.col_off
