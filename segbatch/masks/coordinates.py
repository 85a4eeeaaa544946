"""Where a class mask lies: CF attributes and the coordinates of its pixel centres."""

from typing import Any, NamedTuple

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS


class Axis(NamedTuple):
    """Coordinates of the pixel centres along one dimension.

    Args:
        name: ``x`` or ``y``.
        values: float64, one a column or row.
        attributes: CF attributes: units, standard name.
    """

    name: str
    values: NDArray[np.float64]
    attributes: dict[str, Any]


def spatial_reference(crs: str | None, transform: Affine) -> dict[str, Any] | None:
    """Attributes of the grid mapping variable as rioxarray and GDAL read them, or None without a map.

    A world file without a CRS has a transform alone.
    """
    if crs is None and transform == Affine.identity():
        return None
    # repr: the shortest text that gives the same float64 back.
    attributes: dict[str, Any] = {"GeoTransform": " ".join(repr(float(value)) for value in transform.to_gdal())}
    if crs is not None:
        attributes |= {"crs_wkt": crs, "spatial_ref": crs}
    return attributes


def coordinate_axes(
    width: int, height: int, crs: str | None, transform: Affine, pixel_size_um: float | None
) -> tuple[Axis, ...]:
    """The x and y axes of a scene; none where it is rotated, or has neither a map nor a pixel size."""
    if crs is None and transform == Affine.identity():
        if pixel_size_um is None:
            return ()
        transform = Affine.scale(pixel_size_um)
        x_attributes = y_attributes = {"units": "micrometer"}
    else:
        x_attributes, y_attributes = _map_attributes(crs)
    if transform.b or transform.d:
        return ()
    x = np.asarray(transform.c + transform.a * (np.arange(width) + 0.5), np.float64)
    y = np.asarray(transform.f + transform.e * (np.arange(height) + 0.5), np.float64)
    return Axis("x", x, {"axis": "X", **x_attributes}), Axis("y", y, {"axis": "Y", **y_attributes})


def _map_attributes(crs: str | None) -> tuple[dict[str, str], dict[str, str]]:
    if crs is None:
        return {}, {}
    parsed = CRS.from_wkt(crs)
    if parsed.is_geographic:
        return (
            {"standard_name": "longitude", "units": "degrees_east"},
            {"standard_name": "latitude", "units": "degrees_north"},
        )
    units = {"units": parsed.linear_units} if parsed.is_projected else {}
    return (
        {"standard_name": "projection_x_coordinate", **units},
        {"standard_name": "projection_y_coordinate", **units},
    )
