"""What is said of blocks, to people and to programs."""

import json
import time
from typing import Any

import pytest

from segbatch.commands import progress as module
from segbatch.commands.progress import BlockProgress, quietly, say
from segbatch.commands.training_progress import TrainingProgress
from segbatch.log import speaking

Capture = pytest.CaptureFixture[str]


def objects(capsys: Capture) -> list[dict[str, Any]]:
    return [json.loads(line, parse_constant=pytest.fail) for line in capsys.readouterr().err.splitlines()]


class Clock:
    """Both clocks of `time`, which stand still but for `pass_`."""

    def __init__(self) -> None:
        self.now = 1e9

    def pass_(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    for name in ("time", "monotonic"):
        monkeypatch.setattr(module.time, name, lambda: found.now)
    return found


def test_fields_are_those_of_the_line(capsys: Capture, clock: Clock) -> None:
    started, progress = clock.now, BlockProgress(4)
    clock.pass_(60)  # until the model is there
    with speaking("json"):
        for number in range(4):
            clock.pass_(40)
            progress.add(started, 2_000_000, number == 1)
    lines = objects(capsys)
    assert {line["event"] for line in lines} == {"blocks"}
    assert [line["message"] for line in lines] == [
        "1/4 blocks",
        "2/4 blocks, 0.05 Mpx/s, 1 failed, 1 min 20 s left",
        "3/4 blocks, 0.05 Mpx/s, 1 failed, 40 s left",
        "4/4 blocks, 0.04 Mpx/s, 1 failed in 3 min 40 s",
    ]
    assert [line["blocks_done"] for line in lines] == [1, 2, 3, 4]
    assert [line["failed"] for line in lines] == [0, 1, 1, 1]
    assert [line["pixels"] for line in lines] == [2_000_000, 4_000_000, 6_000_000, 8_000_000]
    assert [line["seconds_left"] for line in lines] == [None, 80, 40, 0]
    assert [line["mpx_per_second"] for line in lines] == [None, 0.05, 0.05, 0.036]


def test_of_many_small_scenes_nothing_is_foretold_by_the_first(capsys: Capture, clock: Clock) -> None:
    """Which waits for the actors, or by the few that come with it."""
    started, progress = clock.now, BlockProgress(10_000)
    clock.pass_(29.9)
    for _ in range(400):
        progress.add(started, 10_000, False)
        clock.pass_(0.1)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "  2/10000 blocks"
    assert second == "  302/10000 blocks, 0.10 Mpx/s, 16 min 10 s left"


def test_where_nobody_looks_on_little_is_said(capsys: Capture) -> None:
    progress = BlockProgress(100)
    for _ in range(100):
        progress.add(time.time(), 1, False)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("  100/100 blocks")


def test_markup_in_names_is_left_alone(capsys: Capture) -> None:
    say("[red]a[/red] [/nothing]", event="x")
    assert capsys.readouterr().err == "[red]a[/red] [/nothing]\n"


def test_quiet_is_quiet_in_json_too(capsys: Capture) -> None:
    with speaking("json"), quietly():
        say("nothing")
    assert capsys.readouterr().err == ""


def test_an_epoch_is_one_object(capsys: Capture) -> None:
    row = {
        "epoch": 2, "loss": float("nan"), "miou": 0.5, "pixel_accuracy": 0.6, "iou": [0.25, None],
        "learning_rate": 1e-3, "tiles_per_second": 13.2, "waited": 0.03, "train_seconds": 10.0, "validate_seconds": 4.0,
    }  # fmt: skip
    event = {"kind": "epoch", "history": [row | {"epoch": 1}, row], "epochs": 3, "global_step": 20}
    with speaking("json"):
        TrainingProgress(("water", "wood"), 8)(event)
    (line,) = objects(capsys)
    assert (line["event"], line["epoch"], line["epochs"], line["loss"], line["miou"]) == ("epoch", 2, 3, None, 0.5)
    assert line["iou"] == {"water": 0.25, "wood": None}
    assert line["seconds_left"] == pytest.approx(14.0)
    assert "miou 0.500" in line["message"]


def test_steps_are_told_to_programs(capsys: Capture) -> None:
    event = {
        "kind": "step", "epoch": 1, "epochs": 2, "step": 5, "steps": 10, "global_step": 5, "global_steps": 20,
        "loss": 0.5, "learning_rate": 1e-3, "tiles_per_second": 8.0, "waited": 0.1,
    }  # fmt: skip
    with speaking("json"):
        progress = TrainingProgress(("water",), 8)
        progress(event)
        progress(event | {"step": 6, "global_step": 6})  # at once: not worth a line
        progress({"kind": "resume", "epoch": 1})
    first, second = objects(capsys)
    assert {key: first[key] for key in event if key != "kind"} == {k: v for k, v in event.items() if k != "kind"}
    assert first["seconds_left"] == pytest.approx(15.0)
    assert (second["event"], second["epoch"]) == ("resume", 1)
