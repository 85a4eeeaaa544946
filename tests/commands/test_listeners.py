"""Who hears of a training's events, and what a full disk costs."""

import json
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from segbatch.commands import listeners
from segbatch.commands.course import append_row
from segbatch.commands.folder import RunFolder
from segbatch.commands.listeners import listening
from segbatch.config import RunConfig


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(listeners, "say", lines.append)
    return lines


def config(folder: RunFolder) -> RunConfig:
    classes = [{"name": "water"}, {"name": "wood"}]
    return RunConfig.model_validate({"name": "trial", "output": str(folder.path), "classes": classes, "scenes": {}})


def step_event(at: int, loss: float = 0.5) -> dict[str, Any]:
    return {
        "kind": "step", "epoch": 1, "epochs": 1, "step": at, "steps": 10, "global_step": at, "global_steps": 10,
        "loss": loss, "learning_rate": 1e-3, "tiles_per_second": 8.0, "waited": 0.1,
    }  # fmt: skip


RESUME = {"kind": "resume", "epoch": 0, "step": 4, "global_step": 4}


def losses(folder: RunFolder) -> list[tuple[int, float]]:
    reader = EventAccumulator(str(folder.tensorboard))
    reader.Reload()
    return [(event.step, event.value) for event in reader.Scalars("step/loss")]


def listen_to(folder: RunFolder, *events: dict[str, Any]) -> None:
    with listening(config(folder), folder, "abc") as listen:
        for event in events:
            listen(event)


def test_lines_and_curves_tell_the_same(folder: RunFolder) -> None:
    listen_to(folder, step_event(2), step_event(4))
    rows = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert [(row["kind"], row["global_step"]) for row in rows] == [("step", 2), ("step", 4)]
    assert losses(folder) == [(2, 0.5), (4, 0.5)]


def test_a_worker_and_a_driver_that_are_lost_leave_curves_without_a_step_twice(folder: RunFolder) -> None:
    listen_to(folder, step_event(2), step_event(4), step_event(6), RESUME, step_event(5, 0.25))
    assert losses(folder) == [(2, 0.5), (4, 0.5), (5, 0.25)]
    with folder.metrics.open("ab") as file:
        file.write(b'{"kind": "st')  # killed in the middle of a line
    listen_to(folder, RESUME, step_event(7, 0.125))
    assert losses(folder) == [(2, 0.5), (4, 0.5), (7, 0.125)]


def test_a_full_disk_is_said_once_and_ends_nothing(
    folder: RunFolder, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, row: Any) -> None:
        if row["global_step"] in (2, 4):
            raise OSError(28, "No space left on device")
        append_row(path, row)

    monkeypatch.setattr(listeners, "append_row", full)
    listen_to(folder, step_event(2), step_event(4), step_event(6))
    assert said == ["  The training's curves will have gaps: No space left on device"]
    assert [row["global_step"] for row in map(json.loads, folder.metrics.read_text().splitlines())] == [6]


def test_a_folder_that_is_no_folder_costs_the_curves_alone(folder: RunFolder, said: list[str]) -> None:
    folder.tensorboard.write_text("mine")
    listen_to(folder, step_event(2))
    assert len(said) == 1
    assert len(folder.metrics.read_text().splitlines()) == 1
