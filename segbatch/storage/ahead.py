"""Questions to an object store, many at a time: one answer takes as long as all."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_MOST = 32

_Thing = TypeVar("_Thing")
_Answer = TypeVar("_Answer")


def ask_ahead(
    ask: Callable[[_Thing], _Answer], things: Iterable[_Thing], *, is_far: bool, at_once: int = _MOST
) -> Iterator[_Answer]:
    """The answer for each thing, in order; of what is far some are asked for before they are needed.

    Args:
        ask: Called from threads, where things are far.
        things: What is asked.
        is_far: Whether an answer takes many times longer than it keeps the machine busy. What is on a disk is not.
        at_once: Questions at a time, at most: fewer where an answer takes memory.
    """
    if not is_far:
        yield from map(ask, things)
        return
    at_once = max(1, min(at_once, _MOST))
    pool, waiting = ThreadPoolExecutor(at_once), deque[Future[_Answer]]()
    try:
        for thing in things:
            waiting.append(pool.submit(ask, thing))
            if len(waiting) == at_once:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
