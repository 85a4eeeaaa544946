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


def test_fields_are_those_of_the_line(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "pause", lambda: 0.0)
    progress = BlockProgress(4)
    with speaking("json"):
        for number in range(4):
            progress.add(time.time() - 10, 2_000_000, number == 1)
    lines = objects(capsys)
    assert [line["blocks_done"] for line in lines] == [1, 2, 3, 4]
    assert [line["failed"] for line in lines] == [0, 1, 1, 1]
    assert [line["pixels"] for line in lines] == [2_000_000, 4_000_000, 6_000_000, 8_000_000]
    third = lines[2]
    assert third["message"].startswith(f"3/4 blocks, {third['mpx_per_second']:.2f} Mpx/s, 1 failed, ")
    assert third["seconds_left"] == pytest.approx(10 / 3, rel=0.1)
    assert third["mpx_per_second"] == pytest.approx(0.6, rel=0.1)
    assert lines[3]["seconds_left"] == 0
    assert {line["event"] for line in lines} == {"blocks"}


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
