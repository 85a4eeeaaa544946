"""TensorBoard's file, read by TensorBoard's own reader."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from segbatch.commands.course import Course
from segbatch.commands.tensorboard import EventFile

CLASSES = ("water", "wood & meadow")


def row(at: int, kind: str = "step", **figures: Any) -> dict[str, Any]:
    return {"kind": kind, "time": 1000.0 + at, "epoch": 1, "global_step": at, "loss": 1 / at, **figures}


def points(folder: Path, tag: str) -> list[tuple[int, float]]:
    reader = EventAccumulator(str(folder))
    reader.Reload()
    if tag not in reader.Tags()["scalars"]:
        return []
    return [(event.step, round(event.value, 4)) for event in reader.Scalars(tag)]


def write(folder: Path, before: Sequence[dict[str, Any]], *rows: dict[str, Any]) -> None:
    steps = tuple(item for item in before if item["kind"] == "step")
    with EventFile(folder, CLASSES, Course(steps, ())) as file:
        for item in rows:
            file.add(item)


def test_curves_are_by_global_step(tmp_path: Path) -> None:
    write(tmp_path, (), row(2), row(4), row(4, "epoch", miou=0.5, iou=[0.25, 0.75]), {"kind": "halo", "time": 1.0})
    assert points(tmp_path, "step/loss") == [(2, 0.5), (4, 0.25)]
    assert points(tmp_path, "epoch/loss") == [(4, 0.25)]
    assert points(tmp_path, "epoch/miou") == [(4, 0.5)]
    assert points(tmp_path, "iou/water") == [(4, 0.25)]
    assert points(tmp_path, "iou/wood___meadow") == [(4, 0.75)]


def test_a_training_that_goes_on_shows_no_step_twice_and_leaves_few_files(tmp_path: Path) -> None:
    write(tmp_path, (), row(2), row(4), row(5), row(8))
    for _ in range(3):
        write(tmp_path, (row(2), row(4)), row(6, loss=9.0))
    assert points(tmp_path, "step/loss") == [(2, 0.5), (4, 0.25), (6, 9.0)]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_reader_that_is_open_meanwhile_sees_no_step_twice(tmp_path: Path) -> None:
    write(tmp_path, (), row(2), row(4), row(8))
    reader = EventAccumulator(str(tmp_path))
    reader.Reload()
    write(tmp_path, (row(2),), row(4, loss=9.0), row(6))
    reader.Reload()
    assert [event.step for event in reader.Scalars("step/loss")] == [2, 4, 6]


def test_rows_are_there_as_soon_as_they_are_told(tmp_path: Path) -> None:
    with EventFile(tmp_path, CLASSES, Course()) as file:
        file.add(row(2))
        assert points(tmp_path, "step/loss") == [(2, 0.5)]


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_a_full_disk_is_an_error_that_is_seen(tmp_path: Path) -> None:
    (tmp_path / ".partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        EventFile(tmp_path, CLASSES, Course((row(2),), ()))
    assert list(tmp_path.iterdir()) == []
