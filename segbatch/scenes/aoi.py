"""Areas of interest: polygons of a file in any CRS, as the pixels of a scene that they cover."""

import math
import os
from dataclasses import dataclass
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from segbatch.errors import InputError
from segbatch.scenes.area import SceneArea, edges_of, outline
from segbatch.scenes.scene import SceneInfo

if TYPE_CHECKING:
    from rasterio.crs import CRS
    from shapely import Geometry

_LON_LAT = ("EPSG:4326", "EPSG:4979")
"""What GDAL says of a GeoJSON that names no CRS, without and with heights."""

_SEGMENTS = 4096
"""Parts that an edge across the scene is cut into before it is reprojected, so that it bends as it should."""

_HAIR = 0.01
"""Pixels by which an edge may move to save vertices after reprojecting."""


@dataclass(frozen=True, slots=True)
class AreaOfInterest:
    """The polygons of a file.

    Args:
        path: The file.
        polygons: What they cover together, valid, in the units of their CRS (x first).
        crs: WKT, or None where the file names none.
        by_default: Whether the CRS is longitude and latitude of a GeoJSON, which may mean that none was named.
    """

    path: str
    polygons: "Geometry"
    crs: str | None
    by_default: bool


def read_aoi(path: str) -> AreaOfInterest:
    """Read the polygons of a GeoJSON, GeoPackage, Shapefile or any other format of GDAL's.

    All polygons count, whichever features they belong to; points and lines beside them do not. Polygons that cross
    themselves are repaired so that whatever their outline goes round is inside.

    Args:
        path: A file with one layer of polygons.

    Raises:
        InputError: The file is missing or unreadable, or does not hold one layer of polygons.
    """
    import pyogrio
    import shapely
    from pyogrio.errors import DataLayerError, DataSourceError
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    if "://" not in path and not path.startswith("/vsi") and not os.path.exists(path):
        raise InputError(f"Area of interest {path} does not exist.")
    try:
        layer = _polygon_layer(path, pyogrio.list_layers(path))
        driver = pyogrio.read_info(path, layer=layer)["driver"]
        meta, _, wkb, _ = pyogrio.raw.read(path, layer=layer, columns=[], force_2d=True)
        geometries = shapely.from_wkb(wkb, on_invalid="fix")  # GDAL lets outlines pass that are not closed
        crs = CRS.from_user_input(meta["crs"]).to_wkt() if meta["crs"] else None
    except (DataSourceError, DataLayerError, shapely.GEOSException, CRSError) as error:
        reason = str(error).splitlines()[0].split(";")[0].rstrip(".")  # what follows is advice for programmers
        raise InputError(f"Area of interest {path} cannot be read as polygons: {reason}.") from error
    if not np.isfinite(shapely.get_coordinates(geometries)).all():
        raise InputError(f"Area of interest {path} has a coordinate that is not a finite number; draw it anew.")
    polygons = _united(geometries)
    if polygons.is_empty:
        kinds = sorted({geometry.geom_type for geometry in geometries if geometry is not None})
        held = f"only {', '.join(kinds)} without area" if kinds else "nothing"
        raise InputError(f"Area of interest {path} holds {held}; draw the area as polygons.")
    return AreaOfInterest(path, polygons, crs, driver.startswith("GeoJSON") and meta["crs"] in _LON_LAT)


def aoi_in_pixels(aoi: AreaOfInterest, info: SceneInfo) -> SceneArea:
    """The part of a scene that lies in an area of interest; it may be empty.

    On a scene without a map, coordinates are pixels (x to the right, y down, whole numbers between pixels), as
    QuPath's GeoJSON has them: those of a file without a CRS, and those of a GeoJSON in longitude and latitude,
    because these are what a GeoJSON without a CRS is said to hold.

    Raises:
        InputError: One has a CRS and the other has none, or the coordinates cannot be brought into the scene's CRS.
    """
    import shapely

    if info.crs is None:
        if aoi.crs is not None and not aoi.by_default:
            raise InputError(
                f"Area of interest {aoi.path} has a CRS, but the scene {info.uri} has no map. "
                "Draw the area in the scene's pixels and save it as GeoJSON."
            )
        polygons = aoi.polygons
    elif aoi.crs is None:
        raise InputError(
            f"Area of interest {aoi.path} has no CRS, but the scene {info.uri} is on a map. "
            "Name the area's CRS (a Shapefile has it in a .prj file beside it)."
        )
    else:
        polygons = _onto_map(aoi, info)
    inside = shapely.intersection(polygons, outline(info.window))
    return SceneArea(shapely.to_wkb(shapely.normalize(_united([inside]))))


def _polygon_layer(path: str, layers: NDArray[np.object_]) -> str:
    # Layers of mixed geometry may hold polygons, so only what surely does not is left out.
    names = [name for name, kind in layers if kind is not None and "Point" not in kind and "LineString" not in kind]
    if len(names) > 1:
        raise InputError(
            f"Area of interest {path} has several layers of polygons ({', '.join(names)}); "
            "save the one to use in a file of its own."
        )
    if not names:
        kinds = ", ".join(sorted({kind or "no geometry" for _, kind in layers})) or "no layer"
        raise InputError(f"Area of interest {path} holds no polygons, but {kinds}; draw the area as polygons.")
    return str(names[0])


def _united(geometries: Any) -> "Geometry":
    """What the polygons among geometries cover together, valid."""
    import shapely

    parts = shapely.get_parts(geometries)
    while (shapely.get_type_id(parts) > shapely.GeometryType.POLYGON).any():
        parts = shapely.get_parts(parts)
    polygons = parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON]
    # The default method would turn what a self-overlapping outline covers twice into a hole.
    return shapely.union_all(shapely.make_valid(polygons, method="structure", keep_collapsed=False))


def _onto_map(aoi: AreaOfInterest, info: SceneInfo) -> "Geometry":
    """The polygons in pixels of a scene that has a CRS, as far as they are near it."""
    import shapely
    from rasterio.crs import CRS

    source, target = CRS.from_wkt(aoi.crs), CRS.from_wkt(info.crs)
    if source.is_geographic:
        _check_degrees(aoi)
    same = source == target
    polygons = aoi.polygons if same else _reprojected(aoi, info, source, target)
    bounds = shapely.transform(outline(info.window), lambda xy: _to_map(info.transform, xy)).bounds
    pixels = shapely.transform(_near(polygons, bounds, target), lambda xy: _to_pixels(info.transform, xy))
    return _united([pixels if same else shapely.simplify(pixels, _HAIR)])


def _check_degrees(aoi: AreaOfInterest) -> None:
    left, bottom, right, top = aoi.polygons.bounds
    if max(-left, right) > 360 or max(-bottom, top) > 90.0001:
        raise InputError(
            f"Area of interest {aoi.path} is in degrees by its CRS, but has coordinates from {left:g}, {bottom:g} "
            f"to {right:g}, {top:g}. Name the CRS that they are in; a GeoJSON is best saved in longitude and latitude."
        )


def _reprojected(aoi: AreaOfInterest, info: SceneInfo, source: "CRS", target: "CRS") -> "Geometry":
    import shapely
    from rasterio._err import CPLE_BaseError  # rasterio has no public name for what a failed transform raises
    from rasterio.errors import CRSError, RasterioError

    around = _bounds_in(source, info, target)
    polygons = aoi.polygons if around is None else _near(aoi.polygons, around, source)
    left, bottom, right, top = around or polygons.bounds
    dense = shapely.segmentize(polygons, math.hypot(right - left, top - bottom) / _SEGMENTS)
    try:
        moved = shapely.transform(dense, lambda xy: _transformed(xy, source, target))
    except (CPLE_BaseError, CRSError, RasterioError) as error:
        raise InputError(
            f"Area of interest {aoi.path} cannot be brought into the CRS of the scene {info.uri} "
            f"({shorten(str(error), 100)}). Draw it in that CRS, and no farther from the scene than the CRS reaches."
        ) from error
    x0, _, x1, _ = edges_of(moved).T
    if target.is_geographic and (np.abs(x1 - x0) > 180).any():
        raise InputError(
            f"Area of interest {aoi.path} goes across the 180th meridian or a pole, where the map of the scene "
            f"{info.uri} is cut. Split it there."
        )
    return _united([moved])


def _bounds_in(source: "CRS", info: SceneInfo, target: "CRS") -> tuple[float, float, float, float] | None:
    """Bounds of the scene in another CRS, or None where the scene reaches beyond what that CRS can express.

    Only what is near a scene is reprojected: projections return nonsense, or fail, far from the place they are made
    for, and a country's outline has many vertices.
    """
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import CRSError, RasterioError
    from rasterio.warp import transform_bounds

    steps = np.linspace(0, 1, 17)
    grid = np.stack(np.meshgrid(steps * info.width, steps * info.height), axis=-1).reshape(-1, 2)
    here = _to_map(info.transform, grid)
    try:
        there = _transformed(here, target, source)
        if source.is_geographic:  # PROJ knows of poles and of the 180th meridian
            left, bottom, right, top = transform_bounds(target, source, *here.min(axis=0), *here.max(axis=0))
            return left, bottom, right + 360 * (left > right), top
    except (CPLE_BaseError, CRSError, RasterioError):
        return None
    # Not PROJ's bounds, which follow the outline: of the whole world, some projections turn the inside out.
    (left, bottom), (right, top) = there.min(axis=0), there.max(axis=0)
    return left, bottom, right, top


def _near(polygons: "Geometry", bounds: tuple[float, float, float, float], crs: "CRS") -> "Geometry":
    """The part of polygons around bounds; longitudes may differ from the bounds' by whole turns."""
    import shapely

    left, bottom, right, top = bounds
    wide, high = 0.1 * (right - left), 0.1 * (top - bottom)  # bounds are those of some points only
    box = shapely.box(left - wide, bottom - high, right + wide, top + high)
    turned = [
        shapely.intersection(box, shapely.transform(polygons, lambda xy, turn=turn: xy + np.array([turn, 0.0])))
        for turn in ((-360, 0, 360) if crs.is_geographic else (0,))
    ]
    return _united(turned)


def _transformed(xy: NDArray[np.float64], source: "CRS", target: "CRS") -> NDArray[np.float64]:
    from rasterio.errors import TransformError
    from rasterio.warp import transform

    moved = np.column_stack(transform(source, target, xy[:, 0], xy[:, 1]))
    if not np.isfinite(moved).all():  # rasterio raises, but only as long as GDAL reports a process's first failures
        raise TransformError("a point has no place in it")
    return moved


def _to_map(transform: Affine, xy: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y = xy.T
    return np.column_stack(
        [transform.a * x + transform.b * y + transform.c, transform.d * x + transform.e * y + transform.f]
    )


def _to_pixels(transform: Affine, xy: NDArray[np.float64]) -> NDArray[np.float64]:
    # The origin goes first: millions of metres less millions of metres would cost digits if done last.
    linear = ~Affine(transform.a, transform.b, 0, transform.d, transform.e, 0)
    return _to_map(linear, xy - np.array([transform.c, transform.f]))
