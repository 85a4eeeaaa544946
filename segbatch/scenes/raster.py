"""Rasters that GDAL reads: GeoTIFF, COG, PNG, JPEG, VRT and many more."""

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Self

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, Compression, MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RasterioWindow

from segbatch.errors import InputError, SceneReadError
from segbatch.geometry import Window
from segbatch.scenes.remote import refuse_redacted
from segbatch.scenes.scene import Pixels, SceneInfo

# Micrographs and photographs have no map, and that is no fault of theirs. For good, not around each call: threads
# that change the filters at the same time undo each other's change.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)

# What goes wrong is in the errors. In the log, which Ray keeps of a training, GDAL names files with their signatures.
logging.getLogger("rasterio").setLevel(logging.CRITICAL)

GDAL_ERRORS = (RasterioError, CPLE_BaseError)
"""rasterio has no public name for what a failed transformation raises."""

_PIXEL_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")

_GDAL_OPTIONS = {
    # GDAL's short cut for whole PNGs returns garbage, and no error, where the file is cut short.
    "GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO",
}

_WEB_OPTIONS = {
    # By itself GDAL waits for ever for a server that has stopped answering, and asks none a second time.
    "GDAL_HTTP_CONNECTTIMEOUT": "30",
    "GDAL_HTTP_LOW_SPEED_TIME": "60",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "1",
}
"""What a user's environment does not say otherwise, in seconds and bytes a second."""


_SMALL_CACHE_BYTES = 64 * 2**20


@contextmanager
def small_cache() -> Iterator[None]:
    """Keep few decoded blocks, for readers that read each pixel once.

    GDAL would fill a twentieth of the memory, in each of a machine's processes.
    """
    with rasterio.Env(GDAL_CACHEMAX=_SMALL_CACHE_BYTES):
        yield


class RasterScene:
    """A raster read through rasterio.

    Args:
        uri: Path or URL.
        nodata: Fill value that overrides the file's own.
        grid: A raster whose grid to read it on, by nearest neighbour. What the file does not cover is not valid then,
            and its nodata is a value as any other.
    """

    def __init__(self, uri: str, nodata: float | None = None, grid: SceneInfo | None = None) -> None:
        refuse_redacted(uri)
        if "://" not in uri and not uri.startswith("/vsi") and not os.path.isfile(uri):
            what = "is a folder, not an image" if os.path.isdir(uri) else "does not exist"
            raise InputError(f"{uri} {what}.")
        if os.path.isfile(uri) and not os.path.getsize(uri):
            raise InputError(f"{uri} is empty: it has 0 bytes.")
        try:
            with rasterio.Env(**gdal_options()):
                self._file = rasterio.open(uri)
                self._dataset = self._file if grid is None else _resampled(self._file, grid)
        except GDAL_ERRORS as error:
            raise InputError(f"{uri} cannot be read as an image: {error}") from error
        self.info = _describe(uri, self._dataset, nodata)

    def read(self, window: Window, bands: Sequence[int]) -> Pixels:
        """See `SceneReader.read`."""
        rectangle = RasterioWindow(window.col_off, window.row_off, window.width, window.height)
        return self._read(bands, rectangle, (window.height, window.width))

    def thumbnail(self, max_side: int, bands: Sequence[int]) -> Pixels:
        """See `SceneReader.thumbnail`."""
        info = self.info
        factor = max(1.0, info.width / max_side, info.height / max_side)
        shape = max(1, round(info.height / factor)), max(1, round(info.width / factor))
        return self._read(bands, RasterioWindow(0, 0, info.width, info.height), shape)

    def palette(self) -> dict[int, str] | None:
        """The colour table of the first band, '#rrggbb' by value, or None."""
        try:
            colors = self._file.colormap(1)
        except ValueError:
            return None
        return {value: f"#{red:02x}{green:02x}{blue:02x}" for value, (red, green, blue, _) in colors.items()}

    @property
    def is_lossy(self) -> bool:
        """Whether the file surely keeps pixels only roughly."""
        return self._file.driver == "JPEG" or self._file.compression == Compression.jpeg

    def close(self) -> None:
        """Release the file."""
        self._dataset.close()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _read(self, bands: Sequence[int], window: RasterioWindow, shape: tuple[int, int]) -> Pixels:
        try:
            with rasterio.Env(**gdal_options()):
                values = self._dataset.read(
                    list(bands), window=window, out_shape=(len(bands), *shape), resampling=Resampling.nearest
                )
                valid = self._valid(values, bands, window, shape)
        except RasterioError as error:
            raise SceneReadError(f"{self.info.uri} is damaged: {_cause(error)}") from error
        return Pixels(values, valid)

    def _valid(
        self, values: NDArray[np.generic], bands: Sequence[int], window: RasterioWindow, shape: tuple[int, int]
    ) -> NDArray[np.bool_]:
        """A pixel is real unless alpha or the file's mask says no, all bands are nodata, or one is not finite."""
        valid = np.ones(shape, bool)
        nodata = self.info.nodata
        if nodata is not None and not np.isnan(nodata):
            valid &= (values != nodata).any(axis=0)
        if np.issubdtype(values.dtype, np.floating):
            valid &= np.isfinite(values).all(axis=0)
        if self.info.alpha is not None and self.info.alpha not in bands:
            valid &= self._dataset.read(self.info.alpha, window=window, out_shape=shape) > 0
        if MaskFlags.per_dataset in self._flags and MaskFlags.alpha not in self._flags:
            valid &= self._dataset.read_masks(1, window=window, out_shape=shape) > 0
        return valid

    @property
    def _flags(self) -> list[MaskFlags]:
        return self._dataset.mask_flag_enums[0]


def gdal_options() -> dict[str, str]:
    """How GDAL opens a file, as far as the user's environment does not say otherwise."""
    wanted = _WEB_OPTIONS | _s3_server()
    return _GDAL_OPTIONS | {name: value for name, value in wanted.items() if name not in os.environ}


def _s3_server() -> dict[str, str]:
    """A server of one's own in GDAL's names, where the environment names it as all others know it."""
    url = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not url:
        return {}
    scheme, _, host = url.rpartition("://")
    return {
        "AWS_S3_ENDPOINT": host.rstrip("/"),
        "AWS_HTTPS": "NO" if scheme == "http" else "YES",
        "AWS_VIRTUAL_HOSTING": "FALSE",
    }


def _resampled(file: rasterio.DatasetReader, grid: SceneInfo) -> WarpedVRT:
    """A file on another grid, by nearest neighbour."""
    return WarpedVRT(
        file,
        crs=grid.crs,
        transform=grid.transform,
        width=grid.width,
        height=grid.height,
        resampling=Resampling.nearest,
        # Places by the exact transformation, not by GDAL's approximation of it; some versions take 0 for no warper.
        tolerance=1e-9,
        # What is outside the file is not what is nodata in it.
        src_nodata=None,
        nodata=None,
        add_alpha=_alpha_band(file) is None,
    )


def _describe(uri: str, dataset: rasterio.DatasetReader, nodata: float | None) -> SceneInfo:
    if dataset.count == 0:
        raise InputError(f"{uri} has no bands of its own; name one of its subdatasets.")
    alpha = _alpha_band(dataset)
    types = {dtype for band, dtype in enumerate(dataset.dtypes, start=1) if band != alpha}
    if len(types) > 1:
        raise InputError(f"{uri} has bands of different types ({', '.join(sorted(types))}); convert them to one.")
    (dtype,) = types
    if dtype not in _PIXEL_TYPES:
        raise InputError(f"{uri} has pixels of type {dtype}; segbatch reads {', '.join(_PIXEL_TYPES)}.")
    try:
        status = os.stat(uri)
        size, modified = status.st_size, status.st_mtime_ns
    except OSError:
        size, modified = -1, -1
    return SceneInfo(
        uri=uri,
        width=dataset.width,
        height=dataset.height,
        dtype=dtype,
        band_names=tuple(name or "" for name in dataset.descriptions),
        alpha=alpha,
        nodata=dataset.nodata if nodata is None else nodata,
        crs=dataset.crs.to_wkt() if dataset.crs else None,
        transform=dataset.transform,
        size=size,
        modified=modified,
    )


def _alpha_band(dataset: rasterio.DatasetReader) -> int | None:
    """The alpha band, or None.

    Aerial imagery often has near infrared in a fourth band that is tagged as alpha for want of a better
    tag, so a band that has a name of its own is data.
    """
    for band, (kind, name) in enumerate(zip(dataset.colorinterp, dataset.descriptions, strict=True), start=1):
        if kind == ColorInterp.alpha and (not name or "alpha" in name.casefold()):
            return band if dataset.count > 1 else None
    return None


def _cause(error: BaseException) -> str:
    """The innermost message: rasterio's own says only 'see previous exception'."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)
