"""What a scene is, and the port through which every format is read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from segbatch.errors import InputError
from segbatch.geometry import Window


class Pixels(NamedTuple):
    """Pixels of a window and which of them are real.

    Args:
        values: (bands, height, width), dtype as stored.
        valid: (height, width) bool, True = a real pixel.
    """

    values: NDArray[np.generic]
    valid: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SceneInfo:
    """What is known of a scene without reading its pixels.

    Args:
        uri: Path or URL.
        width: Columns.
        height: Rows.
        dtype: numpy's name of the pixel type.
        band_names: One a band; an empty string where the file names none.
        alpha: 1-based number of the band that says which pixels are real, or None.
        nodata: Fill value, or None.
        crs: WKT, or None for scenes without a map.
        transform: From (column, row) to CRS units; the identity without a map.
        size: Bytes of the file, or -1 where that cannot be told.
        modified: Modification time in nanoseconds, or -1 where that cannot be told.
    """

    uri: str
    width: int
    height: int
    dtype: str
    band_names: tuple[str, ...]
    alpha: int | None
    nodata: float | None
    crs: str | None
    transform: Affine
    size: int
    modified: int

    @property
    def window(self) -> Window:
        """The whole scene."""
        return Window(0, 0, self.width, self.height)

    @property
    def data_bands(self) -> tuple[int, ...]:
        """1-based numbers of all bands but the alpha band."""
        return tuple(band for band in range(1, len(self.band_names) + 1) if band != self.alpha)

    def select_bands(self, wanted: Sequence[int | str] | None) -> tuple[int, ...]:
        """1-based numbers of the bands named by number or name; None means all data bands.

        Raises:
            InputError: A band does not exist.
        """
        if wanted is None:
            return self.data_bands
        return tuple(self._band(band) for band in wanted)

    def _band(self, wanted: int | str) -> int:
        if isinstance(wanted, int):
            if 1 <= wanted <= len(self.band_names):
                return wanted
            raise InputError(f"{self.uri}: band {wanted} asked for, but bands are 1 to {len(self.band_names)}.")
        names = [name.casefold() for name in self.band_names]
        if names.count(wanted.casefold()) != 1:
            listed = ", ".join(name or "(no name)" for name in self.band_names)
            numbers = "" if all(self.band_names) else ". Give numbers, from 1"
            raise InputError(f"{self.uri}: no single band is named {wanted!r}; its bands: {listed}{numbers}.")
        return names.index(wanted.casefold()) + 1


class SceneReader(Protocol):
    """An open scene. Not safe for threads: open one a thread."""

    info: SceneInfo

    def read(self, window: Window, bands: Sequence[int]) -> Pixels:
        """Read a window that lies inside the scene.

        Args:
            window: Pixels of the scene.
            bands: 1-based band numbers.

        Raises:
            SceneReadError: The file is damaged or went away.
        """
        ...

    def thumbnail(self, max_side: int, bands: Sequence[int]) -> Pixels:
        """The whole scene, shrunk so that no side exceeds ``max_side`` pixels (nearest neighbour)."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


def open_scene(uri: str, nodata: float | None = None, grid: SceneInfo | None = None) -> SceneReader:
    """Open a scene with the driver that takes it.

    Args:
        uri: Path or URL.
        nodata: Fill value that overrides the file's own.
        grid: A scene on a map whose grid to read it on, by nearest neighbour; None for its own.

    Raises:
        InputError: There is no such file, or it is not an image.
    """
    from segbatch.scenes.raster import RasterScene

    return RasterScene(uri, nodata, grid)


def read_padded(reader: SceneReader, window: Window, bands: Sequence[int]) -> Pixels:
    """Read a window that may reach beyond the scene; what is outside is 0 and not valid."""
    inside = window.intersection(reader.info.window)
    if inside == window:
        return reader.read(window, bands)
    values = np.zeros((len(bands), window.height, window.width), reader.info.dtype)
    valid = np.zeros((window.height, window.width), bool)
    if inside is not None:
        pixels = reader.read(inside, bands)
        rows, cols = inside.relative_to(window).slices
        values[:, rows, cols] = pixels.values
        valid[rows, cols] = pixels.valid
    return Pixels(values, valid)
