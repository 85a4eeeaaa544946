"""What can run a model on this machine."""

import importlib.util

import torch

from segbatch.models.backends import Backend, Precision
from segbatch.models.backends.hardware import has_bf16, has_compiler

_PACKAGES: dict[Backend, tuple[str, ...]] = {
    "openvino": ("openvino", "onnx", "onnxscript"),
    "onnx": ("onnxruntime", "onnx", "onnxscript"),
}


def available(device_type: str) -> tuple[tuple[Backend, Precision], ...]:
    """The float candidates worth trying, the one that needs least first. Imports none of them.

    bf16 is left out where the hardware only imitates it, int8 because it needs windows to be calibrated, and
    tensorrt because it takes minutes to build and a mistake in the versions of its packages to crash: who wants it
    names it.

    Args:
        device_type: ``cpu`` or ``cuda``.
    """
    device = torch.device(device_type)
    precisions: tuple[Precision, ...] = ("float32", "bf16") if has_bf16(device) else ("float32",)
    found: list[tuple[Backend, Precision]] = [("eager", precision) for precision in precisions]
    if has_compiler(device):
        found += [("compile", precision) for precision in precisions]
    if device.type == "cpu":
        if _installed("openvino"):
            found += [("openvino", precision) for precision in precisions]
        if _installed("onnx"):
            found.append(("onnx", "float32"))
    return tuple(found)


def _installed(backend: Backend) -> bool:
    return all(importlib.util.find_spec(package) is not None for package in _PACKAGES[backend])
