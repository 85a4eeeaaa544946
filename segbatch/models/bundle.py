"""Bundles: a trained model's folder.

``config.json`` and ``model.safetensors`` are what ``smp.from_pretrained`` loads; ``segbatch.json``, the
card, says what the model expects and what its classes are.
"""

import contextlib
import io
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from segbatch.errors import InputError
from segbatch.models.card import CARD, Card, read_card
from segbatch.storage import local_copy, move_over


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model on the CPU in evaluation mode, and its card."""

    model: torch.nn.Module
    card: Card


def save_bundle(folder: str | Path, bundle: Bundle) -> None:
    """Write a bundle; the folder appears whole or not at all and replaces an older one.

    Args:
        folder: Where the three files go.
        bundle: A model of segmentation-models-pytorch and its card.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        # Loading must not fetch the encoder's pre-trained weights again: they are about to be replaced.
        bundle.model.config["encoder_weights"] = None  # type: ignore[index, assignment, operator]
        bundle.model.save_pretrained(temporary)  # type: ignore[operator]
        (temporary / "README.md").unlink(missing_ok=True)  # a generic page with somebody else's licence line
        (temporary / CARD).write_text(json.dumps(bundle.card.to_json(), indent=2) + "\n")
        # Made for this user's eyes alone, but colleagues map with the bundle too.
        for file in temporary.iterdir():
            file.chmod(0o644)
        temporary.chmod(0o755)
        move_over(temporary, folder, last=CARD)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_bundle(folder: str | Path) -> Bundle:
    """Load a bundle.

    Raises:
        InputError: The folder is not a bundle, or its files do not fit together.
    """
    import segmentation_models_pytorch as smp

    card = read_card(folder)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the hub's loader talks
            # What the bundle says of encoder weights may not make it fetch, and read, other files than its own.
            model = smp.from_pretrained(str(local_copy(folder)), encoder_weights=None)
    except Exception as error:
        # The loader raises all kinds of errors on damaged files; none of them is ours to retry.
        raise InputError(f"The bundle {folder} is damaged: {' '.join(str(error).split())[:300]}") from error
    takes = {"classes": len(card.classes), "bands": len(card.band_names)}
    has = {"classes": model.config["classes"], "bands": model.config["in_channels"]}
    for what, count in takes.items():
        if has[what] != count:
            raise InputError(f"The bundle {folder} is damaged: its card has {count} {what}, its model {has[what]}.")
    return Bundle(model.eval(), card)
