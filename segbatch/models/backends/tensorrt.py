"""NVIDIA's TensorRT, on CUDA devices. No test has run it on one."""

import torch

from segbatch.errors import InputError
from segbatch.models.backends import missing
from segbatch.models.backends.eager import refuse_int8
from segbatch.models.backends.forward import Function
from segbatch.models.backends.mapper import Mapper

try:
    import torch_tensorrt
except ImportError as error:
    raise missing("tensorrt") from error


def build(mapper: Mapper, pixels: torch.Tensor, valid: torch.Tensor, precision: str, quantized: str | None) -> Function:
    """See `segbatch.models.backends.forward.Builder`. Takes minutes."""
    del quantized
    refuse_int8("tensorrt", precision)
    if pixels.device.type != "cuda":
        raise InputError(f"The backend tensorrt runs on CUDA devices, not on {pixels.device}. Choose another backend.")
    mapper.autocast = precision == "bf16"
    exported = torch.export.export(mapper, (pixels, valid))
    # Explicit typing: the precision of every layer is what autocast has written into the graph.
    return torch_tensorrt.dynamo.compile(
        exported, arg_inputs=(pixels, valid), device=pixels.device, use_explicit_typing=True, disable_tf32=True
    )
