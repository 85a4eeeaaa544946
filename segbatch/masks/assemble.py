"""A scene's Cloud Optimized GeoTIFF, put together from the parts that the write tasks of its blocks left.

The tiles of local levels are copied as they are. The few small levels whose tiles several blocks share are made
here, a strip of tiles at a time. DEFLATE, because nearly every TIFF reader opens it; ZSTD is an extension that
many lack.
"""

from collections.abc import Container, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain, product
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from segbatch.errors import SegbatchError
from segbatch.geometry import Window
from segbatch.masks import tiff
from segbatch.masks.cog import GDAL_ERRORS, CogSpec, category_names, describing_fields
from segbatch.masks.parts import Part, empty_part, make_part, open_part
from segbatch.masks.pyramid import Pyramid, halved
from segbatch.storage import ask_ahead, is_remote, place, staging_folder, write_whole

_COPY_BYTES = 1 << 20

_LAYOUT_FIELDS = {
    *(tiff.NEW_SUBFILE_TYPE, tiff.IMAGE_WIDTH, tiff.IMAGE_LENGTH, tiff.COMPRESSION, tiff.PREDICTOR),
    *(tiff.STRIP_OFFSETS, tiff.ROWS_PER_STRIP, tiff.STRIP_BYTE_COUNTS),
    *(tiff.TILE_WIDTH, tiff.TILE_LENGTH, tiff.TILE_OFFSETS, tiff.TILE_BYTE_COUNTS),
}
"""Fields that say how the file is laid out, which is for `_directory` to say."""

_OVERVIEW_FIELDS = {
    *(tiff.BITS_PER_SAMPLE, tiff.PHOTOMETRIC, tiff.SAMPLES_PER_PIXEL, tiff.PLANAR_CONFIGURATION),
    *(tiff.COLOR_MAP, tiff.EXTRA_SAMPLES, tiff.SAMPLE_FORMAT, tiff.GDAL_NODATA),
}


@dataclass(frozen=True, slots=True, eq=False)
class _SharedLevel:
    """A level that was made here.

    Args:
        path: Its framed tiles.
        counts: (rows, columns) bytes of each tile.
    """

    path: Path
    counts: NDArray[np.uint32]


def write_cog(
    parts: str | Path,
    out_path: str | Path,
    pyramid: Pyramid,
    spec: CogSpec,
    *,
    without_part: Container[tuple[int, int]] = (),
) -> None:
    """Write a COG from the parts of a scene: atomically, and with the same bytes however the parts came about.

    The names of the classes, for which TIFF has no place, are in the sidecar ``<name>.aux.xml`` that GDAL and QGIS
    read. Memory grows with the width of the scene only, not with its area, save for 4 bytes a tile. The parts
    are left where they are.

    Args:
        parts: Their folder.
        out_path: The TIFF. Of several processes that write it the last one counts; each writes the same.
        pyramid: What the parts were written with.
        spec: What the file says of its pixels.
        without_part: (row, column) of blocks known to be nodata, for which there is no part.

    Raises:
        ValueError: ``spec`` has another number of bands than ``pyramid``.
        PartError: A part is missing or damaged.
        SegbatchError: The file cannot be written.
    """
    _check_bands(pyramid, spec)
    _write(_open_parts(place(parts), pyramid, without_part), place(out_path), pyramid, spec)


def write_small_cog(
    out_path: str | Path, pyramid: Pyramid, spec: CogSpec, window: Window, pixels: NDArray[np.uint8]
) -> None:
    """Write the COG of a scene of one block, as `write_cog` would from its part.

    Args:
        out_path: The TIFF.
        pyramid: Of the scene.
        spec: What the file says of its pixels.
        window: All pixels of the scene.
        pixels: (height, width), or (bands, height, width), uint8.

    Raises:
        ValueError: ``spec`` has another number of bands than ``pyramid``, or the window is not the whole scene's.
        SegbatchError: The file cannot be written.
    """
    _check_bands(pyramid, spec)
    if pyramid.grid != (1, 1):
        raise ValueError(f"there are {pyramid.grid[0]} x {pyramid.grid[1]} blocks, and not one")
    _write([[make_part(pyramid, window, pixels)]], place(out_path), pyramid, spec)


def _check_bands(pyramid: Pyramid, spec: CogSpec) -> None:
    if len(spec.bands) != pyramid.bands:
        raise ValueError(f"{len(spec.bands)} bands are described, but there are {pyramid.bands}")


def _write(opened: list[list[Part]], out_path: Path, pyramid: Pyramid, spec: CogSpec) -> None:
    sidecar = out_path.with_name(f"{out_path.name}.aux.xml")
    # Most small scenes have no shared levels: to make and remove a folder takes longer than their file.
    scratch = staging_folder(out_path) if pyramid.local_levels < pyramid.levels else nullcontext(out_path.parent)
    with _errors_naming(out_path), scratch as folder:

        def pieces() -> Iterator[bytes]:
            yield from _tiff(opened, pyramid, describing_fields(spec), folder)
            # The TIFF is written, and gets its name last: where it is, all is.
            if spec.classes is None:
                sidecar.unlink(missing_ok=True)
            else:
                write_whole(sidecar, category_names(spec.classes))

        write_whole(out_path, pieces())


def _open_parts(folder: Path, pyramid: Pyramid, without_part: Container[tuple[int, int]]) -> list[list[Part]]:
    def open_one(block: tuple[int, int]) -> Part:
        return empty_part(pyramid, *block) if block in without_part else open_part(folder, pyramid, *block)

    rows, cols = pyramid.grid
    parts = list(ask_ahead(open_one, product(range(rows), range(cols)), is_far=is_remote(folder)))
    return [parts[first : first + cols] for first in range(0, len(parts), cols)]


def _tiff(parts: list[list[Part]], pyramid: Pyramid, template: tiff.Directory, folder: Path) -> Iterator[bytes]:
    """The file, piece by piece."""
    is_far = any(is_remote(part.source) for row in parts for part in row)
    shared = _make_shared_levels(parts, pyramid, folder, is_far)
    local = range(pyramid.local_levels)
    counts = [_gather_counts(parts, pyramid, level) for level in local] + [level.counts for level in shared]
    head, size = _encode_head(pyramid, template, counts)
    written = 0
    # From the smallest level to the largest: who wants an overview needs the beginning of the file alone.
    smaller, larger = reversed(shared), (_level(parts, pyramid, number, is_far) for number in reversed(local))
    for piece in chain([head], chain.from_iterable(map(_shared_tiles, smaller)), chain.from_iterable(larger)):
        yield piece
        written += len(piece)
    if written != size:
        raise OSError(f"{written} bytes were written and not {size}")


def _shared_tiles(level: _SharedLevel) -> Iterator[bytes]:
    with level.path.open("rb") as source:
        while piece := source.read(_COPY_BYTES):
            yield piece


def _level(parts: list[list[Part]], pyramid: Pyramid, level: int, is_far: bool) -> Iterator[bytes]:
    runs = (
        partial(part.run, level, row)
        for row_of_parts in parts
        for row in range(pyramid.block_tiles(*row_of_parts[0].block, level).height)
        for part in row_of_parts
    )
    return ask_ahead(lambda run: run(), runs, is_far=is_far)


def _gather_counts(parts: list[list[Part]], pyramid: Pyramid, level: int) -> NDArray[np.uint32]:
    counts = np.zeros(pyramid.tiles(level), np.uint32)
    for row_of_parts in parts:
        for part in row_of_parts:
            counts[pyramid.block_tiles(*part.block, level).slices] = part.counts(level)
    return counts


def _make_shared_levels(parts: list[list[Part]], pyramid: Pyramid, folder: Path, is_far: bool) -> list[_SharedLevel]:
    """Make the levels whose tiles belong to several blocks, all in one pass over the first one's pixels."""
    made = [
        _SharedLevel(folder / f"level{level}", np.zeros(pyramid.tiles(level), np.uint32))
        for level in range(pyramid.local_levels, pyramid.levels)
    ]
    if made:
        with ExitStack() as files:
            rows = _rest_rows(parts, is_far)
            for level in made:
                rows = _encode_level(rows, level, files.enter_context(level.path.open("wb")), pyramid)
            for _ in rows:  # pulls the rows through all levels
                pass
    return made


def _rest_rows(parts: list[list[Part]], is_far: bool) -> Iterator[NDArray[np.uint8]]:
    """The first shared level, one row of blocks at a time."""
    for row_of_parts in parts:
        yield np.concatenate(list(ask_ahead(Part.rest, row_of_parts, is_far=is_far)), axis=2)


def _encode_level(
    rows: Iterator[NDArray[np.uint8]], level: _SharedLevel, stream: BinaryIO, pyramid: Pyramid
) -> Iterator[NDArray[np.uint8]]:
    """Write the tiles of a level as its rows come, and yield the rows of the next."""
    cols = pyramid.tile[1]
    for number, strip in enumerate(_regroup(rows, pyramid.tile[0])):
        for col in range(level.counts.shape[1]):
            tile = tiff.encode_tile(strip[:, :, col * cols : (col + 1) * cols], pyramid.tile)
            level.counts[number, col] = len(tile)
            stream.write(tiff.frame_tile(tile))
        yield halved(strip, pyramid.resampling)


def _regroup(pieces: Iterator[NDArray[np.uint8]], height: int) -> Iterator[NDArray[np.uint8]]:
    """The same rows in pieces of ``height``; the last one holds what is left."""
    held: list[NDArray[np.uint8]] = []
    for piece in pieces:
        held.append(piece)
        if sum(part.shape[1] for part in held) >= height:
            rows = np.concatenate(held, axis=1)
            whole = rows.shape[1] // height * height
            for start in range(0, whole, height):
                yield rows[:, start : start + height]
            held = [rows[:, whole:]] if whole < rows.shape[1] else []
    if held:
        yield np.concatenate(held, axis=1)


def _encode_head(pyramid: Pyramid, template: tiff.Directory, counts: list[NDArray[np.uint32]]) -> tuple[bytes, int]:
    """All that comes before the data, and the size of the file."""
    sizes = [int(tiff.framed_sizes(level).sum()) for level in counts]

    def encode(data_start: int, *, big: bool) -> bytes:
        directories = []
        for level, tiles in enumerate(counts):
            offsets = tiff.tile_offsets(tiles, data_start + sum(sizes[level + 1 :]))
            fields = tiff.tile_fields(offsets, tiles, big=big)
            directories.append(_directory(pyramid, template, level) | fields)
        return tiff.encode_head(directories, big=big)

    # The length of the head does not depend on what stands in it.
    big = len(encode(0, big=False)) + sum(sizes) > tiff.CLASSIC_LIMIT
    head = encode(len(encode(0, big=big)), big=big)
    return head, len(head) + sum(sizes)


def _directory(pyramid: Pyramid, template: tiff.Directory, level: int) -> tiff.Directory:
    """All fields of a level but those of its tiles' places."""
    if level == 0:
        directory = {tag: field for tag, field in template.items() if tag not in _LAYOUT_FIELDS}
    else:
        directory = {tag: field for tag, field in template.items() if tag in _OVERVIEW_FIELDS}
        directory[tiff.NEW_SUBFILE_TYPE] = tiff.long_field(1)  # a smaller version of another image in the file
    height, width = pyramid.size(level)
    return directory | {
        tiff.IMAGE_WIDTH: tiff.long_field(width),
        tiff.IMAGE_LENGTH: tiff.long_field(height),
        tiff.COMPRESSION: tiff.short_field(tiff.DEFLATE),
        tiff.PREDICTOR: tiff.short_field(tiff.predictor(pyramid.bands)),
        tiff.TILE_WIDTH: tiff.long_field(pyramid.tile[1]),
        tiff.TILE_LENGTH: tiff.long_field(pyramid.tile[0]),
    }


@contextmanager
def _errors_naming(path: Path) -> Iterator[None]:
    """Turn GDAL's and the system's errors into one that names the file."""
    try:
        yield
    except (*GDAL_ERRORS, OSError) as error:
        cause = error.__cause__ or error
        raise SegbatchError(f"{path} cannot be written: {cause}") from error
