"""What runs a model's forward pass: PyTorch as it is, compiled, or another runtime."""

import importlib.util
from typing import Literal, get_args

from segbatch.errors import InputError

Backend = Literal["eager", "compile", "openvino", "onnx", "tensorrt"]
"""eager: PyTorch as it is; compile: torch.compile; openvino, onnx, tensorrt: other runtimes, each an extra."""

Precision = Literal["float32", "bf16", "int8"]
"""Of the arithmetic. int8 is for the openvino and onnx backends and needs real windows to be calibrated."""

BACKENDS: tuple[Backend, ...] = get_args(Backend)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

_PACKAGES = {
    "openvino": ("openvino", "onnx", "onnxscript"),
    "onnx": ("onnxruntime", "onnx", "onnxscript"),
    "tensorrt": ("torch_tensorrt",),
}
"""What a backend imports beyond segbatch's own dependencies."""


def is_installed(backend: str) -> bool:
    """Whether the packages of a backend are there; imports none of them."""
    return all(importlib.util.find_spec(package) is not None for package in _PACKAGES.get(backend, ()))


def missing(backend: str) -> InputError:
    """The error of a backend whose packages are not installed."""
    # No extra for TensorRT: its releases are tied to PyTorch's, and would tie everybody's.
    wanted = (
        "torch-tensorrt, in the release that fits your torch" if backend == "tensorrt" else f"'segbatch[{backend}]'"
    )
    return InputError(f"The backend {backend} is not installed: pip install {wanted}.")
