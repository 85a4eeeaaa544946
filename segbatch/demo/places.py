"""The demo's places as files: GeoTIFFs of images and labels."""

import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError

from segbatch.classes import IGNORE_INDEX
from segbatch.demo.landscape import BANDS, CLASSES, IMAGE_NODATA, make_landscape
from segbatch.errors import InputError

CRS = "EPSG:32632"
PIXEL_SIZE = 0.5
"""Metres."""

_RECIPE = "1"
"""Changes when `make_landscape` paints something else, so that files of an older version are made anew."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place of the demo.

    Args:
        name: Stem of its files.
        seed: Of the landscape.
        width: Columns.
        height: Rows.
        easting: Left border in `CRS`.
        northing: Upper border in `CRS`.
    """

    name: str
    seed: int
    width: int
    height: int
    easting: float
    northing: float


TRAIN = (
    Place("brook", 3, 1024, 1024, 612_000, 5_331_500),
    Place("mill", 1, 1024, 1024, 618_400, 5_329_200),
    Place("ridge", 7, 1024, 1024, 612_600, 5_341_300),
    Place("ford", 8, 1024, 1024, 604_900, 5_327_700),
    Place("orchard", 9, 1024, 1024, 621_800, 5_343_900),
    Place("common", 11, 1024, 1024, 630_200, 5_330_400),
)
VALIDATE = (Place("marsh", 5, 1024, 1024, 607_300, 5_336_800),)
# Sides that no core, tile or stride divides, so that the map's borders are tried too.
PREDICT = (Place("valley", 2, 2000, 1500, 624_700, 5_334_100),)


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """Files of a place.

    Args:
        image: GeoTIFF, uint8, the bands of `BANDS`, nodata `IMAGE_NODATA`.
        label: GeoTIFF, uint8, ids of `CLASSES`, nodata `IGNORE_INDEX`.
    """

    image: Path
    label: Path


@dataclass(frozen=True, slots=True)
class DemoFiles:
    """Files of the demo.

    Args:
        train: Places to learn from.
        validate: Places that choose the best epoch.
        predict: Places to map, seen by neither.
    """

    train: tuple[LabelledImage, ...]
    validate: tuple[LabelledImage, ...]
    predict: tuple[LabelledImage, ...]


def write_demo(folder: Path) -> DemoFiles:
    """Write images and labels of all places to ``images/`` and ``labels/`` below ``folder``.

    Places whose files are there and whole are left as they are.

    Args:
        folder: Made when it does not exist.

    Raises:
        InputError: The folder cannot be written.
    """
    try:
        train, validate, predict = (
            tuple(_write_place(place, folder) for place in places) for places in (TRAIN, VALIDATE, PREDICT)
        )
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error}. Choose another folder with --out.") from error
    return DemoFiles(train, validate, predict)


def _write_place(place: Place, folder: Path) -> LabelledImage:
    files = LabelledImage(folder / "images" / f"{place.name}.tif", folder / "labels" / f"{place.name}.tif")
    if _is_whole(files.image, place) and _is_whole(files.label, place):
        return files
    image, label = make_landscape(place.seed, place.width, place.height)
    _write(files.image, image, place, IMAGE_NODATA, BANDS)
    _write(files.label, label[None], place, IGNORE_INDEX, ("class",))
    return files


def _is_whole(path: Path, place: Place) -> bool:
    """Whether a file of this recipe is there with the pixels that were written."""
    if not path.is_file():
        return False
    try:
        with rasterio.open(path) as source:
            tags: dict[str, str] = source.tags()
            return tags.get("SEGBATCH_DEMO") == _recipe(place) and tags.get("CRC32") == _checksum(source.read())
    except RasterioError:
        return False


def _write(path: Path, bands: NDArray[np.uint8], place: Place, nodata: int, names: tuple[str, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    profile = {
        "driver": "GTiff",
        "width": place.width,
        "height": place.height,
        "count": len(bands),
        "dtype": "uint8",
        "crs": CRS,
        "transform": Affine(PIXEL_SIZE, 0, place.easting, 0, -PIXEL_SIZE, place.northing),
        "nodata": nodata,
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "compress": "deflate",
    }
    if len(bands) == len(BANDS):
        # Without ALPHA=NO GDAL would tag the fourth band as alpha.
        profile |= {"photometric": "RGB", "alpha": "NO", "interleave": "pixel", "predictor": 2}
    try:
        with rasterio.open(partial, "w", **profile) as target:
            target.write(bands)
            target.descriptions = names
            target.update_tags(SEGBATCH_DEMO=_recipe(place), CRC32=_checksum(bands))
            if len(bands) == 1:
                palette = CLASSES.palette()
                target.write_colormap(1, {i: tuple(map(int, palette[i])) for i in range(len(CLASSES))})
            else:
                target.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.undefined]
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _recipe(place: Place) -> str:
    return (
        f"recipe {_RECIPE}, seed {place.seed}, {place.width} x {place.height}, {CRS} {place.easting} {place.northing}"
    )


def _checksum(bands: NDArray[np.uint8]) -> str:
    return f"{zlib.crc32(bands.tobytes()):08x}"
