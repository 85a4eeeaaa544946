"""The class mask of a scene as a Cloud Optimized GeoTIFF.

DEFLATE, because nearly every TIFF reader opens it; ZSTD is an extension that many lack.
"""

import json
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile
from rasterio.windows import Window as RasterioWindow

from segbatch.classes import MAX_CLASSES, NODATA, ClassTable
from segbatch.errors import InputError, SegbatchError
from segbatch.geometry import Window
from segbatch.masks.shards import open_class_mask, read_window
from segbatch.masks.staging import remove_leftovers, staging_folder

CLASSES_TAG = "SEGBATCH_CLASSES"
"""Metadata item with the class table as JSON."""

_TILE = 512
"""Side of the file's internal tiles."""

_STRIDE = 8 * _TILE
"""Side of the windows copied at a time: 16 MiB, and whole tiles, so that none is compressed twice."""

_CACHE_BYTES = 64 << 20
"""GDAL's block cache while a file is written; by default it would grow to a share of the machine's memory."""

# rasterio.shutil.copy lets GDAL's own errors through, and rasterio has no public name for them.
# A micrograph has no map, and its class mask has none either.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)

_GDAL_ERRORS = (RasterioError, CPLE_BaseError)


def write_cog(
    store_path: str | Path,
    out_path: str | Path,
    *,
    classes: ClassTable,
    crs: str | None,
    transform: Affine,
    pixel_size_um: float | None,
    overviews: Literal["mode", "nearest"],
) -> None:
    """Write the class mask of a store as a COG, atomically and with the same bytes each time, and read it back.

    The file has nodata 255, a colour table and the class table as JSON in the metadata item `CLASSES_TAG`;
    the category names, for which TIFF has no place, are in the sidecar ``<name>.aux.xml`` that GDAL and QGIS
    read. Memory does not grow with the scene. A scene without a map gives the same file without a CRS, with
    the resolution tags where the pixel size is known.

    Args:
        store_path: The Zarr store.
        out_path: The TIFF. One process at a time writes it; leftovers of a killed one are removed.
        classes: Class table.
        crs: WKT, or None.
        transform: From (column, row) to CRS units; the identity without a map.
        pixel_size_um: Micrometres a pixel, or None.
        overviews: ``mode``: the most frequent class of the valid pixels; ``nearest``.

    Raises:
        InputError: There is no store at ``store_path``.
        SegbatchError: The file cannot be written.
    """
    height, width = open_class_mask(store_path).shape
    out_path = Path(out_path)
    sidecar = out_path.with_name(f"{out_path.name}.aux.xml")
    with _errors_naming(out_path), rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES):
        remove_leftovers(out_path)
        with staging_folder(out_path) as folder:
            plain, cog, names = folder / "plain.tif", folder / "cog.tif", folder / "names.xml"
            profile = _profile(width, height, crs, transform)
            with rasterio.open(plain, "w", **profile) as dataset:
                dataset.write_colormap(1, _colormap(classes))
                dataset.update_tags(**_tags(classes, pixel_size_um))
                for window in _windows(width, height):
                    dataset.write(read_window(store_path, window), 1, window=_rasterio_window(window))
            rasterio.shutil.copy(
                plain,
                cog,
                driver="COG",
                COMPRESS="DEFLATE",
                BLOCKSIZE=_TILE,
                OVERVIEW_RESAMPLING=overviews.upper(),
                BIGTIFF="IF_SAFER",
            )
            plain.unlink()
            _verify(cog, store_path)
            names.write_bytes(_category_names(classes))
            # The TIFF goes last: where it is, all is.
            names.replace(sidecar)
            cog.replace(out_path)


def read_cog_classes(path: str | Path) -> ClassTable | None:
    """The class table of a TIFF: segbatch's own, else from category names and colour table, else None.

    A category without a name is called after its id, and one without a color gets one.

    Raises:
        InputError: The file cannot be opened, or its category names repeat.
    """
    try:
        with rasterio.open(path) as dataset:
            text = dataset.tags().get(CLASSES_TAG)
            if text is not None:
                return ClassTable.from_json(json.loads(text))
            if dataset.count == 0:
                return None
            band = _band_as_vrt(dataset)
        names = [(category.text or "").strip() for category in band.iterfind("CategoryNames/Category")][:MAX_CLASSES]
        while names and not names[-1]:
            names.pop()
        if len(names) < 2:
            return None
        colors: list[str | None] = [_hex_color(entry) for entry in band.iterfind("ColorTable/Entry")]
        colors += [None] * len(names)
        return ClassTable.from_items([(name or str(index), colors[index]) for index, name in enumerate(names)])
    except _GDAL_ERRORS as error:
        raise InputError(f"{path} cannot be read as an image: {error}") from error
    except (InputError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"The class table of {path} cannot be used: {error}") from error


def _profile(width: int, height: int, crs: str | None, transform: Affine) -> dict[str, Any]:
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "width": width,
        "height": height,
        "count": 1,
        "dtype": "uint8",
        "nodata": NODATA,
        "tiled": True,
        "blockxsize": _TILE,
        "blockysize": _TILE,
        "compress": "deflate",
        "zlevel": 1,
        "sparse_ok": True,
        "bigtiff": "if_safer",
    }
    if crs is not None:
        profile["crs"] = CRS.from_wkt(crs)
    if crs is not None or transform != Affine.identity():
        profile["transform"] = transform
    return profile


def _colormap(classes: ClassTable) -> dict[int, tuple[int, int, int, int]]:
    palette = classes.palette().tolist()
    return {index: (*palette[index], 255) for index in range(len(classes))} | {NODATA: (0, 0, 0, 0)}


def _tags(classes: ClassTable, pixel_size_um: float | None) -> dict[str, str]:
    tags = {CLASSES_TAG: json.dumps(classes.to_json())}
    if pixel_size_um is not None:
        pixels_per_cm = repr(1e4 / pixel_size_um)
        tags |= {
            "TIFFTAG_XRESOLUTION": pixels_per_cm,
            "TIFFTAG_YRESOLUTION": pixels_per_cm,
            "TIFFTAG_RESOLUTIONUNIT": "3",  # centimetre
        }
    return tags


def _category_names(classes: ClassTable) -> bytes:
    """GDAL's sidecar with the names of the classes."""
    root = ET.Element("PAMDataset")
    names = ET.SubElement(ET.SubElement(root, "PAMRasterBand", band="1"), "CategoryNames")
    for name in classes.names:
        ET.SubElement(names, "Category").text = name
    ET.indent(root)
    return ET.tostring(root, encoding="unicode").encode() + b"\n"


def _verify(cog: Path, store_path: str | Path) -> None:
    """Read the file back: GDAL only logs what goes wrong as it closes a file, so a full disk passes unseen."""
    with rasterio.open(cog) as dataset:
        for window in _windows(dataset.width, dataset.height):
            written = dataset.read(1, window=_rasterio_window(window))
            if not np.array_equal(written, read_window(store_path, window)):
                raise OSError(f"what was written differs from {store_path} within {window}")


def _windows(width: int, height: int) -> Iterator[Window]:
    for row_off in range(0, height, _STRIDE):
        for col_off in range(0, width, _STRIDE):
            yield Window(col_off, row_off, min(_STRIDE, width - col_off), min(_STRIDE, height - row_off))


def _rasterio_window(window: Window) -> RasterioWindow:
    return RasterioWindow(window.col_off, window.row_off, window.width, window.height)


def _band_as_vrt(dataset: rasterio.DatasetReader) -> ET.Element:
    """What GDAL knows of the first band, as XML: rasterio has no function for category names."""
    with MemoryFile(ext=".vrt") as file:
        rasterio.shutil.copy(dataset, file.name, driver="VRT")
        band = ET.fromstring(file.read()).find("VRTRasterBand")  # noqa: S314 (GDAL has just written it)
    assert band is not None  # the caller has made sure that there is one
    return band


def _hex_color(entry: ET.Element) -> str:
    return "#" + "".join(f"{int(entry.attrib[part]):02x}" for part in ("c1", "c2", "c3"))


@contextmanager
def _errors_naming(path: Path) -> Iterator[None]:
    """Turn GDAL's and the system's errors into one that names the file."""
    try:
        yield
    except (*_GDAL_ERRORS, OSError) as error:
        cause = error.__cause__ or error
        raise SegbatchError(f"{path} cannot be written: {cause}") from error
