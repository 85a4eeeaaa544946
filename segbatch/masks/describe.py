"""What a class mask is, whichever of the two files holds it."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from segbatch.classes import NODATA, ClassTable
from segbatch.errors import InputError, SceneReadError
from segbatch.geometry import Window
from segbatch.masks.cog import read_cog_classes
from segbatch.masks.shards import is_store, open_class_mask, open_group, read_classes, read_window
from segbatch.scenes import SceneInfo, open_scene

_QUICK_LOOK = 1024
"""Side in pixels of the shrunken class mask that is searched for foreign values before work begins."""


def describe_mask(path: str | Path) -> tuple[SceneInfo, ClassTable | None]:
    """Size and map of a class mask, and its class table where it has one.

    Args:
        path: A Zarr store of segbatch, or any raster with class ids in its only band.

    Raises:
        InputError: It is neither.
    """
    if not is_store(path):
        with open_scene(str(path)) as reader:
            return reader.info, read_cog_classes(path)
    height, width = open_class_mask(path).shape
    attributes = dict(open_group(path)["spatial_ref"].attrs) if _has_map(path) else {}
    terms = [float(term) for term in str(attributes.get("GeoTransform", "0 1 0 0 0 1")).split()]
    info = SceneInfo(
        uri=str(path),
        width=width,
        height=height,
        dtype="uint8",
        band_names=("",),
        alpha=None,
        nodata=NODATA,
        crs=str(attributes["crs_wkt"]) if "crs_wkt" in attributes else None,
        transform=Affine.from_gdal(*terms),
        size=-1,
        modified=-1,
    )
    return info, read_classes(path)


def read_mask(path: str | Path, window: Window, num_classes: int) -> NDArray[np.uint8]:
    """(height, width) uint8 class ids of a window of a class mask, `NODATA` where it has none.

    Raises:
        SegbatchError: The file is damaged, or a value is neither a class id nor nodata.
    """
    if is_store(path):
        ids: NDArray[Any] = read_window(path, window)
    else:
        with open_scene(str(path)) as reader:
            values, valid = reader.read(window, (1,))
        ids = np.where(valid, values[0], NODATA)
    if problem := _foreign_ids(path, ids, num_classes):
        raise SceneReadError(problem)
    return ids.astype(np.uint8)


def check_ids(path: str | Path, num_classes: int) -> None:
    """Refuse a class mask of values that are no class ids, before work begins.

    They are looked for on a shrunken copy, so a rare one may slip through; reading finds it later. In a store there are
    none but what segbatch has written.

    Raises:
        InputError: There is such a value.
    """
    if is_store(path):
        return
    with open_scene(str(path)) as reader, suppress(SceneReadError):  # of a damaged mask the reading tells
        values, valid = reader.thumbnail(_QUICK_LOOK, (1,))
        if problem := _foreign_ids(path, values[0][valid], num_classes):
            raise InputError(problem)


def _foreign_ids(path: str | Path, ids: NDArray[Any], num_classes: int) -> str:
    """What is wrong with ids that are neither a class's nor `NODATA`; empty where there are none."""
    unknown = np.unique(ids[(ids != NODATA) & ((ids < 0) | (ids >= num_classes))])
    if not len(unknown):
        return ""
    listed = ", ".join(str(value) for value in unknown[:8]) + (", ..." if len(unknown) > 8 else "")
    return (
        f"Class mask {path} has values without a class: {listed}. Classes are 0 to {num_classes - 1}, nodata is "
        f"{NODATA}: list a class for each value, from 0 on, with --classes FILE."
    )


def _has_map(path: str | Path) -> bool:
    return "spatial_ref" in open_group(path)
