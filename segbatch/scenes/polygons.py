"""Polygons of a file: GeoJSON, GeoPackage, Shapefile or any other format of GDAL's."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segbatch.errors import InputError
from segbatch.scenes.remote import refuse_redacted

if TYPE_CHECKING:
    from shapely import Geometry

_LON_LAT = ("EPSG:4326", "EPSG:4979")
"""What GDAL says of a GeoJSON that names no CRS, without and with heights."""

Bounds = tuple[float, float, float, float]
Polygons = NDArray[np.object_]


@dataclass(frozen=True, slots=True)
class PolygonFile:
    """A file with one layer of polygons.

    Args:
        path: The file.
        what: What it is for, as messages begin: "Area of interest" or "Label".
        layer: Name of the layer.
        crs: WKT, or None where the file names none.
        by_default: Whether the CRS is longitude and latitude of a GeoJSON, which may mean that none was named.
        attributes: Names of the layer's attributes.
        features: How many there are, or -1 where that takes reading them.
        indexed: Whether what lies in a rectangle is found without reading the rest.
        version: Tells files of the same path apart that are not the same.
    """

    path: str
    what: str
    layer: str
    crs: str | None
    by_default: bool
    attributes: tuple[str, ...]
    features: int
    indexed: bool
    version: Any = None


def open_polygons(path: str, what: str, version: Any = None) -> PolygonFile:
    """Look into a GeoJSON, GeoPackage, Shapefile or any other format of GDAL's.

    Raises:
        InputError: The file is missing or unreadable, or has not one layer that may hold polygons.
    """
    import pyogrio
    from pyogrio.errors import DataLayerError, DataSourceError
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    refuse_redacted(path)
    if "://" not in path and not path.startswith("/vsi") and not os.path.exists(path):
        raise InputError(f"{what} {path} does not exist.")
    try:
        layer = _polygon_layer(path, what, pyogrio.list_layers(path))
        info = pyogrio.read_info(path, layer=layer)
        crs = CRS.from_user_input(info["crs"]).to_wkt() if info["crs"] else None
    except (DataSourceError, DataLayerError, CRSError) as error:
        raise _unreadable(path, what, error) from error
    return PolygonFile(
        path=path,
        what=what,
        layer=layer,
        crs=crs,
        by_default=info["driver"].startswith("GeoJSON") and info["crs"] in _LON_LAT,
        attributes=tuple(str(name) for name in info["fields"]),
        features=int(info["features"]),
        indexed=bool(info["capabilities"]["fast_spatial_filter"]),
        version=version,
    )


def read_features(
    file: PolygonFile, columns: Sequence[str] = (), bounds: Bounds | None = None
) -> tuple[Polygons, list[NDArray[Any]]]:
    """Geometries of the file's features and some of their attributes, in the file's order.

    Args:
        file: The file.
        columns: Attributes to read, in the file's order.
        bounds: Only features around this rectangle, in the units of the file's CRS; longitudes may differ by whole
            turns.

    Raises:
        InputError: The file is damaged.
    """
    import shapely

    if bounds is None:
        _, geometries, fields = _read(file, columns)
    else:
        found = [_read(file, columns, box) for box in _turned(file, bounds)]
        _, first = np.unique(np.concatenate([ids for ids, _, _ in found]), return_index=True)
        geometries = np.concatenate([geometries for _, geometries, _ in found])[first]
        fields = [np.concatenate(parts)[first] for parts in zip(*(fields for _, _, fields in found), strict=True)]
    if not np.isfinite(shapely.get_coordinates(geometries)).all():
        raise InputError(f"{file.what} {file.path} has a coordinate that is not a finite number; draw it anew.")
    return geometries, fields


def read_attributes(file: PolygonFile, columns: Sequence[str]) -> list[NDArray[Any]]:
    """Attributes of all features, one array each.

    Args:
        file: The file.
        columns: Attributes to read, in the file's order.

    Raises:
        InputError: The file is damaged.
    """
    return _read(file, columns, geometry=False)[2]


def touches(file: PolygonFile, bounds: Bounds) -> bool:
    """Whether a feature lies around a rectangle, in the units of the file's CRS; geometries are not read.

    Raises:
        InputError: The file is damaged.
    """
    return any(len(_read(file, (), box, geometry=False, most=1)[0]) for box in _turned(file, bounds))


def polygons_among(geometries: Polygons) -> tuple[Polygons, NDArray[np.intp]]:
    """The polygons among geometries and their parts, one by one and valid, and the index of each one's geometry.

    Polygons that cross themselves are repaired so that whatever their outline goes round is inside.
    """
    import shapely

    parts, index = shapely.get_parts(geometries, return_index=True)
    while (shapely.get_type_id(parts) > shapely.GeometryType.POLYGON).any():
        parts, inner = shapely.get_parts(parts, return_index=True)
        index = index[inner]
    areal = shapely.get_type_id(parts) == shapely.GeometryType.POLYGON
    parts, index = parts[areal], index[areal]
    broken = ~shapely.is_valid(parts)
    # The default method would turn what a self-overlapping outline covers twice into a hole.
    parts[broken] = shapely.make_valid(parts[broken], method="structure", keep_collapsed=False)
    parts, inner = shapely.get_parts(parts, return_index=True)
    kept = ~shapely.is_empty(parts)
    return parts[kept], index[inner][kept]


def united(geometries: Any) -> "Geometry":
    """What the polygons among geometries cover together, valid."""
    import shapely

    return shapely.union_all(polygons_among(np.atleast_1d(np.asarray(geometries, object)))[0])


def _read(
    file: PolygonFile,
    columns: Sequence[str],
    box: Bounds | None = None,
    geometry: bool = True,
    most: int | None = None,
) -> tuple[NDArray[np.int64], Polygons, list[NDArray[Any]]]:
    """Ids, geometries (none unless asked for) and attributes of features."""
    import pyogrio
    import shapely
    from pyogrio.errors import DataLayerError, DataSourceError

    try:
        _, ids, wkb, fields = pyogrio.raw.read(
            file.path,
            layer=file.layer,
            columns=list(columns),
            read_geometry=geometry,
            force_2d=True,
            bbox=box,
            max_features=most,
            return_fids=True,
        )
        # GDAL lets outlines pass that are not closed.
        geometries = shapely.from_wkb(wkb, on_invalid="fix") if geometry else np.empty(0, object)
    except (DataSourceError, DataLayerError, shapely.GEOSException) as error:
        raise _unreadable(file.path, file.what, error) from error
    return ids, geometries, list(fields)


def _turned(file: PolygonFile, bounds: Bounds) -> list[Bounds]:
    """A rectangle, and of longitudes the same a turn to the west and to the east."""
    from rasterio.crs import CRS

    left, bottom, right, top = bounds
    turns = (-360, 0, 360) if file.crs is not None and CRS.from_wkt(file.crs).is_geographic else (0,)
    return [(left + turn, bottom, right + turn, top) for turn in turns]


def _polygon_layer(path: str, what: str, layers: NDArray[np.object_]) -> str:
    # Layers of mixed geometry may hold polygons, so only what surely does not is left out.
    names = [name for name, kind in layers if kind is not None and "Point" not in kind and "LineString" not in kind]
    if len(names) > 1:
        raise InputError(
            f"{what} {path} has several layers of polygons ({', '.join(names)}); "
            "save the one to use in a file of its own."
        )
    if not names:
        kinds = ", ".join(sorted({kind or "no geometry" for _, kind in layers})) or "no layer"
        raise InputError(f"{what} {path} holds no polygons, but {kinds}; draw polygons.")
    return str(names[0])


def _unreadable(path: str, what: str, error: Exception) -> InputError:
    reason = str(error).splitlines()[0].split(";")[0].rstrip(".")  # what follows is advice for programmers
    return InputError(f"{what} {path} cannot be read as polygons: {reason}.")
