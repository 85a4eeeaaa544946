"""A process that dies at a step, for tests that go on in the same process."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest


class Killed(BaseException):
    """As kill -9 does, nothing that catches exceptions handles it."""


def kill_at(number: int, patch: pytest.MonkeyPatch, changes: Iterable[tuple[Any, str]]) -> None:
    """Die before the ``number``-th of some calls, counted from 1.

    Args:
        number: Of the call.
        patch: Ends the life after death.
        changes: What is called: a module or class, and the name in it.
    """
    done = 0

    def dying(change: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal done
            done += 1
            if done >= number:  # the dead do nothing on their way out either
                raise Killed
            return change(*arguments, **named)

        return call

    for where, name in changes:
        patch.setattr(where, name, dying(getattr(where, name)))
