"""A bundle whose sums float32 holds exactly: classes are the same whatever the order in which they are added up."""

from pathlib import Path

import numpy as np
import torch

from segbatch.classes import ClassTable, LabelMap
from segbatch.models.build import build_model, model_stride
from segbatch.models.bundle import Bundle, save_bundle
from segbatch.models.card import Card

NUM_CLASSES = 4
HALO = 16

_STEP = 1 / 64
"""Of pixels, which are whole numbers, divided by their standard deviation."""

_TAPS = 4
"""Weights of an output channel that are not 0: with few of them numbers do not outgrow float32's 24 bits."""


def make_bundle(folder: Path) -> None:
    """Write a bundle of a U-Net with weights of 1, -1 and 0, for three bands of float32."""
    torch.manual_seed(0)
    model = build_model(
        "unet", "resnet18", in_channels=3, num_classes=NUM_CLASSES,
        options={"encoder_depth": 3, "decoder_channels": [16, 16, 8]},
    )  # fmt: skip
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d):
                _make_exact(module, rng)
            elif isinstance(module, torch.nn.BatchNorm2d):
                module.weight.fill_(1)
                module.bias.copy_(torch.from_numpy(rng.integers(-1, 2, module.bias.shape)))
                module.running_mean.zero_()
                module.running_var.fill_(1 - module.eps)
    model.eval()
    _check_exact(model)
    card = Card(
        classes=ClassTable.from_items([(name, None) for name in ("water", "forest", "field", "town")]),
        band_names=("", "", ""), dtype="float32", mean=(128.0,) * 3, std=(64.0,) * 3,
        stride=model_stride(model), halo=HALO, label_map=LabelMap(NUM_CLASSES),
    )  # fmt: skip
    save_bundle(folder, Bundle(model, card))


def _make_exact(layer: torch.nn.Conv2d, rng: np.random.Generator) -> None:
    weights = np.zeros(layer.weight.shape, np.float32)
    for channel in weights.reshape(len(weights), -1):
        channel[rng.choice(channel.size, _TAPS, replace=False)] = rng.choice((-1, 1), _TAPS)
    layer.weight.copy_(torch.from_numpy(weights))
    if layer.bias is not None:
        layer.bias.copy_(torch.from_numpy(rng.integers(-1, 2, layer.bias.shape)))


def _check_exact(model: torch.nn.Module) -> None:
    """Every number on the way is a multiple of `_STEP` that float32 holds, so that no sum is ever rounded."""

    def check(layer: torch.nn.Module, seen: object, made: torch.Tensor) -> None:
        steps = made / _STEP
        assert torch.equal(steps, steps.round())
        assert steps.abs().max() < 2**20

    layers = [layer for layer in model.modules() if isinstance(layer, torch.nn.Conv2d | torch.nn.BatchNorm2d)]
    hooks = [layer.register_forward_hook(check) for layer in layers]
    pixels = torch.randint(0, 256, (1, 3, 96, 96), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        classes = model((pixels - 128) / 64).argmax(1)
    for hook in hooks:
        hook.remove()
    assert len(torch.unique(classes)) > 1
