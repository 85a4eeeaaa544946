"""What is measured: a bundle and a scene, made on the spot where none is given."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from segbatch.bench.processes import alone
from segbatch.classes import LabelMap
from segbatch.commands.folder import RunFolder
from segbatch.commands.request import Request
from segbatch.config import Inference, parse_section
from segbatch.demo import BANDS, CLASSES, make_landscape
from segbatch.models.card import Card, default_halo
from segbatch.scenes import SceneRef, open_scene

SCENE_SIDE = 4096
"""Pixels a side of a painted scene."""

TINY = {"encoder_depth": 3, "decoder_channels": [16, 16, 8]}
"""Options of a U-Net so quick that what is around it is seen."""

_PAINTED_SIDE = 1024
"""Pixels a side of the landscape that is repeated: painting takes seconds for each million."""

_PIXEL_SIZE = 0.5


@dataclass(frozen=True, slots=True)
class Material:
    """A model and an image.

    Args:
        name: For titles.
        bundle: Folder of the bundle.
        scene: Path of the image.
        trained: Whether the model has learned anything: of random weights, classes are noise.
    """

    name: str
    bundle: Path
    scene: str
    trained: bool

    def request(self, folder: Path, **inference: Any) -> Request:
        """Map the scene.

        Args:
            folder: Of the run.
            inference: Settings of the inference section; None for those that are left as they are.
        """
        given = {name: value for name, value in inference.items() if value is not None}
        if not self.trained:
            # What agrees with eager float32 cannot be told by a model that has not learned anything.
            given = {"backend": "eager", "precision": "float32", **given}
        return make_request(self.name, self.bundle, self.scene, folder, given)


def make_request(name: str, bundle: Path, scene: str, folder: Path, inference: Mapping[str, Any]) -> Request:
    """A request to map one scene on this machine."""
    section = parse_section(Inference, dict(inference), "the benchmark")
    return Request(
        name=name,
        folder=RunFolder(folder),
        bundle=bundle,
        refs=[SceneRef(id="scene", image=os.path.abspath(scene))],
        bands=None,
        nodata=None,
        label_map=None,
        inference=section,
        address="local",
        overwrite=False,
        config={"inference": section.model_dump(mode="json")},
    )


def prepare(bundle: Path | None, scene: str | None, folder: Path, encoder: str = "resnet18") -> Material:
    """What the user gives, and the rest made on the spot.

    Args:
        bundle: Folder of a trained model; None for a U-Net of random weights.
        scene: Path of an image; None for a painted landscape.
        folder: Where what is made goes.
        encoder: Of the U-Net of random weights.
    """
    scene = scene or paint_scene(folder / "landscape.tif")
    name = bundle.absolute().parent.name if bundle and bundle.name == "bundle" else bundle.name if bundle else encoder
    made = bundle or folder / encoder / "bundle"
    if bundle is None:
        alone(save_random_bundle, made, scene, encoder)
    return Material(name, made, scene, trained=bundle is not None)


def save_random_bundle(folder: Path, scene: str, encoder: str, options: Mapping[str, Any] | None = None) -> None:
    """A U-Net of random weights for a scene's bands. Speed and memory do not depend on what a model knows."""
    import torch

    from segbatch.models.build import build_model, model_stride
    from segbatch.models.bundle import Bundle, save_bundle

    with open_scene(scene) as reader:
        info = reader.info
    bands = len(info.data_bands)
    torch.manual_seed(0)
    model = build_model("unet", encoder, in_channels=bands, num_classes=len(CLASSES), options=options)
    stride = model_stride(model)
    card = Card(
        classes=CLASSES,
        band_names=tuple(info.band_names[band - 1] for band in info.data_bands),
        dtype=info.dtype,
        mean=(128.0,) * bands,
        std=(64.0,) * bands,
        stride=stride,
        halo=default_halo(stride),
        label_map=LabelMap(len(CLASSES)),
    )
    save_bundle(folder, Bundle(model, card))


def paint_scene(path: Path, side: int = SCENE_SIDE) -> str:
    """Write a landscape of four bands: a painted one, repeated.

    Returns:
        Its path.
    """
    image, _ = make_landscape(1, _PAINTED_SIDE, _PAINTED_SIDE)
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=len(image), dtype="uint8", tiled=True,
        blockxsize=512, blockysize=512, compress="deflate", crs="EPSG:32632",
        transform=rasterio.Affine(_PIXEL_SIZE, 0, 6e5, 0, -_PIXEL_SIZE, 5e6),
    ) as file:  # fmt: skip
        file.write(repeated(image, side))
        file.descriptions = BANDS
    return str(path)


def repeated(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """(..., side, side) of an image repeated beside and below itself."""
    times = [-(-side // extent) for extent in image.shape[-2:]]
    return np.tile(image, (1,) * (image.ndim - 2) + tuple(times))[..., :side, :side]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
