"""Many questions at a time, answered in order."""

import threading
import time
from collections.abc import Iterator

import pytest

from segbatch.storage import ask_ahead


@pytest.mark.parametrize("is_far", [False, True])
@pytest.mark.parametrize("count", [0, 1, 100])
def test_answers_come_in_order(count: int, is_far: bool) -> None:
    def ask(thing: int) -> int:
        time.sleep(0.001 * (thing % 3) if is_far else 0)
        return -thing

    assert list(ask_ahead(ask, range(count), is_far=is_far)) == [-thing for thing in range(count)]


def test_what_is_far_is_asked_at_the_same_time_and_not_all_at_once() -> None:
    gate, drawn = threading.Barrier(20, timeout=30), []

    def things() -> Iterator[int]:
        for thing in range(1000):
            drawn.append(thing)
            yield thing

    def ask(thing: int) -> int:
        if thing < 20:
            gate.wait()  # passed only by twenty together
        return thing

    answers = ask_ahead(ask, things(), is_far=True)
    assert [next(answers) for _ in range(20)] == list(range(20))
    assert len(drawn) < 60
    answers.close()


@pytest.mark.parametrize("is_far", [False, True])
def test_an_error_is_that_of_the_first_that_fails(is_far: bool) -> None:
    def ask(thing: int) -> int:
        if thing >= 2:
            raise ValueError(str(thing))
        return thing

    answers = ask_ahead(ask, range(100), is_far=is_far)
    assert [next(answers), next(answers)] == [0, 1]
    with pytest.raises(ValueError, match="^2$"):
        next(answers)
