"""Ctrl-C and SIGTERM while others work: ask them to stop, wait, and leave at once when asked again."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

_Result = TypeVar("_Result")

_GRACE_SECONDS = 60.0
"""A spot instance's notice comes half a minute to two minutes ahead."""


def wait_gracefully(work: Callable[[], _Result], stop: threading.Event) -> _Result:
    """Call ``work`` in a thread and wait for it.

    The first signal sets ``stop``, upon which the work should end by itself; the second one, or its taking longer than
    a minute, ends the wait.

    Raises:
        KeyboardInterrupt: There was a signal.
    """
    outcome: list[_Result] = []
    problem: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            problem.append(error)

    thread = threading.Thread(target=run, daemon=True)
    with _terminate_as_interrupt():
        thread.start()
        try:
            thread.join()
        except KeyboardInterrupt:
            stop.set()
            thread.join(_GRACE_SECONDS)
            raise
    if problem:
        raise problem[0]
    return outcome[0]


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """SIGTERM as Ctrl-C, where this thread may say what signals do."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*details: Any) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
