"""Ctrl-C and SIGTERM while others work: ask them to stop, wait, and leave at once when asked again."""

import threading
from collections.abc import Callable
from typing import TypeVar

_Result = TypeVar("_Result")

GRACE_SECONDS = 60.0
"""A spot instance's notice comes half a minute to two minutes ahead."""


def wait_gracefully(work: Callable[[], _Result], ask_to_stop: Callable[[], None]) -> tuple[_Result | None, bool]:
    """Call ``work`` in a thread and wait for it.

    At the first Ctrl-C ``ask_to_stop`` is called, upon which the work should end by itself.

    Returns:
        What the work returned, None where it took longer than a minute to end, and whether it was asked to.

    Raises:
        KeyboardInterrupt: At the second Ctrl-C.
        BaseException: What the work raised.
    """
    outcome: list[_Result] = []
    problem: list[BaseException] = []
    # Not Thread.join: where a signal interrupts it, Python takes the thread for ended.
    ended = threading.Event()

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            problem.append(error)
        finally:
            ended.set()

    threading.Thread(target=run, daemon=True).start()
    asked = False
    try:
        ended.wait()
    except KeyboardInterrupt:
        asked = True
        ask_to_stop()
        ended.wait(GRACE_SECONDS)
    if problem:
        raise problem[0]
    return (outcome[0] if outcome else None), asked
