"""torch.compile, with one static shape."""

import logging
from typing import cast

import torch

from segbatch.errors import InputError
from segbatch.models.backends.eager import refuse_int8
from segbatch.models.backends.forward import Function
from segbatch.models.backends.hardware import compiler, has_compiler
from segbatch.models.backends.mapper import Mapper


def build(mapper: Mapper, pixels: torch.Tensor, valid: torch.Tensor, precision: str, quantized: str | None) -> Function:
    """See `segbatch.models.backends.forward.Builder`. Takes seconds to minutes."""
    del quantized
    refuse_int8("compile", precision)
    if not has_compiler(pixels.device):
        also = " and Triton" if pixels.device.type == "cuda" else ""
        raise InputError(
            f"The backend compile needs the C++ compiler {compiler()}{also}: install it, or choose backend eager."
        )
    mapper.autocast = precision == "bf16"
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it misses CUDA aloud
    # Windows of another shape are another function: without this the ninth would be refused.
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    function = cast(Function, torch.compile(mapper, dynamic=False, fullgraph=True))
    function(pixels, valid)  # compiles
    return function
