"""Processes to measure in, and the memory that they take."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import ParamSpec, TypeVar

import psutil

from segbatch.errors import SegbatchError

DRIVER = "driver"

_KINDS = {"_Predict": "predicting actor", "read_block": "reader", "write_block": "writer"}
"""Words in the titles that Ray gives to the processes of the pipeline, and what they are."""

_SPAWNED = "multiprocessing.spawn"
"""In the command line of what `alone` starts."""

_SECONDS_BETWEEN_LOOKS = 0.25

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


def alone(function: Callable[_Given, _Result], *arguments: _Given.args, **more: _Given.kwargs) -> _Result:
    """Call a function in a process of its own, so that memory, threads and caches are its alone.

    Raises:
        SegbatchError: The process was killed.
    """
    # Not a multiprocessing.Pool: that waits for ever for a process which the system has killed.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_end_with_parent) as pool:
        try:
            return pool.submit(function, *arguments, **more).result()
        except BrokenProcessPool as error:
            name = getattr(function, "__name__", "work")
            raise SegbatchError(f"The process of {name} was killed: memory may have run out.") from error


def _end_with_parent() -> None:
    """Let this process end where the one that started it is killed; else it would wait for work for ever."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def peak_memory() -> Iterator[dict[str, int]]:
    """Largest resident memory in bytes of each kind of process below this one, filled in while the body runs.

    Pages of Ray's object store are left out: they count in every process that maps them.
    """
    peaks: dict[str, int] = {}
    stop = threading.Event()

    def watch() -> None:
        me = psutil.Process()
        while not stop.wait(_SECONDS_BETWEEN_LOOKS):
            for process in me.children(recursive=True):
                with suppress(psutil.Error):
                    kind = _kind(" ".join(process.cmdline()))
                    if kind is not None:
                        memory = process.memory_info()
                        peaks[kind] = max(peaks.get(kind, 0), memory.rss - getattr(memory, "shared", 0))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        stop.set()
        thread.join()


def _kind(command: str) -> str | None:
    if command.startswith("ray::"):
        return next((kind for word, kind in _KINDS.items() if word in command), None)
    return DRIVER if _SPAWNED in command else None


def own_peak() -> int:
    """Bytes of the largest resident memory that this process had; 0 where the system does not tell.

    Of this program alone: the peak that getrusage tells was, in a new process, that of its parent.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def free_memory() -> int:
    """Bytes that this machine can give to processes at present."""
    return int(psutil.virtual_memory().available)


def own_birth() -> float:
    """When this process began, in seconds since the epoch."""
    return float(psutil.Process().create_time())


def bytes_read_so_far() -> int:
    """Bytes that this process has read from files, cached by the system or not; 0 where the system does not tell."""
    counters = getattr(psutil.Process(), "io_counters", None)
    return int(counters().read_chars) if counters is not None else 0
