"""The class mask of a scene, and what was asked for beside it, as a sharded Zarr v3 store.

The store is created once, from metadata alone; then every block writes its own shard, one file each,
without locks. Blocks that were never written, and blocks without a valid pixel, read as `NODATA`.

xarray opens the store: ``xarray.open_zarr(path, consolidated=False)`` gives ``class_mask`` as float32 with
NaN for nodata, as the CF attribute ``_FillValue`` asks; with ``mask_and_scale=False`` it is uint8 with 255.
``confidence`` (y, x) and ``probabilities`` (class, y, x) are stored likewise, with CF's scale and offset.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import zarr
from affine import Affine
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec
from zarr.errors import NodeTypeValidationError
from zarr.storage import MemoryStore, ObjectStore

from segbatch.classes import NODATA, PROBABILITY_STEPS, ClassTable
from segbatch.errors import InputError, SegbatchError
from segbatch.geometry import Window
from segbatch.masks.coordinates import coordinate_axes, spatial_reference
from segbatch.storage import PARTIAL, is_remote, move, place, staging_folder, write_whole

CLASS_MASK = "class_mask"
"""Name of the class mask in the store."""

CONFIDENCE, PROBABILITIES = "confidence", "probabilities"
"""Names of the arrays that are there when asked for."""

_SPATIAL_REF = "spatial_ref"


def create_store(
    path: str | Path,
    *,
    width: int,
    height: int,
    shard: tuple[int, int],
    chunk: tuple[int, int],
    classes: ClassTable,
    crs: str | None,
    transform: Affine,
    pixel_size_um: float | None,
    products: Sequence[str] = (),
) -> None:
    """Create the store of a scene, all nodata. One that is already there for the same scene is left as it is.

    Safe to call from several processes at once, and again after a call was killed.

    Args:
        path: Folder of the store.
        width: Columns of the scene.
        height: Rows of the scene.
        shard: (rows, cols) of a file; those of a block.
        chunk: (rows, cols) read at once; divides ``shard``.
        classes: Kept in the attributes.
        crs: WKT, or None for scenes without a map.
        transform: From (column, row) to CRS units; the identity without a map.
        pixel_size_um: Micrometres a pixel, for scenes without a map.
        products: More arrays beside the class mask: `CONFIDENCE`, `PROBABILITIES`.

    Raises:
        ValueError: The chunk does not divide the shard.
        InputError: There is another scene's store at ``path``.
        SegbatchError: The folder cannot be written to.
    """
    if shard[0] % chunk[0] or shard[1] % chunk[1]:
        raise ValueError(f"chunk {chunk} does not divide shard {shard}")
    path = place(path)
    try:
        with staging_folder(path) as folder:
            template = folder / "store"
            group = zarr.create_group(template, zarr_format=3, attributes={"classes": classes.to_json()})
            reference = spatial_reference(crs, transform)
            located = {"grid_mapping": _SPATIAL_REF, "coordinates": _SPATIAL_REF} if reference is not None else {}
            store, size = group.store_path.store, (height, width)
            _create_array(store, CLASS_MASK, size, shard, chunk, _mask_attributes(classes) | located)
            if CONFIDENCE in products:
                _create_array(store, CONFIDENCE, size, shard, chunk, _scaled("confidence") | located)
            if PROBABILITIES in products:
                names = {"class_names": list(classes.names)}
                bands, attributes = len(classes), _scaled("class probabilities") | names | located
                _create_array(store, PROBABILITIES, (bands, *size), (bands, *shard), (1, *chunk), attributes)
            if reference is not None:
                # A scalar 0, as xarray and rioxarray write it: the attributes are what counts.
                group.create_array(_SPATIAL_REF, shape=(), dtype="int64", fill_value=0, attributes=reference)
            for axis in coordinate_axes(width, height, crs, transform, pixel_size_um):
                group.create_array(
                    axis.name,
                    data=axis.values,
                    chunks=axis.values.shape,
                    dimension_names=(axis.name,),
                    attributes=axis.attributes,
                )
            if not (has_store(path) if is_remote(path) else path.exists()):
                try:
                    move(template, path)
                    return
                except OSError:
                    if not path.exists():
                        raise
            _check_same(template, path)
    except OSError as error:
        raise SegbatchError(f"{path} cannot be created: {error.strerror or error}.") from error


def write_block(path: str | Path, block_window: Window, pixels: NDArray[np.uint8], name: str = CLASS_MASK) -> None:
    """Write one block, which is one shard: whole, atomically, and with the same bytes each time.

    A block of nothing but nodata has no file; one that was there is removed.

    Args:
        path: The store.
        block_window: Pixels of the scene: one shard, clipped to the scene.
        pixels: (height, width), or (classes, height, width), uint8; `NODATA` where the scene has no valid pixel.
        name: Of the array.

    Raises:
        ValueError: The window is not a shard, or the pixels do not fit the window.
        SegbatchError: The file cannot be written.
    """
    array = open_pixels(path, name)
    row, col = _shard_index(array, block_window)
    wanted = (*array.shape[:-2], block_window.height, block_window.width)
    if pixels.dtype != np.uint8 or pixels.shape != wanted:
        raise ValueError(
            f"uint8 pixels of {block_window}, shape {wanted}, are needed; got {pixels.dtype} of {pixels.shape}"
        )
    file = place(path).joinpath(name, "c", *["0"] * (pixels.ndim - 2), str(row), str(col))
    try:
        if (pixels == NODATA).all():
            file.unlink(missing_ok=True)
        else:
            write_whole(file, _encode_shard(array, pixels))
    except OSError as error:
        raise SegbatchError(f"{file} cannot be written: {error.strerror or error}.") from error


def read_window(path: str | Path, window: Window, name: str = CLASS_MASK) -> NDArray[np.uint8]:
    """Read (height, width) uint8 class ids of a window that lies inside the scene, or another array's pixels.

    Args:
        path: The store.
        window: Pixels of the scene.
        name: Of the array; probabilities give (classes, height, width).

    Raises:
        ValueError: The window reaches beyond the scene.
        InputError: There is no store at ``path``.
        SegbatchError: A shard is damaged.
    """
    array = open_pixels(path, name)
    height, width = array.shape[-2:]
    if not Window(0, 0, width, height).contains(window):
        raise ValueError(f"{window} reaches beyond the {width} x {height} pixels of {path}")
    try:
        return np.asarray(array[(..., *window.slices)], np.uint8)
    except (OSError, ValueError, RuntimeError) as error:
        raise SegbatchError(f"{path} is damaged within {window}: {error}") from error


def read_classes(path: str | Path) -> ClassTable:
    """The class table of a store.

    Raises:
        InputError: There is no store of a class mask at ``path``.
    """
    try:
        return ClassTable.from_json(open_group(path).attrs["classes"])  # type: ignore[arg-type]
    except (FileNotFoundError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a class mask in Zarr format: it has no class table.") from error


def has_store(path: str | PurePath) -> bool:
    """Whether there is a store. What a killed removal has left of one is none."""
    return (place(path) / "zarr.json").is_file()


def is_store(path: str | Path) -> bool:
    """Whether a class mask is a store, as all folders are, and not a raster that GDAL reads."""
    try:
        return has_store(path) if is_remote(found := place(path)) else found.is_dir()
    except (ValueError, OSError):  # a URL that only GDAL knows, or may read
        return False


def open_group(path: str | Path) -> zarr.Group:
    """A store's group, for reading.

    Raises:
        FileNotFoundError: There is none.
    """
    return zarr.open_group(_zarr_store(place(path)), mode="r")


def clean_partial(path: str | Path) -> None:
    """Remove what killed writers left in a store. Call it before the writers of a run start, not beside them."""
    if is_remote(path := place(path)):
        return  # objects are whole
    for file in path.rglob(f"*{PARTIAL}"):
        file.unlink(missing_ok=True)


def thumbnail(path: str | Path, max_side: int) -> NDArray[np.uint8]:
    """The whole class mask, uint8, shrunk so that no side exceeds ``max_side`` pixels (nearest neighbour).

    Of the same shape as the thumbnail of the scene. Holds one shard at a time.
    """
    array = open_class_mask(path)
    (height, width), (shard_height, shard_width) = array.shape, _shard_shape(array)
    factor = max(1.0, width / max_side, height / max_side)
    rows = _centres(height, max(1, round(height / factor)))
    cols = _centres(width, max(1, round(width / factor)))
    small = np.full((len(rows), len(cols)), NODATA, np.uint8)
    for row_off in range(0, height, shard_height):
        inner_rows = np.flatnonzero(rows // shard_height == row_off // shard_height)
        for col_off in range(0, width, shard_width):
            inner_cols = np.flatnonzero(cols // shard_width == col_off // shard_width)
            if len(inner_rows) == 0 or len(inner_cols) == 0:
                continue
            window = Window(col_off, row_off, min(shard_width, width - col_off), min(shard_height, height - row_off))
            picked = np.ix_(rows[inner_rows] - row_off, cols[inner_cols] - col_off)
            small[np.ix_(inner_rows, inner_cols)] = read_window(path, window)[picked]
    return small


def open_class_mask(path: str | Path) -> zarr.Array[Any]:
    """The class mask of a store; see `open_pixels`."""
    return open_pixels(path, CLASS_MASK)


def open_pixels(path: str | Path, name: str) -> zarr.Array[Any]:
    """An array of a store, for reading. Opened once a process for as long as the store is the same.

    Raises:
        InputError: There is no store at ``path``, or no such array in it.
    """
    document = place(path) / name / "zarr.json"
    try:
        if is_remote(document):
            return _open(str(document.parent), document.stat().version)
        status = document.stat()
        return _open(str(document.parent), f"{status.st_ino} {status.st_mtime_ns}")
    except (FileNotFoundError, NotADirectoryError, NodeTypeValidationError) as error:
        raise InputError(f"{path} is not a class mask in Zarr format: there is no {document}.") from error
    except OSError as error:
        raise SegbatchError(f"{document} cannot be read: {error.strerror or error}.") from error


@lru_cache(maxsize=64)
def _open(path: str, version: str) -> zarr.Array[Any]:
    del version  # it only tells one store from another that was made in its place
    return zarr.open_array(_zarr_store(place(path)), mode="r", zarr_format=3)


def _zarr_store(path: Path) -> Any:
    """What zarr opens, for reading."""
    if is_remote(path):
        return ObjectStore(path.open_store(), read_only=True)
    return path


def _create_array(
    store: Any,
    name: str | None,
    shape: tuple[int, ...],
    shard: tuple[int, ...],
    chunk: tuple[int, ...],
    attributes: dict[str, Any] | None = None,
) -> zarr.Array[Any]:
    return zarr.create_array(
        store,
        name=name,
        shape=shape,
        dtype="uint8",
        shards=shard,
        chunks=chunk,
        compressors=ZstdCodec(level=3, checksum=True),
        fill_value=NODATA,
        dimension_names=("class", "y", "x")[-len(shape) :],
        attributes=attributes,
        zarr_format=3,
        config={"write_empty_chunks": False},
    )


def _encode_shard(array: zarr.Array[Any], pixels: NDArray[np.uint8]) -> bytes:
    """The bytes of a shard, a function of the pixels alone.

    Assigning to the stored array would first read the shard that is there, merge, and fail on a damaged one.
    """
    memory: dict[str, Any] = {}
    assert array.shards is not None  # every store is made by create_store
    single = _create_array(MemoryStore(memory), None, array.shards, array.shards, array.chunks)
    single[..., : pixels.shape[-2], : pixels.shape[-1]] = pixels
    content: bytes = memory["/".join(["c", *["0"] * pixels.ndim])].to_bytes()
    return content


def _shard_shape(array: zarr.Array[Any]) -> tuple[int, int]:
    """(rows, columns) of a shard."""
    assert array.shards is not None  # every store is made by create_store
    rows, cols = array.shards[-2:]
    return rows, cols


def _shard_index(array: zarr.Array[Any], window: Window) -> tuple[int, int]:
    (height, width), (rows, cols) = array.shape[-2:], _shard_shape(array)
    row, col = window.row_off // rows, window.col_off // cols
    if Window(col * cols, row * rows, cols, rows).intersection(Window(0, 0, width, height)) != window:
        raise ValueError(
            f"row_off={window.row_off} col_off={window.col_off} height={window.height} width={window.width} is "
            f"not a shard of {rows} x {cols} in a scene of {height} x {width}: offsets must be multiples of the "
            "shard and the extent the whole shard, clipped to the scene. Two writers in one file would "
            "overwrite each other; write blocks of the shard's size, or create the store with the block's."
        )
    return row, col


def _mask_attributes(classes: ClassTable) -> dict[str, Any]:
    return {
        "long_name": "class mask",
        "_FillValue": NODATA,
        "flag_values": list(range(len(classes))),
        # CF separates meanings by blanks, so a name's own become underscores.
        "flag_meanings": " ".join("_".join(name.split()) for name in classes.names),
        "flag_colors": " ".join(classes.colors),
    }


def _scaled(long_name: str) -> dict[str, Any]:
    return {
        "long_name": long_name,
        "_FillValue": NODATA,
        "scale_factor": 1 / PROBABILITY_STEPS,
        "add_offset": 0.0,
        "units": "1",
    }


def _centres(size: int, count: int) -> NDArray[np.int64]:
    """The ``count`` pixels of ``size`` that lie under the centres of ``count`` equal parts."""
    return ((2 * np.arange(count, dtype=np.int64) + 1) * size) // (2 * count)


def _check_same(template: Path, path: Path) -> None:
    """Refuse a store whose arrays or their metadata differ from the template's."""
    for name in sorted(_documents(template) | _documents(path)):
        wanted, found = _read_document(template / name), _read_document(path / name)
        different = [key for key in wanted | found if found.get(key) != wanted.get(key)]
        if different:
            raise InputError(
                f"{path} exists and is the class mask of another scene or class table, or has other products "
                f"({name}: {', '.join(different)} differ). Remove it or choose another output."
            )


def _documents(store: Path) -> set[str]:
    """Where the metadata of the store and of its arrays are."""
    files = [*store.glob("zarr.json"), *store.glob("*/zarr.json")]
    return {file.relative_to(store).as_posix() for file in files}


def _read_document(file: Path) -> dict[str, Any]:
    """Empty where there is none, or none that can be read."""
    try:
        document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return document
