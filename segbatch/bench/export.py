"""A COG put together from the parts of blocks, against GDAL's COG driver, from the same class mask."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.windows import Window as RasterioWindow

from segbatch.bench.material import cores, repeated
from segbatch.bench.processes import alone, own_peak
from segbatch.bench.show import figure, megabytes, print_table
from segbatch.classes import NODATA
from segbatch.demo import CLASSES, make_landscape
from segbatch.geometry import BlockGrid, Lattice, block_shape
from segbatch.inference.files import pyramid
from segbatch.masks import CogSpec, Pyramid, write_cog, write_part

_CORE = 1024
_BLOCK_BYTES, _BANDS = 32 * 2**20, 4
"""A block of a scene of four bands, as on a CPU."""

_PAINTED_SIDE = 1024
_STRIP = 1024


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What writing a COG took.

    Args:
        pixels: Of the class mask.
        encode_seconds: For the parts of all blocks, on one core; in a run the blocks share this out among the cores.
        assemble_seconds: For the COG out of them: all that is left to do when the last block is done.
        parts_bytes: Of the COG.
        parts_memory: Peak resident bytes of putting it together.
        gdal_seconds: Of GDAL's COG driver on one core, from a tiled TIFF that is there already.
        gdal_all_seconds: On all cores.
        gdal_bytes: Of its COG.
        gdal_memory: Peak resident bytes.
        equal: Whether both files have the same pixels.
    """

    pixels: int
    encode_seconds: float
    assemble_seconds: float
    parts_bytes: int
    parts_memory: int
    gdal_seconds: float
    gdal_all_seconds: float
    gdal_bytes: int
    gdal_memory: int
    equal: bool


def measure_export(folder: Path, side: int) -> ExportResult:
    """Write a square class mask both ways.

    Args:
        folder: Where files go.
        side: Pixels a side.
    """
    tile = folder / "tile.npy"
    _, label = make_landscape(1, _PAINTED_SIDE, _PAINTED_SIDE)
    np.save(tile, label)
    encode = alone(_encode, folder, side)
    assemble, parts_memory = alone(_assemble, folder, side)
    alone(_write_plain, folder, side)
    one, gdal_memory = alone(_gdal, folder, "1")
    every, _ = alone(_gdal, folder, str(cores()))
    return ExportResult(
        pixels=side**2,
        encode_seconds=encode,
        assemble_seconds=assemble,
        parts_bytes=(folder / "ours.tif").stat().st_size,
        parts_memory=parts_memory,
        gdal_seconds=one,
        gdal_all_seconds=every,
        gdal_bytes=(folder / "gdal.tif").stat().st_size,
        gdal_memory=gdal_memory,
        equal=alone(_equal, folder),
    )


def _grid(side: int) -> BlockGrid:
    lattice = Lattice(side, side, _CORE, _CORE, 0)
    return BlockGrid(lattice, *block_shape(lattice, _BANDS, _BLOCK_BYTES, 16))


def _pyramid(side: int) -> Pyramid:
    grid = _grid(side)
    return pyramid(side, side, (grid.block_height, grid.block_width))


def _encode(folder: Path, side: int) -> float:
    levels, mask = _pyramid(side), repeated(np.load(folder / "tile.npy"), side)
    seconds = 0.0
    for block in _grid(side):
        pixels = np.ascontiguousarray(mask[block.owned.slices])
        started = time.perf_counter()
        write_part(folder / "parts", levels, block.owned, pixels)
        seconds += time.perf_counter() - started
    return seconds


def _assemble(folder: Path, side: int) -> tuple[float, int]:
    spec = CogSpec.class_mask(CLASSES, None, Affine.identity(), None)
    started = time.perf_counter()
    write_cog(folder / "parts", folder / "ours.tif", _pyramid(side), spec)
    return time.perf_counter() - started, own_peak()


def _write_plain(folder: Path, side: int) -> None:
    mask, tile = repeated(np.load(folder / "tile.npy"), side), _pyramid(side).tile
    with rasterio.open(
        folder / "plain.tif", "w", driver="GTiff", width=side, height=side, count=1, dtype="uint8", nodata=NODATA,
        tiled=True, blockysize=tile[0], blockxsize=tile[1],
    ) as file:  # fmt: skip
        file.write(mask, 1)


def _gdal(folder: Path, threads: str) -> tuple[float, int]:
    started = time.perf_counter()
    rasterio.shutil.copy(
        folder / "plain.tif", folder / "gdal.tif", driver="COG", compress="DEFLATE", overview_resampling="MODE",
        num_threads=threads,
    )  # fmt: skip
    return time.perf_counter() - started, own_peak()


def _equal(folder: Path) -> bool:
    with rasterio.open(folder / "ours.tif") as ours, rasterio.open(folder / "gdal.tif") as theirs:
        return ours.shape == theirs.shape and all(
            np.array_equal(ours.read(1, window=strip), theirs.read(1, window=strip)) for strip in _strips(*ours.shape)
        )


def _strips(height: int, width: int) -> Iterator[RasterioWindow]:
    for row in range(0, height, _STRIP):
        yield RasterioWindow(0, row, width, min(_STRIP, height - row))


def print_export(result: ExportResult) -> None:
    """Seconds, speed and bytes of both."""
    mpx = result.pixels / 1e6
    size, theirs = megabytes(result.parts_bytes), megabytes(result.gdal_bytes)

    def line(name: str, seconds: float, memory: int | None, size: str) -> list[str]:
        return [name, figure(seconds, ".2f"), figure(mpx / seconds, ",.0f"), megabytes(memory), size]

    print_table(
        f"a class mask of {mpx:,.0f} Mpx as a COG, {cores()} cores; pixels {'equal' if result.equal else 'DIFFERENT'}",
        ["", "s", "Mpx/s", "memory", "size"],
        [
            line("parts of blocks, one core", result.encode_seconds, None, ""),
            line("put together", result.assemble_seconds, result.parts_memory, size),
            line("both", result.encode_seconds + result.assemble_seconds, None, size),
            line("GDAL's COG driver, one core", result.gdal_seconds, result.gdal_memory, theirs),
            line(f"GDAL's COG driver, {cores()} cores", result.gdal_all_seconds, None, theirs),
        ],
    )
