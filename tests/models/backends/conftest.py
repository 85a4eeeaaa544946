"""Networks and windows to run through the backends."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segbatch.models.backends.forward import Forward
from segbatch.models.bundle import load_bundle

Inputs = tuple[torch.Tensor, torch.Tensor]


class IntegerNet(torch.nn.Module):
    """Small whole weights: with inputs of 0..15 every sum is a whole number that float32 holds, in any order."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)

        def layer(inputs: int, outputs: int, most: int, stride: int = 1) -> torch.nn.Conv2d:
            conv = torch.nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)
            with torch.no_grad():
                conv.weight.copy_(torch.randint(-most, most + 1, conv.weight.shape, generator=generator))
                assert conv.bias is not None
                conv.bias.copy_(torch.randint(-2, 3, conv.bias.shape, generator=generator))
            return conv

        self.first = layer(2, 2, 2)
        self.strided = layer(2, 2, 2, stride=2)
        self.deep = layer(2, 3, 1)
        self.last = layer(3, 5, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = torch.relu(self.deep(torch.relu(self.strided(torch.relu(self.first(image))))))
        return self.last(torch.nn.functional.interpolate(features, scale_factor=2.0, mode="nearest"))


@pytest.fixture
def integer_forward() -> Callable[..., Forward]:
    """A function that makes a `Forward` of a network whose arithmetic is exact in float32, for 2 bands."""

    def make(backend: str, precision: str = "float32", **more: Any) -> Forward:
        return Forward(IntegerNet(), (0.0, 1.0), (1.0, 0.5), backend=backend, precision=precision, **more)

    return make


@pytest.fixture
def integer_inputs() -> Callable[..., Inputs]:
    """A function that makes windows for it: pixels of 0..15, some of them not valid."""

    def make(batch: int = 2, height: int = 32, width: int = 48, dtype: str = "uint8") -> Inputs:
        rng = np.random.default_rng(height)
        values = rng.integers(0, 16, (batch, 2, height, width)).astype(dtype)
        valid = rng.random((batch, 1, height, width)) > 0.2
        if values.dtype.kind == "f":
            values[np.broadcast_to(~valid, values.shape)] = np.nan
        return torch.from_numpy(values), torch.from_numpy(valid)

    return make


@pytest.fixture
def unet_forward(tiny_bundle: Path) -> Callable[..., Forward]:
    """A function that makes a `Forward` of a small U-Net for 3 bands."""

    def make(backend: str, precision: str = "float32", **more: Any) -> Forward:
        bundle = load_bundle(tiny_bundle)
        return Forward(bundle.model, bundle.card.mean, bundle.card.std, backend=backend, precision=precision, **more)

    return make


@pytest.fixture
def unet_inputs(paint: Callable[..., Any]) -> Callable[..., Inputs]:
    """A function that makes windows for it, with a corner that is not valid."""

    def make(batch: int = 2, height: int = 128, width: int = 96, seed: int = 0) -> Inputs:
        pixels = np.stack([paint(height, width, seed + index) for index in range(batch)])
        valid = np.ones((batch, 1, height, width), bool)
        valid[:, :, : height // 4, : width // 3] = False
        return torch.from_numpy(pixels), torch.from_numpy(valid)

    return make
