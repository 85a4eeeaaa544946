"""How much memory a model's forward pass takes, found without running it."""

import copy
import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_SIDE = 512


def pixel_bytes(model: torch.nn.Module, bands: int) -> float:
    """Bytes of tensors alive at the peak of a float32 forward pass, for each pixel of a window.

    The pass runs on PyTorch's meta device, where tensors have shapes but no memory, and takes milliseconds.
    Weights are not counted, nor are the scratch buffers of a backend's kernels. A model that asks for the values of
    its pixels cannot run there.

    Args:
        model: On any device; it is left as it is.
        bands: Channels of its input.

    Returns:
        Bytes; 0 where they cannot be found.
    """
    ghost = copy.deepcopy(model).to("meta").eval()
    try:
        with torch.inference_mode(), _LiveBytes() as live:
            ghost(torch.empty(1, bands, _SIDE, _SIDE, device="meta"))
    except (RuntimeError, NotImplementedError, TypeError, ValueError):
        return 0.0
    return live.peak / _SIDE**2


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of storages that operators make, until they are freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._bytes = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self._bytes += size
        self.peak = max(self.peak, self._bytes)
        weakref.finalize(storage, self._freed, key, size)

    def _freed(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self._bytes -= size
