"""How pre-trained weights are named. Light: needs no torch."""

from pathlib import Path

from segbatch.errors import InputError


def is_file(weights: str) -> bool:
    """Whether weights are named by a path, not by a name."""
    return "/" in weights or weights.endswith((".safetensors", ".pth", ".pt", ".bin"))


def check_file(weights: str) -> None:
    """Refuse a file of weights that is not there.

    Raises:
        InputError: Names it.
    """
    if not Path(weights).is_file():
        raise InputError(f"model.weights: the file {weights} does not exist.")
