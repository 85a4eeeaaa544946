"""Labels that are polygons: burned as class ids where and when they are read."""

import os
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbatch.classes import IGNORE_INDEX, LabelMap
from segbatch.errors import InputError, SceneReadError
from segbatch.geometry import Window
from segbatch.scenes.area import edges_of, outline, scan
from segbatch.scenes.attributes import Naming, find_classes
from segbatch.scenes.placing import bounds_of, check_maps, in_pixels
from segbatch.scenes.polygons import PolygonFile, open_polygons, polygons_among, read_features, touches
from segbatch.scenes.scene import SceneInfo

_MOST_IN_MEMORY = 50_000
"""Features of a file that are kept; of one with more, each window reads its own, if the file has an index."""


@dataclass(frozen=True, slots=True)
class _Source:
    """A file of polygons and the classes that its features are.

    Args:
        file: The file.
        naming: Tells the class of a feature.
        background: Class id of what no polygon covers.
    """

    file: PolygonFile
    naming: Naming
    background: int

    @property
    def by_window(self) -> bool:
        """Whether a window reads only what is near it."""
        return self.file.indexed and self.file.features > _MOST_IN_MEMORY


@dataclass(frozen=True, slots=True, eq=False)
class _Drawing:
    """Polygons in pixels of a scene in the order of drawing: the largest first, of equals the first in the file.

    Args:
        ids: Class id of each, uint8; `IGNORE_INDEX` for those that stand for no class.
        edges: Of all, (edges, 4), as `edges_of` gives them.
        ends: Where each one's edges end.
        bounds: Of each: left, top, right, bottom.
        left_out: Features that are not drawn, because they have no area or no value.
    """

    ids: NDArray[np.uint8]
    edges: NDArray[np.float64]
    ends: NDArray[np.intp]
    bounds: NDArray[np.float64]
    left_out: int

    def burn(self, window: Window, background: int) -> NDArray[np.uint8]:
        """Class ids of a window, (height, width); the same for a pixel in whichever window it is."""
        ids = np.full((window.height, window.width), background, np.uint8)
        left, top, right, bottom = self.bounds.T
        near = np.flatnonzero(
            (right > window.col_off) & (left < window.col_end) & (bottom > window.row_off) & (top < window.row_end)
        )
        for index in near.tolist():
            part = _around(self.bounds[index]).intersection(window)
            if part is not None:
                own = slice(self.ends[index - 1] if index else 0, self.ends[index])
                ids[part.relative_to(window).slices][scan(self.edges[own], part)] = self.ids[index]
        return ids

    def shrunk(self, across: float, down: float) -> "_Drawing":
        """The same on coarser pixels."""
        scale = np.array([across, down, across, down])
        return replace(self, edges=self.edges * scale, bounds=self.bounds * scale)


class VectorLabel:
    """Polygons read as class ids, on the grid of their scene; see `LabelReader`."""

    def __init__(self, uri: str, label_map: LabelMap, scene: SceneInfo) -> None:
        self._source = _open(uri, label_map)
        check_maps(self._source.file, scene)
        self._scene = scene
        self._whole: _Drawing | None = None

    def read(self, window: Window) -> NDArray[np.uint8]:
        """See `LabelReader.read`."""
        try:
            drawing = _draw(self._source, self._scene, window) if self._source.by_window else self._drawing()
        except InputError as problem:  # it could be read when the run began
            raise SceneReadError(str(problem)) from problem
        return drawing.burn(window, self._source.background)

    def thumbnail(self, max_side: int) -> NDArray[np.uint8]:
        """See `LabelReader.thumbnail`."""
        scene = self._scene
        factor = max(1.0, scene.width / max_side, scene.height / max_side)
        small = Window(0, 0, max(1, round(scene.width / factor)), max(1, round(scene.height / factor)))
        shrunk = self._drawing().shrunk(small.width / scene.width, small.height / scene.height)
        return shrunk.burn(small, self._source.background)

    def close(self) -> None:
        """Release the polygons."""
        self._whole = None

    def _drawing(self) -> _Drawing:
        if self._whole is None:
            self._whole = _draw_whole(self._source, self._scene)
        return self._whole


def check_vector_label(scene: SceneInfo, uri: str, label_map: LabelMap) -> str:
    """Refuse polygons that are no label of their scene; see `check_label`."""
    source = _open(uri, label_map)
    file = source.file
    check_maps(file, scene)
    left_out = 0
    if source.by_window:
        bounds = bounds_of(file, scene, scene.window)
        found = bounds is None or touches(file, bounds)
    else:
        drawing = _draw_whole(source, scene)
        found, left_out = bool(len(drawing.ids)), drawing.left_out
    lacking = (
        "without area" if source.naming.attribute is None else f"without area or without {source.naming.attribute}"
    )
    if not found and label_map.background is None:
        if left_out == file.features:
            raise InputError(
                f"Label {uri}: all of its {left_out} features are {lacking}. Draw polygons, each with a class."
            )
        taken = "" if scene.crs else " Its coordinates are taken for pixels, since the scene has no map."
        raise InputError(f"Label {uri} lies elsewhere than its scene {scene.uri}: no pixel of it has a label.{taken}")
    notes = []
    if not found:
        notes.append(f"No polygon of label {uri} lies on its scene {scene.uri}: all of it is background.")
    if left_out:
        notes.append(f"Label {uri}: {left_out} feature{'s' if left_out > 1 else ''} {lacking} left out.")
    return "\n".join(notes)


def _open(uri: str, label_map: LabelMap) -> _Source:
    try:
        status = os.stat(uri)
        version = status.st_size, status.st_mtime_ns
    except OSError:  # of a remote file nothing is known, and of a missing one what follows tells
        version = None
    names = None if label_map.classes is None else label_map.classes.names
    return _open_version(uri, version, label_map, names)


# Blocks, strips and tiles ask for the same file again and again, each with a reader of its own. What is kept goes by
# the file's version, and by the class names, which label maps do not compare.
@lru_cache(maxsize=64)
def _open_version(uri: str, version: Any, label_map: LabelMap, names: tuple[str, ...] | None) -> _Source:
    file = open_polygons(uri, "Label", version)
    background = IGNORE_INDEX if label_map.background is None else label_map.background
    return _Source(file, find_classes(file, label_map), background)


@lru_cache(maxsize=4)
def _draw_whole(source: _Source, scene: SceneInfo) -> _Drawing:
    return _draw(source, scene, scene.window)


def _draw(source: _Source, scene: SceneInfo, window: Window) -> _Drawing:
    """Polygons near a window, which depend on the file and the whole scene alone.

    Raises:
        InputError: The file is damaged, or cannot be brought into the scene's CRS.
    """
    import shapely

    file, naming = source.file, source.naming
    bounds = bounds_of(file, scene, window) if file.indexed else None
    columns = () if naming.attribute is None else (naming.attribute,)
    geometries, fields = read_features(file, columns, bounds)
    ids = naming.class_ids(fields[0] if fields else np.full(len(geometries), None))
    parts, feature = polygons_among(geometries)
    named = ids[feature] >= 0
    drawn = np.zeros(len(geometries), bool)
    drawn[feature[named]] = True
    parts, ids = parts[named], ids[feature[named]]
    order = np.argsort(-shapely.area(parts), kind="stable")
    pixels = in_pixels(file, parts[order], scene)
    kept = ~shapely.is_empty(pixels) & shapely.intersects(pixels, outline(window))
    pixels = pixels[kept]
    edges, owner = edges_of(pixels)
    ends = np.cumsum(np.bincount(owner, minlength=len(pixels)))
    return _Drawing(
        ids[order][kept].astype(np.uint8), edges, ends, shapely.bounds(pixels), left_out=int((~drawn).sum())
    )


def _around(bounds: NDArray[np.float64]) -> Window:
    """The pixels that bounds touch."""
    left, top = np.floor(bounds[:2]).astype(int).tolist()
    right, bottom = np.ceil(bounds[2:]).astype(int).tolist()
    return Window(left, top, max(1, right - left), max(1, bottom - top))
