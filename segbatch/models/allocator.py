"""How a process that runs a model keeps its memory."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Let the C library keep what is freed, for the next forward pass; call it once, before the model is loaded.

    By default glibc gives each large tensor fresh pages from the system and returns them when it is freed, so
    every forward pass pays again for pages that the one before had. On 2 cores that is a third of the time of a
    U-Net in float32. The memory stays with the process until it ends. It works for tensors that the process's first
    thread makes: others get heaps too small for them. Elsewhere than on glibc this does nothing.
    """
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)


@contextmanager
def touched_memory(size: int) -> Iterator[None]:
    """Get memory from the system while the process does something else, as importing torch.

    Else the first forward passes wait for each of its pages. At the end
    the memory is free again, and kept where `keep_freed_memory` was called.

    Args:
        size: Bytes.
    """
    libc = _glibc()
    pointer = libc.malloc(ctypes.c_size_t(size)) if libc is not None and size > 0 else None
    if libc is None or pointer is None:  # memory is short: the model will say so, if it minds
        yield
        return
    thread = Thread(target=ctypes.memset, args=(pointer, 0, size), daemon=True)  # without the interpreter's lock
    thread.start()
    try:
        yield
    finally:
        thread.join()
        libc.free(ctypes.c_void_p(pointer))


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return None
    libc.malloc.restype = ctypes.c_void_p
    return libc
