"""What a search decides, without a cluster; with one it is tested by the command's tests."""

import math
import time

import pytest
from ray.tune.schedulers import TrialScheduler

from segbatch.training.search import Halving, _Deadline, _environment, _Scheduler, _Watch

GO_ON, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP


def scheduler(epochs: int = 9, grace: int = 1, factor: int = 2, seconds: float = math.inf) -> _Scheduler:
    return _Scheduler(Halving(epochs, grace, factor), time.monotonic() + seconds)


def decide(asked: _Scheduler, trial: int, epoch: int, miou: float | None) -> str:
    return asked.decide({"trial": trial, "epoch": epoch, "miou": miou})


def test_a_trial_that_is_worse_than_others_is_stopped_after_its_grace() -> None:
    asked = scheduler(grace=2)
    for trial, miou in ((1, 0.5), (2, 0.1)):
        assert decide(asked, trial, 1, miou) == GO_ON
    assert decide(asked, 1, 2, 0.6) == GO_ON
    assert decide(asked, 2, 2, 0.2) == STOP
    assert decide(asked, 3, 2, 0.7) == GO_ON


def test_the_best_epoch_counts_since_its_model_is_kept() -> None:
    asked = scheduler(grace=2)
    decide(asked, 1, 1, 0.3)
    assert decide(asked, 1, 2, 0.4) == GO_ON
    decide(asked, 2, 1, 0.5)
    assert decide(asked, 2, 2, 0.1) == GO_ON


def test_an_epoch_without_a_miou_is_the_worst() -> None:
    asked = scheduler()
    assert decide(asked, 1, 1, 0.2) == GO_ON
    assert decide(asked, 2, 1, None) == STOP


def test_nothing_is_stopped_after_its_last_epoch_nor_without_one_to_spare() -> None:
    asked = scheduler(epochs=2)
    decide(asked, 1, 1, 0.2)
    decide(asked, 2, 1, 0.3)
    assert decide(asked, 2, 2, 0.9) == GO_ON
    assert decide(asked, 1, 2, 0.2) == GO_ON
    short = scheduler(epochs=1)
    assert [decide(short, trial, 1, miou) for trial, miou in ((1, 0.9), (2, 0.1))] == [GO_ON, GO_ON]


@pytest.mark.parametrize("killed", range(1, 9))
def test_what_earlier_searches_found_leads_to_the_same_decisions(killed: int) -> None:
    course = [(trial, epoch, (trial * 7 % 5) / 10 + epoch / 100) for trial in range(1, 5) for epoch in range(1, 4)]
    whole = scheduler(epochs=9)
    expected = [decide(whole, *event) for event in course]
    assert STOP in expected
    resumed = scheduler(epochs=9)
    for event in course[:killed]:
        decide(resumed, *event)
    assert [decide(resumed, *event) for event in course[killed:]] == expected[killed:]


def test_when_the_time_is_up_nothing_begins_and_what_runs_ends_with_its_epoch() -> None:
    for seconds, late in ((-1.0, True), (1000.0, False)):
        asked = scheduler(seconds=seconds)
        watch = _Watch(asked, lambda event: None, {})
        deadline = _Deadline(asked, watch, 3)
        assert deadline("a", {"epoch": 1}) is late
        assert not deadline("a", {"epoch": 3})
        assert not deadline("a", {"end": "done"})
        assert deadline.stop_all() is late
        watch.running.add(1)
        assert not deadline.stop_all()


def test_the_environment_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("SEGBATCH_A", "1")
    monkeypatch.delenv("SEGBATCH_B", raising=False)
    with _environment({"SEGBATCH_A": "2", "SEGBATCH_B": "3"}):
        assert (os.environ["SEGBATCH_A"], os.environ["SEGBATCH_B"]) == ("2", "3")
    assert os.environ["SEGBATCH_A"] == "1"
    assert "SEGBATCH_B" not in os.environ
