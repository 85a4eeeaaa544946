"""Virtual rasters of any size, made of one small file: scenes to grow without filling a disk."""

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import rasterio

from segbatch.geometry import Window


def dense_vrt(path: Path, source: Path, times: int) -> None:
    """A raster that repeats a file so many times, as squarely as the number allows.

    Args:
        path: Of the virtual raster.
        source: A raster.
        times: How often.
    """
    rows = next(count for count in range(int(times**0.5), 0, -1) if times % count == 0)
    cols = times // rows
    with rasterio.open(source) as file:
        height, width = file.shape
    places = [(row * height, col * width) for row in range(rows) for col in range(cols)]
    write_vrt(path, source, (rows * height, cols * width), places)


def sparse_vrt(path: Path, source: Path, side: int, tiles: int) -> None:
    """A square of nodata with a file scattered over it, on a grid of the file's size and so without overlaps.

    Args:
        path: Of the virtual raster.
        source: A raster, no larger than the square.
        side: Pixels a side.
        tiles: How many; fewer where no more fit.
    """
    with rasterio.open(source) as file:
        height, width = file.shape
    rows, cols = side // height, side // width
    chosen = np.random.default_rng(0).choice(rows * cols, min(tiles, rows * cols), replace=False)
    places = [(number // cols * height, number % cols * width) for number in sorted(chosen.tolist())]
    write_vrt(path, source, (side, side), places)


def write_vrt(path: Path, source: Path, shape: tuple[int, int], places: Iterable[tuple[int, int]]) -> None:
    """A virtual raster with a file at some places and nodata between them.

    Args:
        path: Of the virtual raster.
        source: A raster of uint8.
        shape: (rows, columns).
        places: (row, column) of the upper left pixel of each copy.
    """
    with rasterio.open(source) as file:
        whole, bands, names = Window(0, 0, file.width, file.height), file.count, file.descriptions
        crs, transform = file.crs, file.transform
    root = ET.Element("VRTDataset", rasterXSize=str(shape[1]), rasterYSize=str(shape[0]))
    if crs is not None:
        ET.SubElement(root, "SRS").text = crs.to_wkt()
        ET.SubElement(root, "GeoTransform").text = ", ".join(map(repr, transform.to_gdal()))
    listed = list(places)
    for number in range(1, bands + 1):
        band = ET.SubElement(root, "VRTRasterBand", dataType="Byte", band=str(number))
        ET.SubElement(band, "Description").text = names[number - 1] or ""
        ET.SubElement(band, "NoDataValue").text = "0"
        for row, col in listed:
            piece = ET.SubElement(band, "SimpleSource")
            ET.SubElement(piece, "SourceFilename", relativeToVRT="0").text = str(source.absolute())
            ET.SubElement(piece, "SourceBand").text = str(number)
            _rectangle(piece, "SrcRect", whole)
            _rectangle(piece, "DstRect", Window(col, row, whole.width, whole.height))
    path.write_bytes(ET.tostring(root))


def _rectangle(parent: ET.Element, name: str, window: Window) -> None:
    sides = {"xOff": window.col_off, "yOff": window.row_off, "xSize": window.width, "ySize": window.height}
    ET.SubElement(parent, name, {key: str(value) for key, value in sides.items()})
