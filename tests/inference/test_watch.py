"""The watchdog: it is silent while blocks are done, and says what a run waits for when they are not."""

import threading
import time
from pathlib import Path

import pytest

from segbatch.inference import watch
from segbatch.inference.attempts import Attempt, Attempts, under_way
from segbatch.inference.watch import Begun, Watchdog, at_work


class Ear:
    """Hears lines, and can wait for some."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._heard = threading.Semaphore(0)

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        self._heard.release()

    def wait(self, count: int) -> None:
        for _ in range(count):
            assert self._heard.acquire(timeout=30)


@pytest.fixture
def ear(monkeypatch: pytest.MonkeyPatch) -> Ear:
    monkeypatch.setattr(watch, "QUIET_SECONDS", 0.2)
    return Ear()


def test_it_says_why_again_and_again(ear: Ear) -> None:
    with Watchdog(ear, lambda: "the disk is asleep"):
        ear.wait(3)
    assert ear.lines[0] == "  No block was done for 0 s: the disk is asleep."
    count = len(ear.lines)
    time.sleep(0.6)
    assert len(ear.lines) <= count + 1  # one may have been under way


def test_it_is_silent_while_blocks_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "QUIET_SECONDS", 3600.0)
    ear = Ear()
    clock = [1000.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: clock[0])
    dog = Watchdog(ear, lambda: "never")
    for _ in range(10):
        clock[0] += 3000.0
        dog.done()
    clock[0] += 600.0
    assert dog.sentence() == "no block was done for 10 min: never"
    assert dog._due == clock[0] + 3000.0
    assert ear.lines == []


def test_what_goes_wrong_in_watching_harms_nobody(ear: Ear) -> None:
    def broken() -> str:
        raise ConnectionError("no cluster")

    with Watchdog(ear, broken):
        ear.wait(2)
    assert ear.lines[0] == "  No block was done for 0 s."

    def deaf(line: str) -> None:
        ear(line)
        raise OSError("closed")

    with Watchdog(deaf, lambda: "x"):
        ear.wait(2)


def test_an_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a cluster's head is gone, and whoever asks it hangs."""
    monkeypatch.setattr(watch, "QUIET_SECONDS", 0.01)
    asked, release = threading.Event(), threading.Event()
    ear = Ear()

    def hang() -> str:
        asked.set()
        release.wait(30)
        return "late"

    with Watchdog(ear, hang):
        assert asked.wait(30)
    release.set()
    time.sleep(0.2)
    assert ear.lines == []


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        ([], "nothing is being read, predicted or written"),
        ([Attempt("read", "b", 7, 30.2)], "reading block 7 of b for 30 s"),
        (
            [Attempt("predict", "a", 3, 500.0), Attempt("write", "b", 1, 2.0)],
            "predicting block 3 of a for 8 min (2 blocks are at work)",
        ),
        ([Attempt("map", "a-b", 1, 2.0)], "mapping block 1 of a-b for 2 s"),
        (
            [Attempt("survey", "b", 7, 150.0), Attempt("survey", "a", 0, 2.0)],
            "counting strip 7 of b for 2 min (2 strips are at work)",
        ),
        (
            [Attempt("finish", "b", 0, 240.0), Attempt("finish", "a", 0, 2.0)],
            "putting the files of b together for 4 min (2 scenes are at work)",
        ),
    ],
)
def test_what_is_at_work_in_words(attempts: list[Attempt], expected: str) -> None:
    assert at_work(attempts) == expected


def test_what_this_process_is_at() -> None:
    begun = Begun()
    with begun.at("read", "a", 1), begun.at("predict", "a", 0):
        assert [attempt[:3] for attempt in begun.under_way()] == [("read", "a", 1), ("predict", "a", 0)]
        with pytest.raises(KeyError), begun.at("write", "a", 2):
            raise KeyError
    assert begun.under_way() == []


def test_what_other_processes_are_at(tmp_path: Path) -> None:
    assert under_way(tmp_path / "nothing") == []
    with Attempts(tmp_path, "read").at("a-b", 7), Attempts(tmp_path, "predict").at("c", 1):
        (tmp_path / "what is this").touch()
        (tmp_path / "read-x-y").touch()
        found = under_way(tmp_path)
    assert sorted(attempt[:3] for attempt in found) == [("predict", "c", 1), ("read", "a-b", 7)]
    assert all(0 <= attempt.seconds < 60 for attempt in found)
