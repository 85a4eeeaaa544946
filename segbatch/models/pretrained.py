"""Weights to start from: of an encoder from a local file, of a whole model from another bundle."""

import pickle
import re
from typing import Any

import torch

from segbatch.classes import ClassTable
from segbatch.errors import InputError
from segbatch.models.bundle import load_bundle

_WRAPPERS = "state_dict", "model", "model_state_dict"
"""Keys under which checkpoints keep the weights beside other things."""

_PREFIXES = "module.", "encoder.", "backbone.", "model."

_RGB = 3


def load_encoder(encoder: torch.nn.Module, path: str) -> None:
    """Give an encoder the weights of a file: safetensors, or a state dict that ``torch.save`` wrote.

    Nothing in the file is executed. Weights of a classifier behind the encoder are passed over. Weights for three
    bands are inflated: those of the first convolution are repeated over the bands and scaled, so that its outputs keep
    their size.

    Args:
        encoder: As segmentation-models-pytorch builds it, of any number of bands.
        path: Of the file.

    Raises:
        InputError: The file cannot be read, or it is another network's.
    """
    own = encoder.state_dict()
    inner = "model." if all(name.startswith("model.") for name in own) else ""  # timm's encoders are wrapped
    found = _stripped(_read(path), {known for name in own for known in _known_as(name.removeprefix(inner))})
    result: dict[str, torch.Tensor] = {}
    missing = []
    for name, tensor in own.items():
        weight = next((found[known] for known in _known_as(name.removeprefix(inner)) if known in found), None)
        if weight is not None and weight.ndim == 4 and weight.shape[1] == _RGB != tensor.shape[1]:
            weight = _inflated(weight, tensor.shape[1])
        if weight is not None and weight.shape != tensor.shape:
            raise InputError(
                f"model.weights: {name} is {tuple(weight.shape)} in {path}, but {tuple(tensor.shape)} in this encoder: "
                "it is another network's."
            )
        if weight is None and not name.endswith("num_batches_tracked"):
            missing.append(name)
        result[name] = tensor if weight is None else weight
    if missing:
        raise InputError(
            f"model.weights: {path} lacks {len(missing)} of this encoder's {len(own)} weights, {missing[0]} among "
            "them: it is another network's."
        )
    encoder.load_state_dict(result)


def _known_as(name: str) -> tuple[str, str]:
    """A weight's name, and that in the network's own file.

    timm joins the first two parts of some where it gives features, as in stages_0.blocks for stages.0.blocks.
    """
    return name, re.sub(r"^([a-z]+)_(\d+)\.", r"\1.\2.", name)


def _inflated(weight: torch.Tensor, bands: int) -> torch.Tensor:
    if bands == 1:
        return weight.sum(1, keepdim=True)
    return weight[:, [band % _RGB for band in range(bands)]] * (_RGB / bands)


def load_from_bundle(model: torch.nn.Module, classes: ClassTable, folder: str) -> None:
    """Give a model the weights of a bundle's; of the last layer those of the classes that both have, by name.

    Args:
        model: Built like the bundle's, of as many bands; its classes may be others.
        classes: Of the model.
        folder: Of the bundle.

    Raises:
        InputError: The folder is not a bundle, or its model is built differently.
    """
    other = load_bundle(folder)
    own, found = model.state_dict(), other.model.state_dict()
    names, known = classes.names, other.card.classes.names
    result: dict[str, torch.Tensor] = {}
    for name, tensor in own.items():
        if name not in found:
            raise InputError(
                f"model.init: the model of {folder} has no {name}: architecture and encoder must be the same."
            )
        if name.startswith("segmentation_head.") and len(tensor) == len(names) and len(found[name]) == len(known):
            rows = tensor.clone()
            for index, label in enumerate(names):
                if label in known:
                    rows[index] = found[name][known.index(label)]
            result[name] = rows
        elif found[name].shape != tensor.shape:
            raise InputError(
                f"model.init: {name} is {tuple(found[name].shape)} in {folder}, but {tuple(tensor.shape)} here: "
                "architecture, encoder and number of bands must be the same."
            )
        else:
            result[name] = found[name]
    model.load_state_dict(result)


def _read(path: str) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.endswith(".safetensors"):
            return load_file(path)
        data: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        raise InputError(f"model.weights: {path} cannot be read as plain weights: {reason}") from error
    for key in _WRAPPERS:
        if isinstance(data, dict) and isinstance(data.get(key), dict):
            data = data[key]
    if not isinstance(data, dict) or not all(isinstance(value, torch.Tensor) for value in data.values()):
        raise InputError(f"model.weights: {path} holds no state dict, a table of names and tensors.")
    return data


def _stripped(found: dict[str, torch.Tensor], wanted: set[str]) -> dict[str, torch.Tensor]:
    """The weights by the encoder's own names, whatever they were saved inside of."""
    for _ in range(3):
        if wanted & set(found):
            break
        prefix = next((prefix for prefix in _PREFIXES if any(name.startswith(prefix) for name in found)), None)
        if prefix is None:
            break
        found = {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}
    return found
