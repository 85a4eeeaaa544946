"""What can run a model on this machine."""

import torch

from segbatch.models.backends import Backend, Precision, is_installed
from segbatch.models.backends.hardware import has_bf16, has_compiler


def available(device_type: str) -> tuple[tuple[Backend, Precision], ...]:
    """The float candidates worth trying, the one that needs least first. Imports none of them.

    bf16 is left out where the hardware only imitates it, int8 because it needs windows to be calibrated, and
    tensorrt because it takes minutes to build and no test has run it: it is used where it is named.

    Args:
        device_type: ``cpu`` or ``cuda``.
    """
    device = torch.device(device_type)
    precisions: tuple[Precision, ...] = ("float32", "bf16") if has_bf16(device) else ("float32",)
    found: list[tuple[Backend, Precision]] = [("eager", precision) for precision in precisions]
    if has_compiler(device):
        found += [("compile", precision) for precision in precisions]
    if device.type == "cpu":
        if is_installed("openvino"):
            found += [("openvino", precision) for precision in precisions]
        if is_installed("onnx"):
            found.append(("onnx", "float32"))
    return tuple(found)
