"""What is said of a training: widths, classes, and the time that is left."""

from typing import Any

import pytest

import segbatch.commands.training_progress as module
from segbatch.commands.training_progress import Pace, TrainingProgress, epoch_lines

STEPS, EPOCHS, BATCH = 10, 4, 8


def step_event(epoch: int, step: int, tiles_per_second: float = 8.0) -> dict[str, Any]:
    return {
        "kind": "step", "epoch": epoch, "epochs": EPOCHS, "step": step, "steps": STEPS,
        "global_step": (epoch - 1) * STEPS + step, "global_steps": EPOCHS * STEPS,
        "loss": 0.51234, "learning_rate": 9.76e-4, "tiles_per_second": tiles_per_second, "waited": 0.031,
    }  # fmt: skip


def row(epoch: int, miou: float | None = 0.5, **more: Any) -> dict[str, Any]:
    return {
        "epoch": epoch, "loss": 0.51234, "miou": miou, "pixel_accuracy": 0.6, "iou": [0.25, None],
        "learning_rate": 9.76e-4, "tiles_per_second": 13.2, "waited": 0.031, "train_seconds": 10.0,
        "validate_seconds": 4.0, **more,
    }  # fmt: skip


def epoch_event(epoch: int, **more: Any) -> dict[str, Any]:
    history = [row(number, miou=number / 10, **more) for number in range(1, epoch + 1)]
    return {"kind": "epoch", "history": history, "epochs": EPOCHS, "global_step": epoch * STEPS}


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(module, "say", lambda message, **fields: lines.extend(message.split("\n")))
    return lines


def test_steps_and_epochs_are_said_with_all_their_figures(said: list[str]) -> None:
    progress = TrainingProgress(("water", "forest"), BATCH)
    progress(step_event(1, 3))
    progress(epoch_event(1))
    progress(step_event(2, 5, tiles_per_second=13.24))
    assert said[0] == "  epoch 1/4 30%: loss 0.512, lr 9.8e-4, 8.0 tiles/s, waits 3%, > 37 s left"
    assert said[1] == "  epoch 1/4: loss 0.512, lr 9.8e-4, 13 tiles/s, waits 3%, 42 s left"
    assert said[2] == "    miou 0.100 (best): water 0.25, forest -"
    # 25 steps at 8 / 13.24 s, three validations of 4 s
    assert said[3].endswith("13 tiles/s, waits 3%, 27 s left")


def test_the_last_epoch_leaves_nothing(said: list[str]) -> None:
    TrainingProgress(("water", "forest"), BATCH)(epoch_event(EPOCHS))
    assert "left" not in said[0]


def test_lines_fit_a_terminal(said: list[str]) -> None:
    progress = TrainingProgress([f"a class of land cover {index}" for index in range(9)], BATCH)
    progress(epoch_event(3, iou=[0.5] * 9))
    progress(step_event(1, 3, 123.0) | {"epoch": 100, "epochs": 100, "step": 10, "global_steps": 90000})
    assert all(len(line) <= 80 for line in said)
    assert sum(line.count("a class of land cover") for line in said) == 9
    assert all(line.startswith("      a class") for line in said[2:-1])


def test_of_many_classes_the_worst_are_named() -> None:
    names = [f"c{index}" for index in range(40)]
    iou = [None, *[0.99 - index / 100 for index in range(1, 40)]]
    lines = epoch_lines([row(1, iou=iou)], names)
    assert lines == [
        "    miou 0.500 (best): lowest of 40 classes: c39 0.60, c38 0.61, c37 0.62,",
        "      c36 0.63, c35 0.64, c34 0.65",
    ]


def test_a_long_name_has_a_line_of_its_own() -> None:
    lines = epoch_lines([row(1, iou=[0.5, 0.5])], ["x" * 100, "y"])
    assert [line.count("x") for line in lines] == [100, 0]


@pytest.mark.parametrize(
    ("mious", "best"),
    [([0.1], True), ([0.1, 0.2], True), ([0.2, 0.2], False), ([None, None], False), ([0.3, 0.1], False)],
)
def test_best_is_what_is_kept(mious: list[float | None], best: bool) -> None:
    lines = epoch_lines([row(index, miou) for index, miou in enumerate(mious, 1)], ("a", "b"))
    assert ("(best)" in lines[0]) == best


def test_a_training_that_goes_on_is_judged_by_what_this_process_does() -> None:
    pace = Pace()
    pace.resume(now=100.0)
    # Ten steps of 2 s, some of them before it, and 4 s of validation.
    event = {**epoch_event(2), "history": [row(1, train_seconds=999.0), row(2, train_seconds=20.0)]}
    assert pace.epoch(event, now=115.0) == ", 48 s left"


def test_nothing_to_go_on_is_said_as_such() -> None:
    event = step_event(1, 5)
    assert Pace().step(event, BATCH) == ", > 35 s left"
    assert Pace().step({**event, "tiles_per_second": 0.8}, BATCH) == ", > 6 min left"


def test_resumes_and_ends_are_said(said: list[str]) -> None:
    progress = TrainingProgress(("a", "b"), BATCH)
    progress({"kind": "resume", "epoch": 2, "step": 0, "global_step": 20})
    progress({"kind": "resume", "epoch": 2, "step": 7, "global_step": 27})
    progress({"kind": "stale", "epoch": 3, "patience": 1})
    assert said == [
        "  going on after epoch 2",
        "  going on after epoch 2 and 7 steps",
        "  no better epoch in the last 1: training ends after epoch 3",
    ]
