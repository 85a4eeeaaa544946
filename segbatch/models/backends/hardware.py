"""What the machine offers to a model's arithmetic."""

import importlib.util
import os
import shutil
import sys

import torch


def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware; where it does not, it is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def has_compiler(device: torch.device) -> bool:
    """Whether torch.compile finds what makes its kernels: a C++ compiler, and for CUDA Triton too."""
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return False
    return shutil.which(compiler()) is not None


def compiler() -> str:
    """The C++ compiler that torch.compile calls."""
    return os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
