"""Labels that are rasters: class ids or other whole numbers, palettes, and masks whose colours stand for classes."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from segbatch.classes import IGNORE_INDEX, LabelMap, ValueMap, packed
from segbatch.errors import InputError, SceneReadError
from segbatch.geometry import Window
from segbatch.scenes.scene import Pixels, SceneInfo

if TYPE_CHECKING:
    from segbatch.scenes.raster import RasterScene

_QUICK_LOOK = 1024
"""Side in pixels of the shrunken label that is searched for unknown values before work begins."""

_MANY_COLORS = 16
"""More colours without a class than these were not drawn by hand."""


@dataclass(frozen=True, slots=True)
class _Coding:
    """How the pixels of a label stand for classes.

    Args:
        bands: To read: one of values, or three of colours, or four with one that says what is transparent.
        values: From their numbers to class ids.
        nodata: Number of what is nodata, or None.
        palette: Colours of a one-band label's values as '#rrggbb', where it goes by them.
        lossy: Whether the file keeps pixels only roughly.
    """

    bands: tuple[int, ...]
    values: ValueMap
    nodata: float | None
    palette: dict[int, str] | None
    lossy: bool

    @property
    def in_colors(self) -> bool:
        """Whether classes are told by colours."""
        return len(self.bands) > 1 or self.palette is not None

    def numbers(self, pixels: Pixels) -> NDArray[np.integer]:
        """One number a pixel, (height, width)."""
        if len(self.bands) == 1:
            values = pixels.values[0]
            assert np.issubdtype(values.dtype, np.integer)  # check_label refused all else
            return values
        red, green, blue = pixels.values[:3].astype(np.uint32)
        return red << 16 | green << 8 | blue

    def hidden(self, pixels: Pixels, numbers: NDArray[np.integer], nodata: float | None) -> NDArray[np.bool_]:
        """Pixels that the label's alpha band or mask hides; its nodata value is the label map's affair."""
        hidden = ~pixels.valid if nodata is None else ~pixels.valid & (numbers != self.nodata)
        return hidden | (pixels.values[3] == 0) if len(self.bands) == 4 else hidden

    def named(self, number: int) -> str:
        """A number as people know it."""
        if self.palette is not None:
            return self.palette.get(number, str(number))
        return f"#{number:06x}" if self.in_colors else str(number)


class RasterLabel:
    """A raster read as class ids, on the grid of its scene; see `LabelReader`."""

    def __init__(self, uri: str, label_map: LabelMap, scene: SceneInfo) -> None:
        from segbatch.scenes.raster import RasterScene

        self._uri, self._label_map = uri, label_map
        self._reader = RasterScene(uri)
        try:
            self._coding = _coding(self._reader, label_map)
        except InputError:
            self._reader.close()
            raise
        if not fits(scene, self._reader.info):
            self._reader.close()
            self._reader = RasterScene(uri, grid=scene)

    def read(self, window: Window) -> NDArray[np.uint8]:
        """See `LabelReader.read`."""
        return self._ids(self._reader.read(window, self._coding.bands))

    def thumbnail(self, max_side: int) -> NDArray[np.uint8]:
        """See `LabelReader.thumbnail`."""
        return self._ids(self._reader.thumbnail(max_side, self._coding.bands))

    def close(self) -> None:
        """Release the file."""
        self._reader.close()

    def _ids(self, pixels: Pixels) -> NDArray[np.uint8]:
        coding = self._coding
        numbers = coding.numbers(pixels)
        hidden = coding.hidden(pixels, numbers, self._reader.info.nodata)
        unknown = coding.values.unknown(numbers[~hidden], coding.nodata)
        if unknown:
            raise SceneReadError(_unknown_message(self._uri, unknown, coding, self._label_map))
        ids = coding.values.apply(numbers, coding.nodata)
        ids[hidden] = IGNORE_INDEX
        return ids


def check_raster_label(scene: SceneInfo, uri: str, label_map: LabelMap) -> str:
    """Refuse a raster that is no label of its scene; see `check_label`.

    Values are checked on a shrunken copy, so a rare unknown value may slip through; reading finds it later.
    """
    from segbatch.scenes.raster import RasterScene

    with RasterScene(uri) as reader:
        label, coding = reader.info, _coding(reader, label_map)
        by_id = coding.values.pairs is None
        if by_id and label.nodata is not None and 0 <= label.nodata < label_map.num_classes:
            raise InputError(
                f"Label {uri} says that {label.nodata:g} is nodata, but it is a class id too. Say with label_values "
                "which values are classes."
            )
        on_maps = bool(scene.crs and label.crs)
        if not on_maps and (label.width, label.height) != (scene.width, scene.height):
            raise InputError(
                f"Label {uri} is {label.width} x {label.height} pixels, but its scene {scene.uri} is "
                f"{scene.width} x {scene.height}, and without a CRS of both there is no telling where it belongs."
            )
        if on_maps and not _overlap(scene, label):
            raise InputError(f"Label {uri} lies elsewhere than its scene {scene.uri}: no pixel of it has a label.")
        try:
            pixels = reader.thumbnail(_QUICK_LOOK, coding.bands)
        except SceneReadError as error:
            raise InputError(str(error)) from error
    numbers = coding.numbers(pixels)
    shown = numbers[~coding.hidden(pixels, numbers, label.nodata)]
    unknown = coding.values.unknown(shown, coding.nodata)
    if unknown:
        raise InputError(_unknown_message(uri, unknown, coding, label_map))
    notes = []
    if coding.in_colors and len(others := coding.values.others(shown, coding.nodata)) > _MANY_COLORS:
        notes.append(
            f"Label {uri} has {len(others)} colours that label_values does not name ({_listed(others, coding)}): "
            "they are ignored. Smoothed edges and lossy compression make such colours."
        )
    if not fits(scene, label):
        notes.append(_placing_note(scene, label))
    return "\n".join(filter(None, notes))


def _coding(reader: "RasterScene", label_map: LabelMap) -> _Coding:
    """How a label stands for classes.

    Raises:
        InputError: It cannot.
    """
    label, lossy = reader.info, reader.is_lossy
    bands, uri = label.data_bands, label.uri
    if not np.issubdtype(np.dtype(label.dtype), np.integer):
        raise InputError(f"Label {uri} holds {label.dtype}; class labels are whole numbers.")
    if len(bands) == 1:
        values, palette = label_map.of_values, None
        if values.pairs is None and label_map.has_colors:
            palette = reader.palette()
        if palette is not None:
            by_color = dict(label_map.of_colors.pairs or ())
            pairs = ((value, by_color[packed(color)]) for value, color in palette.items() if packed(color) in by_color)
            values = ValueMap(label_map.num_classes, tuple(pairs), label_map.of_colors.strict)
        nodata = label.nodata
    elif len(bands) in (3, 4) and label.dtype == "uint8":
        values, palette = label_map.of_colors, None
        nodata = None if label.nodata is None else label.nodata * 0x010101
    else:
        raise InputError(
            f"Label {uri} has {len(bands)} bands of {label.dtype}; segbatch takes a single one, or three (four with "
            "transparency) of uint8 whose colours stand for classes."
        )
    # What loss makes of a value is another one, so that ignoring the others would ignore half of the label.
    return _Coding(bands, replace(values, strict=values.strict or lossy), nodata, palette, lossy)


def fits(scene: SceneInfo, label: SceneInfo) -> bool:
    """Whether a label can be read pixel by pixel beside its scene."""
    if (label.width, label.height) != (scene.width, scene.height):
        return False
    return not (scene.crs and label.crs) or same_grid(scene, label)


def _overlap(scene: SceneInfo, label: SceneInfo) -> bool:
    """Whether two rasters on maps may have a place in common, by their outlines in the label's CRS.

    Not in the scene's: a label may reach beyond where that makes sense.
    """
    from rasterio.crs import CRS
    from rasterio.warp import transform_bounds

    from segbatch.scenes.raster import GDAL_ERRORS

    assert scene.crs is not None
    assert label.crs is not None
    try:
        here = transform_bounds(CRS.from_wkt(scene.crs), CRS.from_wkt(label.crs), *_bounds(scene))
    except GDAL_ERRORS as error:
        raise InputError(f"Label {label.uri} cannot be brought onto its scene {scene.uri}: {error}") from error
    there = _bounds(label)
    if not np.isfinite(here).all() or here[0] > here[2]:  # across the antimeridian
        return True
    return all(max(here[axis], there[axis]) < min(here[axis + 2], there[axis + 2]) for axis in (0, 1))


def _bounds(info: SceneInfo) -> tuple[float, float, float, float]:
    corners = ((0, 0), (info.width, 0), (0, info.height), (info.width, info.height))
    xs, ys = zip(*(info.transform @ corner for corner in corners), strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def same_grid(one: SceneInfo, other: SceneInfo) -> bool:
    """Whether two rasters have one CRS and transform (corners within a tenth of a pixel)."""
    return _offset(one, other) == (0, 0)


def _offset(one: SceneInfo, other: SceneInfo) -> tuple[int, int] | None:
    """Column and row of one raster's first pixel in another, in whole pixels; None where their pixels differ.

    Corners of the first within a tenth of a pixel are the same.
    """
    from rasterio.crs import CRS

    if one.crs and other.crs and CRS.from_wkt(one.crs) != CRS.from_wkt(other.crs):
        return None
    to_pixels: Affine = ~one.transform
    first_col, first_row = to_pixels @ (other.transform @ (0, 0))
    offset = round(first_col), round(first_row)
    for corner in ((0, 0), (one.width, 0), (0, one.height), (one.width, one.height)):
        col, row = to_pixels @ (other.transform @ corner)
        if max(abs(col - corner[0] - offset[0]), abs(row - corner[1] - offset[1])) > 0.1:
            return None
    return offset


def _placing_note(scene: SceneInfo, label: SceneInfo) -> str:
    """What users should know of how a label that is no pixel by pixel match comes onto its scene; empty if nothing."""
    offset = _offset(scene, label)
    if offset is None:
        return f"Label {label.uri} is on another grid than its scene: resampling it by nearest neighbour."
    shared = Window(*offset, label.width, label.height).intersection(scene.window)
    share = shared.area / scene.window.area if shared else 0.0
    if share == 1:
        return ""
    return f"Label {label.uri} covers {min(share, 0.999):.1%} of its scene: the other pixels have no label."


def _unknown_message(uri: str, unknown: list[int], coding: _Coding, label_map: LabelMap) -> str:
    what = "colours" if coding.in_colors else "values"
    message = f"Label {uri} has {what} without a class: {_listed(unknown, coding)}. "
    if coding.lossy:
        return f"{message}It is compressed with loss, which changes {what}: save labels as PNG or TIFF."
    if not coding.in_colors:
        return f"{message}Classes are 0 to {label_map.num_classes - 1} (255 is ignored); map others with label_values."
    if len(unknown) > _MANY_COLORS:
        message += "So many come of smoothed edges or lossy compression: export the label without. "
    if label_map.classes is not None and not label_map.has_colors:
        own = [f"{name} {color}" for name, color in zip(label_map.classes.names, label_map.classes.colors, strict=True)]
        message += f"Classes are {', '.join(own[:8])}{', ...' if len(own) > 8 else ''}; "
    return f"{message}map others with label_values, in quotes: '#1f78b4'."


def _listed(numbers: list[int], coding: _Coding) -> str:
    return ", ".join(coding.named(number) for number in numbers[:8]) + (", ..." if len(numbers) > 8 else "")
