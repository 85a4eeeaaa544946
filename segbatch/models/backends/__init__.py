"""What runs a model's forward pass: PyTorch as it is, compiled, or another runtime."""

from typing import Literal, get_args

Backend = Literal["eager", "compile", "openvino", "onnx", "tensorrt"]
"""eager: PyTorch as it is; compile: torch.compile; openvino, onnx, tensorrt: other runtimes, each an extra."""

Precision = Literal["float32", "bf16", "int8"]
"""Of the arithmetic. int8 is for the openvino and onnx backends and needs real windows to be calibrated."""

BACKENDS: tuple[Backend, ...] = get_args(Backend)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
