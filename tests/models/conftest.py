"""A small trained-looking bundle."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from segbatch.classes import ClassTable, LabelMap
from segbatch.models.build import build_model
from segbatch.models.bundle import Bundle
from segbatch.models.card import Card


def make_card(**changes: Any) -> Card:
    settings: dict[str, Any] = {
        "classes": ClassTable(("water", "forest", "bare"), ("#1f78b4", "#33a02c", "#b15928")),
        "band_names": ("red", "green", "blue"),
        "dtype": "uint8",
        "mean": (101.25, 90.1, 80.7),
        "std": (20.5, 1 / 3, 18.0),
        "stride": 8,
        "halo": 64,
        "label_map": LabelMap(3, ((1, 0), (2, 1), (40, 2))),
        "training": {"epoch": 3, "miou": 0.75, "history": [{"epoch": 1}]},
    }
    return Card(**{**settings, **changes})


@pytest.fixture(scope="session")
def card() -> Callable[..., Card]:
    """A function that makes a card with these changes."""
    return make_card


@pytest.fixture(scope="session")
def bundle() -> Callable[..., Bundle]:
    """A function that makes a bundle with random weights of this seed and these changes of its card."""

    def make(seed: int = 0, **changes: Any) -> Bundle:
        torch.manual_seed(seed)
        options = {"encoder_depth": 3, "decoder_channels": [16, 16, 8]}
        model = build_model("unet", "resnet18", in_channels=3, num_classes=3, options=options)
        return Bundle(model.eval(), make_card(**changes))

    return make
