"""Waiting for others while signals come."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from segbatch.training import interrupt
from segbatch.training.interrupt import wait_gracefully


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Ctrl-C raises, whoever runs the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press(after: float) -> None:
    """Ctrl-C after some seconds."""
    threading.Timer(after, os.kill, (os.getpid(), signal.SIGINT)).start()


def test_what_the_work_returns_is_returned() -> None:
    assert wait_gracefully(lambda: 7, lambda: pytest.fail("nobody asked")) == (7, False)


def test_what_the_work_raises_is_raised() -> None:
    def work() -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        wait_gracefully(work, lambda: None)


def test_the_work_is_asked_to_stop_and_waited_for() -> None:
    """The wait goes on after the signal, until the work has ended by itself."""
    stop, ended = threading.Event(), []

    def work() -> int:
        stop.wait(20)
        time.sleep(0.3)
        ended.append(True)
        return 3

    press(0.1)
    assert wait_gracefully(work, stop.set) == (3, True)
    assert ended


def test_a_second_signal_ends_the_wait() -> None:
    release = threading.Event()
    press(0.1)
    press(0.4)
    try:
        with pytest.raises(KeyboardInterrupt):
            wait_gracefully(lambda: release.wait(20), lambda: None)
    finally:
        release.set()


def test_work_that_does_not_stop_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "GRACE_SECONDS", 0.1)
    release = threading.Event()
    press(0.1)
    try:
        assert wait_gracefully(lambda: release.wait(20), lambda: None) == (None, True)
    finally:
        release.set()
