"""Pictures of a scene: the image, its label and its class mask as tiles of one size."""

import base64
import io
import textwrap
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from segbatch.classes import ClassTable, LabelMap
from segbatch.errors import InputError
from segbatch.masks import is_store, thumbnail
from segbatch.masks.describe import describe_mask
from segbatch.redaction import redact
from segbatch.report.summary import SceneResult
from segbatch.scenes import LabelReader, Pixels, SceneInfo, open_scene

MAX_SIDE = 640
"""Longest side of a tile in pixels."""

_CHECKER = (np.uint8(250), np.uint8(232))
_CHECKER_SIDE = 8
_GUTTER = 8
_DARK = 96
"""A uint8 image whose 98th percentile is below this is stretched, too."""


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """One picture of a panel.

    Args:
        caption: What it shows: image, label or class mask.
        pixels: RGB, uint8 (height, width, 3); what has no value is a light checkerboard.
        problem: Why it could not be read, or None; then ``pixels`` is a grey placeholder.
    """

    caption: str
    pixels: NDArray[np.uint8]
    problem: str | None = None


def _grid(scene: SceneResult) -> SceneInfo:
    """Whose grid the label is shown on: its scene's, its mask's, or else its own."""
    if scene.image is not None:
        with suppress(InputError), open_scene(scene.image) as reader:  # its own picture says why it cannot be read
            return reader.info
    if scene.mask is not None:
        return describe_mask(scene.mask)[0]
    assert scene.label is not None
    with open_scene(scene.label) as reader:
        return reader.info


def scene_tiles(
    scene: SceneResult,
    classes: ClassTable,
    label_map: LabelMap,
    bands: Sequence[int | str] | None = None,
    nodata: float | None = None,
    max_side: int = MAX_SIDE,
) -> tuple[Tile, ...]:
    """The image, the label if there is one, and the class mask, all of one size.

    Args:
        scene: A scene that was mapped.
        classes: Names and colours.
        label_map: From label values to class ids.
        bands: Bands to show by number or name, three as RGB, else the first as grey; None means the bands
            named red, green and blue, or else the first three.
        nodata: Fill value that overrides the image's own.
        max_side: Longest side in pixels.
    """
    shape = _tile_shape(scene.width, scene.height, max_side)

    def image() -> NDArray[np.uint8]:
        assert scene.image is not None
        with open_scene(scene.image, nodata) as reader:
            return image_rgb(reader.thumbnail(max_side, shown_bands(reader.info, bands)))

    def label() -> NDArray[np.uint8]:
        assert scene.label is not None
        with LabelReader(scene.label, label_map, _grid(scene)) as found:
            return class_rgb(found.thumbnail(max_side), classes)

    def mask() -> NDArray[np.uint8]:
        if scene.mask is None:
            raise FileNotFoundError("no class mask was kept")
        return class_rgb(_read_mask(scene.mask, max_side), classes)

    tiles = [_tile("image", image, shape)] if scene.image is not None else []
    if scene.label is not None:
        tiles.append(_tile("label", label, shape))
    tiles.append(_tile("class mask", mask, shape))
    return tuple(tiles)


def shown_bands(info: SceneInfo, wanted: Sequence[int | str] | None = None) -> tuple[int, ...]:
    """Which bands a picture shows: three as RGB, else one as grey; see `scene_tiles`."""
    if wanted is not None:
        bands = info.select_bands(wanted)
    else:
        names = [name.casefold() for name in info.band_names]
        colors = ("red", "green", "blue")
        known = all(names.count(color) == 1 for color in colors)
        bands = info.select_bands(colors) if known else info.data_bands
    return bands[:3] if len(bands) >= 3 else bands[:1]


def image_rgb(pixels: Pixels) -> NDArray[np.uint8]:
    """A displayable picture, uint8 (height, width, 3), of one or three bands.

    Each band is stretched from its 2nd to its 98th percentile over the valid pixels; uint8 is shown as it
    is unless it is dark.
    """
    values, valid = pixels
    stretch = values.dtype != np.uint8 or _is_dark(values[:, valid].astype(np.uint8))
    channels = [_stretched(band, valid) if stretch else band.astype(np.uint8) for band in values]
    rgb = np.stack(channels if len(channels) == 3 else channels[:1] * 3, axis=-1)
    return np.where(valid[..., None], rgb, _checkerboard(valid.shape))


def class_rgb(ids: NDArray[np.uint8], classes: ClassTable) -> NDArray[np.uint8]:
    """Class ids (height, width) in the classes' colours, uint8 (height, width, 3)."""
    return np.where((ids < len(classes))[..., None], classes.palette()[ids], _checkerboard(ids.shape))


def panel_png(tiles: Sequence[Tile]) -> bytes:
    """The tiles side by side as a PNG; a tile that could not be read says why."""
    height = tiles[0].pixels.shape[0]
    gutter = np.full((height, _GUTTER, 3), 255, np.uint8)
    strips: list[NDArray[np.uint8]] = []
    for tile in tiles:
        strips += [_lettered(tile), gutter]
    return _encode(np.concatenate(strips[:-1], axis=1), "PNG")


def encoded(tile: Tile) -> tuple[bytes, Literal["jpeg", "png"]]:
    """A tile as a file and the file's kind: JPEG for photographs, PNG for flat colours."""
    if tile.caption == "image":
        return _encode(tile.pixels, "JPEG"), "jpeg"
    return _encode(tile.pixels, "PNG"), "png"


def tile_uri(tile: Tile) -> str:
    """A tile as a ``data:`` URI."""
    return data_uri(*encoded(tile))


def data_uri(content: bytes, kind: str) -> str:
    """A picture as a ``data:`` URI."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _read_mask(path: str, max_side: int) -> NDArray[np.uint8]:
    """A class mask, shrunk: a Zarr store is a folder, all else is a raster."""
    if is_store(path):
        return thumbnail(path, max_side)
    with open_scene(path) as reader:
        mask: NDArray[np.uint8] = reader.thumbnail(max_side, (1,)).values[0].astype(np.uint8)
    return mask


def _tile(caption: str, read: Callable[[], NDArray[np.uint8]], shape: tuple[int, int]) -> Tile:
    try:
        return Tile(caption, _resized(read(), shape))
    except Exception as error:  # a picture that cannot be had, whatever the cause, must not cost the figures
        problem = " ".join(redact(str(error)).split()) or type(error).__name__
        return Tile(caption, np.full((*shape, 3), 224, np.uint8), problem)


def _tile_shape(width: int, height: int, max_side: int) -> tuple[int, int]:
    factor = max(1.0, width / max_side, height / max_side)
    return max(1, round(height / factor)), max(1, round(width / factor))


def _is_dark(values: NDArray[np.uint8]) -> bool:
    return values.size > 0 and float(np.percentile(values, 98)) < _DARK


def _stretched(band: NDArray[np.generic], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    values = band.astype(np.float64)
    if not valid.any():
        return np.zeros(band.shape, np.uint8)
    low, high = np.percentile(values[valid], (2, 98))
    if low == high:
        low, high = values[valid].min(), values[valid].max()
    if low == high:
        return np.full(band.shape, 128, np.uint8)
    scaled = np.where(valid, (values - low) / (high - low), 0.0)
    stretched: NDArray[np.uint8] = np.rint(scaled.clip(0, 1) * 255).astype(np.uint8)
    return stretched


def _checkerboard(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Light grey squares, (height, width, 1)."""
    rows, cols = np.indices(shape, np.int32) // _CHECKER_SIDE
    return np.where((rows + cols) % 2, *_CHECKER)[..., None]


def _resized(rgb: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Nearest neighbour: pyramids of class masks shrink by their own factors."""
    rows = np.arange(shape[0]) * rgb.shape[0] // shape[0]
    cols = np.arange(shape[1]) * rgb.shape[1] // shape[1]
    resized: NDArray[np.uint8] = rgb[rows[:, None], cols]
    return resized


def _lettered(tile: Tile) -> NDArray[np.uint8]:
    if tile.problem is None:
        return tile.pixels
    picture = Image.fromarray(tile.pixels)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    per_line = max(8, int((picture.width - 24) // font.getlength("n")))
    text = f"{tile.caption} cannot be shown: {tile.problem}"
    draw.multiline_text((12, 12), textwrap.fill(text, per_line), fill=(90, 90, 90), font=font)
    return np.asarray(picture)


def _encode(rgb: NDArray[np.uint8], kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(file, kind, quality=85, optimize=True)
    return file.getvalue()
