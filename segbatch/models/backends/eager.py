"""PyTorch as it is."""

import torch

from segbatch.errors import InputError
from segbatch.models.backends.forward import Function
from segbatch.models.backends.mapper import Mapper


def build(mapper: Mapper, pixels: torch.Tensor, valid: torch.Tensor, precision: str, quantized: str | None) -> Function:
    """See `segbatch.models.backends.forward.Builder`."""
    del pixels, valid, quantized
    refuse_int8("eager", precision)
    mapper.autocast = precision == "bf16"
    return mapper


def refuse_int8(backend: str, precision: str) -> None:
    """Refuse a precision that PyTorch's own backends do not have.

    Raises:
        InputError: It is int8.
    """
    if precision == "int8":
        raise InputError(f"precision int8 is for the backends openvino and onnx, not for {backend}.")
