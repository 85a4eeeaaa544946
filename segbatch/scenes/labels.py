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
    """A label raster read as class ids."""

    def __init__(self, uri: str, label_map: LabelMap) -> None:
        self._reader = open_scene(uri)
        self._map = label_map

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
        values, nodata = pixels.values[0], self._reader.info.nodata
        assert np.issubdtype(values.dtype, np.integer)  # check_label refused all else
        hidden = _hidden(pixels, nodata)
        unknown = self._map.unknown(values[~hidden], nodata)
        if unknown:
            raise SceneReadError(_unknown_message(self._reader.info.uri, unknown, self._map))
        ids = self._map.apply(values, nodata)
        ids[hidden] = IGNORE_INDEX
        return ids


def check_label(scene: SceneInfo, uri: str, label_map: LabelMap) -> None:
    """Refuse a label that does not fit its scene, before work begins.

    Values are checked on a shrunken copy, so a rare unknown value may slip through; reading finds it later.

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
        if (label.width, label.height) != (scene.width, scene.height):
            raise InputError(
                f"Label {uri} is {label.width} x {label.height} pixels, but its scene {scene.uri} is "
                f"{scene.width} x {scene.height}. Bring the label onto the scene's grid."
            )
        if scene.crs and label.crs and not same_grid(scene, label):
            raise InputError(
                f"Label {uri} is not on the grid of its scene {scene.uri}: CRS or transform differ. "
                "Bring the label onto the scene's grid."
            )
        try:
            pixels = reader.thumbnail(_QUICK_LOOK, (1,))
        except SceneReadError as error:
            raise InputError(str(error)) from error
        values = pixels.values[0][~_hidden(pixels, label.nodata)]
        unknown = label_map.unknown(values, label.nodata)
        if unknown:
            raise InputError(_unknown_message(uri, unknown, label_map))


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
