"""A square of a scene, and the prediction of it as a whole: what all predictions in windows are compared with."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from segbatch.bench.material import Material
from segbatch.bench.processes import own_peak
from segbatch.classes import NODATA
from segbatch.commands.plan import open_request
from segbatch.errors import InputError
from segbatch.geometry import Window
from segbatch.scenes import open_scene

SCENE_BORDER = 256
"""Pixels from the border of a scene within which predictions may differ for what they suppose beyond it."""


@dataclass(frozen=True, slots=True)
class Square:
    """A part of a scene.

    Args:
        values: File of (bands, rows, columns) pixels as stored, in the order of the model's channels.
        valid: File of (rows, columns) bool.
        scene: The same as a raster.
        shape: (rows, columns).
    """

    values: Path
    valid: Path
    scene: Path
    shape: tuple[int, int]

    def read(self) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Pixels, and which are valid."""
        return np.load(self.values), np.load(self.valid)


def cut_square(material: Material, folder: Path, side: int) -> Square:
    """Cut the middle out of a scene; sides are multiples of the model's stride, so that it can be predicted whole.

    Raises:
        InputError: The scene is too small.
    """
    opened = open_request(material.request(folder))
    scene, stride = opened.scenes[0], opened.card.stride
    info = scene.info
    height, width = (min(side, extent) // stride * stride for extent in (info.height, info.width))
    if not height or not width:
        raise InputError(f"{info.uri} is smaller than the model's stride of {stride} pixels: take a larger scene.")
    window = Window((info.width - width) // 2, (info.height - height) // 2, width, height)
    with open_scene(info.uri, info.nodata) as reader:
        pixels = reader.read(window, scene.bands)
    names = [info.band_names[band - 1] for band in scene.bands]
    paths = [folder / name for name in ("square.npy", "square_valid.npy", "square.tif")]
    np.save(paths[0], pixels.values)
    np.save(paths[1], pixels.valid)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            paths[2], "w", driver="GTiff", width=width, height=height, count=len(names), dtype=info.dtype,
            crs=info.crs, transform=info.transform @ rasterio.Affine.translation(window.col_off, window.row_off),
            tiled=True, photometric="MINISBLACK",
        ) as file,
    ):  # fmt: skip
        file.write(pixels.values)
        file.descriptions = [name or None for name in names]
        if not pixels.valid.all():
            file.write_mask(pixels.valid)
    return Square(paths[0], paths[1], paths[2], (height, width))


@dataclass(frozen=True, slots=True)
class Whole:
    """The square predicted at once, by PyTorch as it is in float32.

    Args:
        mask: File of (rows, columns) class ids.
        seconds: Of the forward pass.
        memory: Peak resident bytes of the process.
    """

    mask: Path
    seconds: float
    memory: int


def predict_whole(bundle: Path, square: Square) -> Whole:
    """Predict a square at once; call it in a process of its own."""
    import torch

    from segbatch.models.backends.forward import Forward
    from segbatch.models.bundle import load_bundle

    loaded = load_bundle(bundle)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.allow_tf32 = False
    forward = Forward(loaded.model, loaded.card.mean, loaded.card.std, device=device)
    values, valid = square.read()
    started = time.perf_counter()
    pixels, known = torch.from_numpy(values[None]).to(device), torch.from_numpy(valid[None, None]).to(device)
    mask = forward.classes(pixels, known)[0].cpu().numpy()
    seconds = time.perf_counter() - started
    path = square.values.with_name("whole.npy")
    np.save(path, np.where(valid, mask, NODATA).astype(np.uint8))
    return Whole(path, seconds, own_peak())
