"""Where labelled parts of scenes lie to each other: within an image, and on the map."""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from affine import Affine

from segbatch.geometry import Window, gaps, reach
from segbatch.scenes.catalog import SceneRef
from segbatch.scenes.scene import SceneInfo

if TYPE_CHECKING:
    from rasterio.crs import CRS

_HAIR = 0.1
"""Pixels by which rasters on the map may be off: neighbours that share an edge do not overlap for rounding."""

Bounds = tuple[float, float, float, float]


class Part(NamedTuple):
    """A scene for training or validation, or a part of one, opened.

    Args:
        ref: As listed.
        info: What is known of the scene.
    """

    ref: SceneRef
    info: SceneInfo

    @property
    def window(self) -> Window:
        """The part."""
        return self.ref.crop(self.info.width, self.info.height)


class Encounter(NamedTuple):
    """The two parts of two canvases that are nearest to each other.

    Args:
        one: A part of the first.
        other: A part of the second.
        gap: Pixels of the second between them; negative where they overlap.
    """

    one: Part
    other: Part
    gap: int


class Atlas:
    """The parts' canvases, and how to get from one to another.

    A canvas is what shares pixel coordinates: an image by whatever name, and images without a map that have one label.

    Args:
        parts: All of them.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        by_image = {part.ref.image: part for part in parts}
        images = list(by_image)
        names: defaultdict[object, list[int]] = defaultdict(list)
        for number, (image, part) in enumerate(by_image.items()):
            names[os.path.realpath(image)].append(number)
            if part.ref.label is not None and part.info.crs is None:
                names["label", os.path.realpath(part.ref.label), part.info.width, part.info.height].append(number)
        joined = components(len(images), [(same[0], number) for same in names.values() for number in same[1:]])
        self._canvas = dict(zip(images, joined, strict=True))
        infos: dict[int, SceneInfo] = {}
        for image, canvas in self._canvas.items():
            infos.setdefault(canvas, by_image[image].info)
        self._infos = [infos[canvas] for canvas in range(len(infos))]

    def canvas(self, part: Part) -> int:
        """Number of the canvas that a part is on."""
        return self._canvas[part.ref.image]

    def place(self, part: Part, window: Window) -> tuple[object, ...]:
        """Equal for windows of canvases whose pixels coincide on the map, as those of two dates on one grid."""
        info = part.info
        if info.crs is None:
            return self.canvas(part), window
        size = max(abs(info.transform.a), abs(info.transform.b))
        return info.crs, *(round(edge / size, 1) for edge in _bounds(info, window))

    def near(self, margin: int) -> set[tuple[int, int]]:
        """Pairs of canvases of which the first comes within so many pixels of the second, and each with itself."""
        found = {(canvas, canvas) for canvas in range(len(self._infos))}
        mapped = [(canvas, info) for canvas, info in enumerate(self._infos) if info.crs is not None]
        for crs in {info.crs for _, info in mapped}:
            assert crs is not None
            boxes = np.array([_bounds_in(info, info.window, crs) or [np.nan] * 4 for _, info in mapped])
            for canvas, info in mapped:
                if info.crs != crs:
                    continue
                left, bottom, right, top = _bounds(info, info.window.buffered(margin))
                close = (boxes[:, 0] < right) & (boxes[:, 2] > left) & (boxes[:, 1] < top) & (boxes[:, 3] > bottom)
                found |= {(mapped[index][0], canvas) for index in np.flatnonzero(close)}
        return found

    def onto(self, window: Window, source: int, target: int) -> Window | None:
        """The pixels of a canvas that a window of another touches; None where they have nothing to do with each other.

        A window that is turned or bent on the way becomes the rectangle around it.
        """
        if source == target:
            return window
        here, there = self._infos[source], self._infos[target]
        bounds = _bounds_in(here, window, there.crs) if here.crs and there.crs else None
        if bounds is None:
            return None
        left, top, right, bottom = _around(~there.transform, bounds)
        col_off, row_off = int(np.floor(left + _HAIR)), int(np.floor(top + _HAIR))
        col_end, row_end = int(np.ceil(right - _HAIR)), int(np.ceil(bottom - _HAIR))
        return Window(col_off, row_off, max(1, col_end - col_off), max(1, row_end - row_off))

    def encounters(
        self, ones: Sequence[Part], others: Sequence[Part], margin: int, tile: int = 1
    ) -> Iterator[Encounter]:
        """Of each two canvases that come near each other, the parts that are nearest.

        Args:
            ones: Parts, projected onto the canvases of the others.
            others: Parts.
            margin: Pixels within which canvases are near.
            tile: Of the others, what tiles of this side show counts instead of the part.
        """
        first, second = self._sorted(ones), self._sorted(others)
        for source, target in sorted(self.near(margin)):
            if source not in first or target not in second:
                continue
            moved = [(part, self.onto(part.window, source, target)) for part in first[source]]
            seen = [(part, window) for part, window in moved if window is not None]
            table = gaps([window for _, window in seen], [shown(p.window, p.info, tile) for p in second[target]])
            if table.size:
                row, col = np.unravel_index(np.argmin(table), table.shape)
                yield Encounter(seen[row][0], second[target][col], int(table[row, col]))

    def _sorted(self, parts: Sequence[Part]) -> dict[int, list[Part]]:
        found: defaultdict[int, list[Part]] = defaultdict(list)
        for part in parts:
            found[self.canvas(part)].append(part)
        return found


def shown(window: Window, info: SceneInfo, tile: int) -> Window:
    """The pixels of a scene that tiles of a window show."""
    inside = reach(window, tile).intersection(info.window)
    assert inside is not None  # the window itself is
    return inside


def components(count: int, pairs: Sequence[tuple[int, int]]) -> list[int]:
    """For each of ``count`` things, the number of the component that pairs join it to, in order of first members."""
    parent = list(range(count))

    def root(thing: int) -> int:
        while parent[thing] != thing:
            parent[thing] = thing = parent[parent[thing]]
        return thing

    for one, other in pairs:
        first, second = sorted((root(one), root(other)))
        parent[second] = first
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(thing), len(numbers)) for thing in range(count)]


def _bounds(info: SceneInfo, window: Window) -> Bounds:
    """Left, bottom, right and top of a window on its map."""
    return _around(info.transform, (window.col_off, window.row_off, window.col_end, window.row_end))


def _around(transform: Affine, box: Bounds) -> Bounds:
    xs, ys = zip(*(transform @ (x, y) for x in box[::2] for y in box[1::2]), strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _bounds_in(info: SceneInfo, window: Window, crs: str) -> Bounds | None:
    """Bounds of a window in another CRS; None where it has no place in it."""
    from rasterio.warp import transform_bounds

    from segbatch.scenes.raster import GDAL_ERRORS

    assert info.crs is not None
    source, target = _parsed(info.crs), _parsed(crs)
    here = _bounds(info, window)
    if info.crs == crs or source == target:
        return here
    try:
        left, bottom, right, top = transform_bounds(source, target, *here)
    except GDAL_ERRORS:
        return None
    if not np.isfinite([left, bottom, right, top]).all():
        return None
    return left, bottom, right + 360 * (target.is_geographic and left > right), top


@lru_cache(maxsize=64)
def _parsed(crs: str) -> "CRS":
    from rasterio.crs import CRS

    return CRS.from_wkt(crs)
