"""Being stopped: what a stage is at may end first, and what hangs is not waited for."""

import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import NoReturn

GRACE_SECONDS = 10.0
"""How long a block that is being read or written may take to end when the run is stopped."""

_NAME = "segbatch-stage"


@contextmanager
def stage_threads(count: int) -> Iterator[Sequence[Executor]]:
    """A thread for each of so many stages. On an error or a wish to stop, what they are at is waited for a while only.

    A read from a network drive that is gone may take for ever; see `leave`.
    """
    executors = [ThreadPoolExecutor(1, thread_name_prefix=_NAME) for _ in range(count)]
    try:
        yield executors
    except BaseException:
        for executor in executors:
            executor.shutdown(wait=False, cancel_futures=True)
        deadline = time.monotonic() + GRACE_SECONDS
        for thread in _at_work():
            thread.join(max(0.0, deadline - time.monotonic()))
        raise
    for executor in executors:
        executor.shutdown()


def leave(code: int) -> NoReturn:
    """Exit with a code, also where a stage hangs: Python itself would wait for its thread."""
    if _at_work():
        with suppress(OSError):  # as of a pipe whose reader has gone
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _at_work() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(_NAME)]
