"""Build networks by name through segmentation-models-pytorch."""

import difflib
from collections.abc import Mapping
from typing import Any

import segmentation_models_pytorch as smp
import torch

from segbatch.errors import InputError


def build_model(
    architecture: str,
    encoder: str,
    *,
    in_channels: int,
    num_classes: int,
    weights: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> torch.nn.Module:
    """A network that takes (batch, in_channels, height, width) and gives logits (batch, num_classes, ...).

    Args:
        architecture: smp's name of the decoder, such as ``unet``.
        encoder: smp's name of the encoder, or ``tu-`` and timm's.
        in_channels: Number of bands.
        num_classes: Number of classes.
        weights: Name of pre-trained encoder weights, or None. These are downloaded.
        options: More keyword arguments of the architecture.

    Raises:
        InputError: A name is unknown, an option does not fit, or the weights cannot be had.
    """
    known = set(smp.MODEL_ARCHITECTURES_MAPPING)
    if architecture.lower() not in known:
        raise InputError(f"Unknown architecture {architecture!r}; {_suggest(architecture.lower(), known)}")
    if not encoder.startswith("tu-") and encoder not in smp.encoders.get_encoder_names():
        raise InputError(f"Unknown encoder {encoder!r}; {_suggest(encoder, smp.encoders.get_encoder_names())}")
    try:
        return smp.create_model(
            architecture,
            encoder_name=encoder,
            encoder_weights=weights,
            in_channels=in_channels,
            classes=num_classes,
            **(options or {}),
        )
    except OSError as error:
        raise InputError(
            f"The weights {weights!r} of {encoder} cannot be downloaded ({_first_line(error)}). "
            "Set model.weights to null to start from random ones."
        ) from error
    except (TypeError, ValueError, KeyError, AssertionError, RuntimeError) as error:
        raise InputError(f"{architecture} with {encoder} cannot be built: {_first_line(error)}") from error


def model_stride(model: torch.nn.Module) -> int:
    """Input sides must be multiples of this many pixels, and windows must start at multiples of it."""
    stride = getattr(getattr(model, "encoder", None), "output_stride", 32)
    return int(stride)


def _suggest(word: str, known: set[str] | list[str]) -> str:
    close = difflib.get_close_matches(word, sorted(known), n=3, cutoff=0.4)
    return f"did you mean {' or '.join(close)}?" if close else f"some are {', '.join(sorted(known)[:12])}."


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
