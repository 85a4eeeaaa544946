"""Areas of interest: polygons of a file in any CRS, as the pixels of a scene that they cover."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from segbatch.errors import InputError
from segbatch.scenes.area import SceneArea, outline
from segbatch.scenes.placing import in_pixels, is_reprojected
from segbatch.scenes.polygons import PolygonFile, open_polygons, read_features, united
from segbatch.scenes.scene import SceneInfo

if TYPE_CHECKING:
    from shapely import Geometry

_HAIR = 0.01
"""Pixels by which an edge may move to save vertices after reprojecting."""


@dataclass(frozen=True, slots=True)
class AreaOfInterest:
    """The polygons of a file.

    Args:
        file: The file.
        polygons: What they cover together, valid, in the units of their CRS (x first).
    """

    file: PolygonFile
    polygons: "Geometry"


def read_aoi(path: str) -> AreaOfInterest:
    """Read the polygons of a GeoJSON, GeoPackage, Shapefile or any other format of GDAL's.

    All polygons count, whichever features they belong to; points and lines beside them do not. Polygons that cross
    themselves are repaired so that whatever their outline goes round is inside.

    Args:
        path: A file with one layer of polygons.

    Raises:
        InputError: The file is missing or unreadable, or does not hold one layer of polygons.
    """
    file = open_polygons(path, "Area of interest")
    geometries, _ = read_features(file)
    polygons = united(geometries)
    if polygons.is_empty:
        kinds = sorted({geometry.geom_type for geometry in geometries if geometry is not None})
        held = f"only {', '.join(kinds)} without area" if kinds else "nothing"
        raise InputError(f"Area of interest {path} holds {held}; draw the area as polygons.")
    return AreaOfInterest(file, polygons)


def aoi_in_pixels(aoi: AreaOfInterest, info: SceneInfo) -> SceneArea:
    """The part of a scene that lies in an area of interest; it may be empty.

    Raises:
        InputError: One has a CRS and the other has none, or the coordinates cannot be brought into the scene's CRS.
    """
    import shapely

    (pixels,) = in_pixels(aoi.file, np.array([aoi.polygons], object), info)
    if is_reprojected(aoi.file, info):
        pixels = shapely.simplify(pixels, _HAIR)
    inside = shapely.intersection(united(pixels), outline(info.window))
    return SceneArea(shapely.to_wkb(shapely.normalize(united(inside))))
