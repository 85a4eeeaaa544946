"""Labels: ground truth on the grid of their scene, from rasters and from polygons."""

from pathlib import PurePosixPath
from typing import Self

import numpy as np
from numpy.typing import NDArray

from segbatch.classes import LabelMap
from segbatch.geometry import Window
from segbatch.scenes.raster_labels import RasterLabel, check_raster_label
from segbatch.scenes.scene import SceneInfo
from segbatch.scenes.vector_labels import VectorLabel, check_vector_label

_VECTOR_ENDINGS = (".geojson", ".json", ".geojsonl", ".gpkg", ".shp", ".fgb", ".gml", ".kml", ".zip")
"""By the name, not by a look inside: a file may be a remote one, and a GeoPackage may hold both."""


class LabelReader:
    """A label read as class ids, on the grid of its scene.

    A raster on another grid, as one in another CRS or of another pixel size, is resampled by nearest neighbour; pixels
    of the scene that it does not cover have no label. Polygons are burned as they are read: a pixel belongs to the
    smallest polygon that its centre lies in.

    Args:
        uri: Path or URL.
        label_map: From what the label holds to class ids.
        scene: Whose label it is.

    Raises:
        InputError: There is no such file, or it is no label.
    """

    def __init__(self, uri: str, label_map: LabelMap, scene: SceneInfo) -> None:
        kind = VectorLabel if is_vector(uri) else RasterLabel
        self._label: VectorLabel | RasterLabel = kind(uri, label_map, scene)

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Class ids of a window inside the scene, (height, width), `IGNORE_INDEX` where there is no label.

        Raises:
            SceneReadError: The file is damaged, or a value stands for no class.
        """
        return self._label.read(window)

    def thumbnail(self, max_side: int) -> NDArray[np.uint8]:
        """Class ids of the whole label, shrunk so that no side exceeds ``max_side`` pixels."""
        return self._label.thumbnail(max_side)

    def close(self) -> None:
        """Release the file."""
        self._label.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def check_label(scene: SceneInfo, uri: str, label_map: LabelMap) -> str:
    """Refuse a label that does not fit its scene, before work begins.

    Returns:
        What users should know of the label; empty if nothing.

    Raises:
        InputError: Says what does not fit.
    """
    return (check_vector_label if is_vector(uri) else check_raster_label)(scene, uri, label_map)


def is_vector(uri: str) -> bool:
    """Whether a label is a file of polygons, by its name."""
    return PurePosixPath(uri.partition("?")[0]).suffix.lower() in _VECTOR_ENDINGS
