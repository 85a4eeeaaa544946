"""What a COG says of its pixels: where they lie, what their values mean, and the class table, there and back.

How the file is put together is `segbatch.masks.assemble`'s affair.
"""

import json
import warnings
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rasterio
import rasterio.shutil
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile

from segbatch.classes import MAX_CLASSES, NODATA, PROBABILITY_STEPS, ClassTable
from segbatch.errors import InputError
from segbatch.masks import tiff
from segbatch.scenes.raster import gdal_options

CLASSES_TAG = "SEGBATCH_CLASSES"
"""Metadata item with the class table as JSON."""

GDAL_ERRORS = (RasterioError, CPLE_BaseError)
"""rasterio lets some of GDAL's own errors through, and has no public name for them."""

# A micrograph has no map, and its class mask has none either.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)


@dataclass(frozen=True, slots=True)
class CogSpec:
    """What a COG says of its pixels. Nodata is 255 in all of them.

    Args:
        crs: WKT, or None.
        transform: From (column, row) to CRS units; the identity without a map.
        pixel_size_um: Micrometres a pixel, or None.
        classes: Where the pixels are class ids, these classes: colour table, names and the item `CLASSES_TAG`.
        bands: A description of each band, which may be empty.
        scale: What a step of the value stands for, or None.
    """

    crs: str | None
    transform: Affine
    pixel_size_um: float | None = None
    classes: ClassTable | None = None
    bands: tuple[str, ...] = ("",)
    scale: float | None = None

    @classmethod
    def class_mask(
        cls, classes: ClassTable, crs: str | None, transform: Affine, pixel_size_um: float | None
    ) -> "CogSpec":
        """Of a class mask."""
        return cls(crs, transform, pixel_size_um, classes)

    @classmethod
    def confidence(cls, crs: str | None, transform: Affine, pixel_size_um: float | None) -> "CogSpec":
        """Of the largest probability, 0 to `PROBABILITY_STEPS`."""
        return cls(crs, transform, pixel_size_um, None, ("confidence",), 1 / PROBABILITY_STEPS)

    @classmethod
    def probabilities(
        cls, classes: ClassTable, crs: str | None, transform: Affine, pixel_size_um: float | None
    ) -> "CogSpec":
        """Of the probabilities, 0 to `PROBABILITY_STEPS`, a band for each class."""
        return cls(crs, transform, pixel_size_um, None, classes.names, 1 / PROBABILITY_STEPS)


def describing_fields(spec: CogSpec) -> tiff.Directory:
    """The fields of a file of one pixel that GDAL writes: how it encodes a map or a colour table is its own affair."""
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "width": 1,
        "height": 1,
        "count": len(spec.bands),
        "dtype": "uint8",
        "nodata": NODATA,
        "interleave": "pixel",
        "photometric": "MINISBLACK",
        "endianness": "LITTLE",
    }
    if spec.crs is not None:
        profile["crs"] = CRS.from_wkt(spec.crs)
    if spec.crs is not None or spec.transform != Affine.identity():
        profile["transform"] = spec.transform
    with MemoryFile() as file:
        with file.open(**profile) as dataset:
            dataset.update_tags(**_tags(spec))
            if spec.classes is not None:
                dataset.write_colormap(1, _colormap(spec.classes))
            if spec.scale is not None:
                dataset.scales = [spec.scale] * len(spec.bands)
                dataset.offsets = [0.0] * len(spec.bands)
            for number, name in enumerate(spec.bands, start=1):
                if name:
                    dataset.set_band_description(number, name)
        return tiff.read_directory(bytes(file.getbuffer()))


def category_names(classes: ClassTable) -> bytes:
    """The content of GDAL's sidecar with the names of the classes, for which TIFF has no place."""
    root = ET.Element("PAMDataset")
    names = ET.SubElement(ET.SubElement(root, "PAMRasterBand", band="1"), "CategoryNames")
    for name in classes.names:
        ET.SubElement(names, "Category").text = name
    ET.indent(root)
    return ET.tostring(root, encoding="unicode").encode() + b"\n"


def read_cog_classes(path: str | Path) -> ClassTable | None:
    """The class table of a TIFF: segbatch's own, else from category names and colour table, else None.

    A category without a name is called after its id, and one without a color gets one.

    Raises:
        InputError: The file cannot be opened, or its category names repeat.
    """
    try:
        with rasterio.Env(**gdal_options()), rasterio.open(path) as dataset:
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
    except GDAL_ERRORS as error:
        raise InputError(f"{path} cannot be read as an image: {error}") from error
    except (InputError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"The class table of {path} cannot be used: {error}") from error


def _colormap(classes: ClassTable) -> dict[int, tuple[int, int, int, int]]:
    palette = classes.palette().tolist()
    return {index: (*palette[index], 255) for index in range(len(classes))} | {NODATA: (0, 0, 0, 0)}


def _tags(spec: CogSpec) -> dict[str, str]:
    tags = {} if spec.classes is None else {CLASSES_TAG: json.dumps(spec.classes.to_json())}
    if spec.pixel_size_um is not None:
        pixels_per_cm = repr(1e4 / spec.pixel_size_um)
        tags |= {
            "TIFFTAG_XRESOLUTION": pixels_per_cm,
            "TIFFTAG_YRESOLUTION": pixels_per_cm,
            "TIFFTAG_RESOLUTIONUNIT": "3",  # centimetre
        }
    return tags


def _band_as_vrt(dataset: rasterio.DatasetReader) -> ET.Element:
    """What GDAL knows of the first band, as XML: rasterio has no function for category names."""
    with MemoryFile(ext=".vrt") as file:
        rasterio.shutil.copy(dataset, file.name, driver="VRT")
        band = ET.fromstring(file.read()).find("VRTRasterBand")  # noqa: S314 (GDAL has just written it)
    assert band is not None  # the caller has made sure that there is one
    return band


def _hex_color(entry: ET.Element) -> str:
    return "#" + "".join(f"{int(entry.attrib[part]):02x}" for part in ("c1", "c2", "c3"))
