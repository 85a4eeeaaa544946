"""ONNX Runtime, on CPUs and CUDA devices."""

import numpy as np
import torch

from segbatch.errors import InputError
from segbatch.models.backends import missing
from segbatch.models.backends.choice import class_ids
from segbatch.models.backends.export import NAMES, check_shape, quantized_file, refused, to_onnx
from segbatch.models.backends.forward import Function
from segbatch.models.backends.mapper import Mapper

try:
    import onnxruntime
except ImportError as error:
    raise missing("onnx") from error

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def build(mapper: Mapper, pixels: torch.Tensor, valid: torch.Tensor, precision: str, quantized: str | None) -> Function:
    """See `segbatch.models.backends.forward.Builder`. Takes some seconds."""
    device = pixels.device
    provider = _PROVIDERS.get(device.type)
    if provider not in onnxruntime.get_available_providers():
        raise InputError(
            f"This ONNX Runtime does not run on {device}: install onnxruntime-gpu in place of onnxruntime, "
            "or choose another backend."
        )
    if precision == "bf16":
        raise InputError("The backend onnx has no bf16. Choose precision float32 or another backend.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors: the rest is about its own optimisations
    graph: str | bytes = quantized_file(quantized) if precision == "int8" else to_onnx(mapper, pixels, valid, "onnx")
    provider_options = {"device_id": str(device.index or 0)} if device.type == "cuda" else {}
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=[(provider, provider_options)])
    except Exception as error:  # of the runtime's own kinds, which have no base in common
        raise refused("onnx", error) from error
    if isinstance(graph, str):
        check_shape(graph, session.get_inputs()[0].shape, pixels)
    result = session.get_outputs()[0]
    ids_of_logits = precision == "int8" and not mapper.logits  # a quantized model gives logits
    dtype = torch.float32 if precision == "int8" or mapper.logits else torch.uint8

    def run(pixels: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        # ONNX Runtime reads and writes torch's own memory. The output is a new tensor at every call, for the caller
        # may keep it.
        inputs = pixels.contiguous(), valid.contiguous()
        output = torch.empty(tuple(result.shape), dtype=dtype, device=device)
        binding = session.io_binding()
        for name, tensor in zip(NAMES, inputs, strict=True):
            binding.bind_input(name, *_describe(tensor))
        binding.bind_output(result.name, *_describe(output))
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # the runtime has a stream of its own
        session.run_with_iobinding(binding)
        return class_ids(output) if ids_of_logits else output

    return run


def _describe(tensor: torch.Tensor) -> tuple[str, int, np.dtype, tuple[int, ...], int]:
    """Where and what a tensor is, in the order of the binding's arguments."""
    dtype = torch.empty(0, dtype=tensor.dtype).numpy().dtype
    return tensor.device.type, tensor.device.index or 0, dtype, tuple(tensor.shape), tensor.data_ptr()
