"""Other programs' ways to predict an image in windows, each as its makers document it.

All take the same model and the same normalised image and give logits or probabilities, from which class ids are
taken alike. They are optional: ``uv sync --group peers``. They are imported by name where they are used, so that
one which is missing takes nothing down.
"""

import importlib.util
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import numpy as np
import torch

Model = Callable[[torch.Tensor], torch.Tensor]
Options = Mapping[str, Any]

PACKAGES = {
    "monai": "monai",
    "terratorch": "terratorch",
    "toolbelt": "pytorch_toolbelt",
    "tiler": "tiler",
}
"""What each program's package is called in Python."""


def is_installed(tool: str) -> bool:
    """Whether a program is there."""
    return importlib.util.find_spec(PACKAGES[tool]) is not None


def tile(tool: str, model: Model, image: torch.Tensor, options: Options) -> torch.Tensor:
    """Predict an image with a program.

    Args:
        tool: One of `PACKAGES`.
        model: From (batch, bands, rows, columns) to logits.
        image: (1, bands, rows, columns), normalised.
        options: The program's own.

    Returns:
        (classes, rows, columns).
    """
    return _TILERS[tool](model, image, options)


def _monai(model: Model, image: torch.Tensor, options: Options) -> torch.Tensor:
    found = import_module("monai.inferers").sliding_window_inference(image, predictor=model, **options)
    return found[0]


def _terratorch(model: Model, image: torch.Tensor, options: Options) -> torch.Tensor:
    return import_module("terratorch.tasks.tiled_inference").tiled_inference(model, image, **options)[0]


def _toolbelt(model: Model, image: torch.Tensor, options: Options) -> torch.Tensor:
    """As in the README of pytorch-toolbelt: slice, predict, merge with pyramid weights."""
    tiles = import_module("pytorch_toolbelt.inference.tiles")
    pixels = image[0].permute(1, 2, 0).cpu().numpy()
    slicer = tiles.ImageSlicer(pixels.shape, weight="pyramid", **options)
    merger: Any = None
    for patch, place in slicer.iter_split(pixels):
        patch = np.moveaxis(patch, -1, 0)[None]
        logits = model(torch.from_numpy(np.ascontiguousarray(patch)).to(image.device))
        if merger is None:
            merger = tiles.TileMerger(slicer.target_shape, logits.shape[1], slicer.weight, device=image.device)
        merger.integrate_batch(logits, [place])
    merged = np.moveaxis(merger.merge().cpu().numpy(), 0, -1)
    return torch.from_numpy(np.moveaxis(slicer.crop_to_orignal_size(merged), -1, 0))


def _tiler(model: Model, image: torch.Tensor, options: Options) -> torch.Tensor:
    """As in the examples of tiler: pad, predict, merge with the window function."""
    tiler = import_module("tiler")
    pixels = image[0].cpu().numpy()
    bands, side, overlap = pixels.shape[0], options["side"], options["overlap"]
    cut = tiler.Tiler(pixels.shape, (bands, side, side), overlap=(0, overlap, overlap), channel_dimension=0)
    shape, padding = cut.calculate_padding()
    cut.recalculate(data_shape=shape)
    pixels = np.pad(pixels, padding, mode="reflect")
    merger: Any = None
    for number, patch in cut(pixels):
        logits = model(torch.from_numpy(np.ascontiguousarray(patch[None])).to(image.device))[0].cpu().numpy()
        if merger is None:
            classes = len(logits)
            # What comes out has other channels than what went in.
            out = tiler.Tiler(
                (classes, *shape[1:]), (classes, side, side), overlap=(0, overlap, overlap), channel_dimension=0
            )
            merger = tiler.Merger(out, window=options["window"], save_visits=False)
        merger.add(number, logits)
    return torch.from_numpy(merger.merge(extra_padding=padding, dtype=np.float32))


_TILERS: dict[str, Callable[[Model, torch.Tensor, Options], torch.Tensor]] = {
    "monai": _monai,
    "terratorch": _terratorch,
    "toolbelt": _toolbelt,
    "tiler": _tiler,
}
