"""Labels: ground truth on the grid of their scene."""

from typing import Self

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from segbatch.classes import IGNORE_INDEX, LabelMap
from segbatch.errors import InputError, SceneReadError
from segbatch.geometry import Window
from segbatch.scenes.scene import Pixels, SceneInfo, open_scene

_QUICK_LOOK = 1024
"""Side in pixels of the shrunken label that is searched for unknown values before work begins."""


class LabelReader:
    """A label raster read as class ids, on the grid of its scene.

    A label on another grid, as one in another CRS or of another pixel size, is resampled by nearest neighbour; pixels
    of the scene that it does not cover have no label.

    Args:
        uri: Path or URL.
        label_map: From label values to class ids.
        scene: Whose label it is.
    """

    def __init__(self, uri: str, label_map: LabelMap, scene: SceneInfo) -> None:
        self._reader = open_scene(uri)
        self._map, self._nodata = label_map, self._reader.info.nodata
        if not fits(scene, self._reader.info):
            self._reader.close()
            self._reader = open_scene(uri, grid=scene)

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Class ids of a window inside the scene, (height, width), `IGNORE_INDEX` where there is no label.

        Raises:
            SceneReadError: The file is damaged, or a value stands for no class.
        """
        return self._ids(self._reader.read(window, (1,)))

    def thumbnail(self, max_side: int) -> NDArray[np.uint8]:
        """Class ids of the whole label, shrunk so that no side exceeds ``max_side`` pixels."""
        return self._ids(self._reader.thumbnail(max_side, (1,)))

    def close(self) -> None:
        """Release the file."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _ids(self, pixels: Pixels) -> NDArray[np.uint8]:
        values, nodata = pixels.values[0], self._nodata
        assert np.issubdtype(values.dtype, np.integer)  # check_label refused all else
        hidden = _hidden(pixels, self._reader.info.nodata)
        unknown = self._map.unknown(values[~hidden], nodata)
        if unknown:
            raise SceneReadError(_unknown_message(self._reader.info.uri, unknown, self._map))
        ids = self._map.apply(values, nodata)
        ids[hidden] = IGNORE_INDEX
        return ids


def check_label(scene: SceneInfo, uri: str, label_map: LabelMap) -> str:
    """Refuse a label that does not fit its scene, before work begins.

    Values are checked on a shrunken copy, so a rare unknown value may slip through; reading finds it later.

    Returns:
        What users should know of the label; empty if nothing.

    Raises:
        InputError: Says what does not fit.
    """
    with open_scene(uri) as reader:
        label = reader.info
        if not np.issubdtype(np.dtype(label.dtype), np.integer):
            raise InputError(f"Label {uri} holds {label.dtype}; class labels are whole numbers.")
        if len(label.data_bands) != 1:
            raise InputError(f"Label {uri} has {len(label.data_bands)} bands; segbatch takes a single one.")
        if label_map.values is None and label.nodata is not None and 0 <= label.nodata < label_map.num_classes:
            raise InputError(
                f"Label {uri} says that {label.nodata:g} is nodata, but it is a class id too. Say with label_values "
                "which values are classes."
            )
        on_maps = bool(scene.crs and label.crs)
        if not on_maps and (label.width, label.height) != (scene.width, scene.height):
            raise InputError(
                f"Label {uri} is {label.width} x {label.height} pixels, but its scene {scene.uri} is "
                f"{scene.width} x {scene.height}, and without a CRS of both there is no telling where it belongs."
            )
        if on_maps and not _overlap(scene, label):
            raise InputError(f"Label {uri} lies elsewhere than its scene {scene.uri}: no pixel of it has a label.")
        try:
            pixels = reader.thumbnail(_QUICK_LOOK, (1,))
        except SceneReadError as error:
            raise InputError(str(error)) from error
        values = pixels.values[0][~_hidden(pixels, label.nodata)]
        unknown = label_map.unknown(values, label.nodata)
        if unknown:
            raise InputError(_unknown_message(uri, unknown, label_map))
    if fits(scene, label):
        return ""
    return f"Label {uri} is on another grid than its scene: resampling it by nearest neighbour."


def fits(scene: SceneInfo, label: SceneInfo) -> bool:
    """Whether a label can be read pixel by pixel beside its scene."""
    if (label.width, label.height) != (scene.width, scene.height):
        return False
    return not (scene.crs and label.crs) or same_grid(scene, label)


def _overlap(scene: SceneInfo, label: SceneInfo) -> bool:
    """Whether two rasters on maps may have a place in common, by their outlines in the label's CRS.

    Not in the scene's: a label may reach beyond where that makes sense.
    """
    from rasterio.crs import CRS
    from rasterio.warp import transform_bounds

    from segbatch.scenes.raster import GDAL_ERRORS

    assert scene.crs is not None
    assert label.crs is not None
    try:
        here = transform_bounds(CRS.from_wkt(scene.crs), CRS.from_wkt(label.crs), *_bounds(scene))
    except GDAL_ERRORS as error:
        raise InputError(f"Label {label.uri} cannot be brought onto its scene {scene.uri}: {error}") from error
    there = _bounds(label)
    if not np.isfinite(here).all() or here[0] > here[2]:  # across the antimeridian
        return True
    return all(max(here[axis], there[axis]) < min(here[axis + 2], there[axis + 2]) for axis in (0, 1))


def _bounds(info: SceneInfo) -> tuple[float, float, float, float]:
    corners = ((0, 0), (info.width, 0), (0, info.height), (info.width, info.height))
    xs, ys = zip(*(info.transform @ corner for corner in corners), strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def same_grid(one: SceneInfo, other: SceneInfo) -> bool:
    """Whether two rasters have one CRS and transform (corners within a tenth of a pixel)."""
    from rasterio.crs import CRS

    if one.crs and other.crs and CRS.from_wkt(one.crs) != CRS.from_wkt(other.crs):
        return False
    to_pixels: Affine = ~one.transform
    corners = [(0, 0), (one.width, 0), (0, one.height), (one.width, one.height)]
    for corner in corners:
        col, row = to_pixels @ (other.transform @ corner)
        if max(abs(col - corner[0]), abs(row - corner[1])) > 0.1:
            return False
    return True


def _hidden(pixels: Pixels, nodata: float | None) -> NDArray[np.bool_]:
    """Pixels that the label's alpha band or mask hides; its nodata value is the label map's affair."""
    return ~pixels.valid if nodata is None else ~pixels.valid & (pixels.values[0] != nodata)


def _unknown_message(uri: str, unknown: list[int], label_map: LabelMap) -> str:
    listed = ", ".join(str(value) for value in unknown[:8]) + (", ..." if len(unknown) > 8 else "")
    return (
        f"Label {uri} has values without a class: {listed}. Classes are 0 to {label_map.num_classes - 1} "
        "(255 is ignored); map others with label_values."
    )
