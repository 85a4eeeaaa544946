"""Where polygons of any CRS lie in the pixels of a scene."""

import math
from textwrap import shorten
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from segbatch.errors import InputError
from segbatch.geometry import Window
from segbatch.scenes.area import edges_of, outline
from segbatch.scenes.polygons import Bounds, PolygonFile, Polygons, united
from segbatch.scenes.scene import SceneInfo

if TYPE_CHECKING:
    from rasterio.crs import CRS

_SEGMENTS = 4096
"""Parts that an edge across the scene is cut into before it is reprojected, so that it bends as it should."""


def in_pixels(file: PolygonFile, polygons: Polygons, scene: SceneInfo) -> Polygons:
    """Polygons in pixels of a scene, as far as they are near it; what is not near is empty.

    On a scene without a map, coordinates are pixels (x to the right, y down, whole numbers between pixels), as
    QuPath's GeoJSON has them: those of a file without a CRS, and those of a GeoJSON in longitude and latitude,
    because these are what a GeoJSON without a CRS is said to hold.

    Args:
        file: Where they are from.
        polygons: Valid, in the units of its CRS.
        scene: The scene.

    Raises:
        InputError: One has a CRS and the other has none, or the coordinates cannot be brought into the scene's CRS.
    """
    import shapely
    from rasterio.crs import CRS

    check_maps(file, scene)
    if scene.crs is None or not len(polygons):
        return polygons
    source, target = CRS.from_wkt(file.crs), CRS.from_wkt(scene.crs)
    if source.is_geographic:
        _check_degrees(file, polygons)
    if source != target:
        polygons = _reprojected(file, polygons, scene, source, target)
    bounds = shapely.transform(outline(scene.window), lambda xy: _to_map(scene.transform, xy)).bounds
    near = _near(polygons, bounds, target)
    return shapely.transform(near, lambda xy: _to_pixels(scene.transform, xy))


def check_maps(file: PolygonFile, scene: SceneInfo) -> None:
    """Refuse a file whose coordinates cannot be told to be on the scene's map, or its pixels.

    Raises:
        InputError: One has a CRS and the other has none.
    """
    if scene.crs is None and file.crs is not None and not file.by_default:
        raise InputError(
            f"{file.what} {file.path} has a CRS, but the scene {scene.uri} has no map. "
            "Draw it in the scene's pixels and save it as GeoJSON."
        )
    if scene.crs is not None and file.crs is None:
        raise InputError(
            f"{file.what} {file.path} has no CRS, but the scene {scene.uri} is on a map. "
            "Name the CRS that it is drawn in (a Shapefile has it in a .prj file beside it)."
        )


def bounds_of(file: PolygonFile, scene: SceneInfo, window: Window) -> Bounds | None:
    """Bounds around a window in the units of a file's CRS, or None where that CRS cannot express the whole scene."""
    from rasterio.crs import CRS

    if scene.crs is None or file.crs is None:
        return window.col_off, window.row_off, window.col_end, window.row_end
    source, target = CRS.from_wkt(file.crs), CRS.from_wkt(scene.crs)
    # Where the scene as a whole has no bounds, edges bend as finely as all the polygons read ask for.
    found = _bounds_in(source, scene, target, window) if _bounds_in(source, scene, target, scene.window) else None
    return None if found is None else _wider(found)


def is_reprojected(file: PolygonFile, scene: SceneInfo) -> bool:
    """Whether the file's CRS is another than the scene's, so that outlines are reprojected."""
    from rasterio.crs import CRS

    return bool(scene.crs and file.crs) and CRS.from_wkt(file.crs) != CRS.from_wkt(scene.crs)


def _check_degrees(file: PolygonFile, polygons: Polygons) -> None:
    import shapely

    left, bottom, right, top = shapely.total_bounds(polygons)
    if max(-left, right) > 360 or max(-bottom, top) > 90.0001:
        raise InputError(
            f"{file.what} {file.path} is in degrees by its CRS, but has coordinates from {left:g}, {bottom:g} "
            f"to {right:g}, {top:g}. Name the CRS that they are in; a GeoJSON is best saved in longitude and latitude."
        )


def _reprojected(file: PolygonFile, polygons: Polygons, scene: SceneInfo, source: "CRS", target: "CRS") -> Polygons:
    import shapely
    from rasterio._err import CPLE_BaseError  # rasterio has no public name for what a failed transform raises
    from rasterio.errors import CRSError, RasterioError

    around = _bounds_in(source, scene, target, scene.window)
    near = polygons if around is None else _near(polygons, around, source)
    left, bottom, right, top = around or shapely.total_bounds(near)
    dense = shapely.segmentize(near, math.hypot(right - left, top - bottom) / _SEGMENTS)
    try:
        moved = shapely.transform(dense, lambda xy: _transformed(xy, source, target))
    except (CPLE_BaseError, CRSError, RasterioError) as error:
        raise InputError(
            f"{file.what} {file.path} cannot be brought into the CRS of the scene {scene.uri} "
            f"({shorten(str(error), 100)}). Draw it in that CRS, and no farther from the scene than the CRS reaches."
        ) from error
    x0, _, x1, _ = edges_of(moved)[0].T
    if target.is_geographic and (np.abs(x1 - x0) > 180).any():
        raise InputError(
            f"{file.what} {file.path} goes across the 180th meridian or a pole, where the map of the scene "
            f"{scene.uri} is cut. Split it there."
        )
    return _repaired(moved)


def _bounds_in(source: "CRS", scene: SceneInfo, target: "CRS", window: Window) -> Bounds | None:
    """Bounds of a window in another CRS, or None where it reaches beyond what that CRS can express.

    Only what is near a scene is reprojected: projections return nonsense, or fail, far from the place they are made
    for, and a country's outline has many vertices.
    """
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import CRSError, RasterioError
    from rasterio.warp import transform_bounds

    steps = np.linspace(0, 1, 17)
    cols, rows = window.col_off + steps * window.width, window.row_off + steps * window.height
    here = _to_map(scene.transform, np.stack(np.meshgrid(cols, rows), axis=-1).reshape(-1, 2))
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


def _wider(bounds: Bounds) -> Bounds:
    """With what may lie between the points that bounds were taken of."""
    left, bottom, right, top = bounds
    wide, high = 0.1 * (right - left), 0.1 * (top - bottom)
    return left - wide, bottom - high, right + wide, top + high


def _near(polygons: Polygons, bounds: Bounds, crs: "CRS") -> Polygons:
    """The parts of polygons around bounds, empty where there is none; longitudes may differ by whole turns."""
    import shapely

    left, bottom, right, top = _wider(bounds)
    box = shapely.box(left, bottom, right, top)
    near = np.full(len(polygons), shapely.Polygon(), object)
    x0, y0, x1, y1 = shapely.bounds(polygons).T
    for turn in (-360, 0, 360) if crs.is_geographic else (0,):
        hit = (x0 + turn <= right) & (x1 + turn >= left) & (y0 <= top) & (y1 >= bottom)
        inside = (x0 + turn >= left) & (x1 + turn <= right) & (y0 >= bottom) & (y1 <= top)
        moved = polygons[hit]
        if turn:
            moved = shapely.transform(moved, lambda xy, turn=turn: xy + np.array([turn, 0.0]))
        cut = ~inside[hit]
        moved[cut] = _repaired(shapely.intersection(box, moved[cut]))
        again = ~shapely.is_empty(near[hit])
        moved[again] = shapely.union(near[hit][again], moved[again])
        near[hit] = moved
    return near


def _repaired(geometries: Polygons) -> Polygons:
    """What the polygons among each geometry's parts cover, valid."""
    import shapely

    areal = np.isin(shapely.get_type_id(geometries), (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON))
    broken = ~(areal & shapely.is_valid(geometries))
    geometries[broken] = [united(geometry) for geometry in geometries[broken]]
    return geometries


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
