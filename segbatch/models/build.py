"""Build networks by name through segmentation-models-pytorch."""

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

import segmentation_models_pytorch as smp
import torch

from segbatch.errors import InputError
from segbatch.models.pretrained import load_encoder
from segbatch.models.weights import check_file, is_file


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
        weights: Name of pre-trained encoder weights, which are downloaded; a file of such weights; or None.
        options: More keyword arguments of the architecture.

    Raises:
        InputError: A name is unknown, an option does not fit, or the weights cannot be had.
    """
    from_file = weights is not None and is_file(weights)
    if weights is not None and from_file:
        check_file(weights)
    check_names(architecture, encoder, None if from_file else weights)
    if not encoder.startswith("tu-"):  # timm's take arguments of their own
        _check_options(architecture, options or {})
    try:
        model: torch.nn.Module = smp.create_model(
            architecture,
            encoder_name=encoder,
            encoder_weights=None if from_file else weights,
            in_channels=in_channels,
            classes=num_classes,
            **(options or {}),
        )
    except OSError as error:
        raise InputError(
            f"The weights {weights!r} of {encoder} cannot be downloaded ({_first_line(error)}). "
            "Set model.weights to a file of them, or to null to start from random ones."
        ) from error
    except (TypeError, ValueError, KeyError, AssertionError, RuntimeError) as error:
        raise InputError(f"{architecture} with {encoder} cannot be built: {_first_line(error)}") from error
    if weights is not None and from_file:
        load_encoder(model.encoder, weights)  # type: ignore[arg-type]
    return model


def check_names(architecture: str, encoder: str, weights: str | None = None) -> None:
    """Refuse names that segmentation-models-pytorch does not know; timm's are checked when they are built.

    Raises:
        InputError: Names the nearest known ones.
    """
    architectures, encoders = set(smp.MODEL_ARCHITECTURES_MAPPING), smp.encoders.get_encoder_names()
    if architecture.lower() not in architectures:
        raise InputError(f"Unknown architecture {architecture!r}; {_suggest(architecture.lower(), architectures)}")
    if encoder.startswith("tu-"):
        return
    if encoder not in encoders:
        raise InputError(f"Unknown encoder {encoder!r}; {_suggest(encoder, encoders)}")
    known = list(smp.encoders.encoders[encoder]["pretrained_settings"])
    if weights is not None and weights not in known:
        raise InputError(f"{encoder} has no weights {weights!r}; there are {', '.join(known) or 'none'}.")


def model_stride(model: torch.nn.Module) -> int:
    """Input sides must be multiples of this many pixels, and windows must start at multiples of it."""
    stride = getattr(getattr(model, "encoder", None), "output_stride", 32)
    return int(stride)


def _check_options(architecture: str, options: Mapping[str, Any]) -> None:
    """Refuse options that the architecture does not have: it would ignore them without a word."""
    parameters = inspect.signature(smp.MODEL_ARCHITECTURES_MAPPING[architecture.lower()]).parameters
    known = {name for name, parameter in parameters.items() if parameter.kind != parameter.VAR_KEYWORD}
    for name in options:
        if name not in known:
            raise InputError(f"{architecture} has no option {name!r}; {_suggest(name, known)}")


def _suggest(word: str, known: set[str] | list[str]) -> str:
    close = difflib.get_close_matches(word, sorted(known), n=3, cutoff=0.4)
    return f"did you mean {' or '.join(close)}?" if close else f"some are {', '.join(sorted(known)[:12])}."


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
