"""metrics.jsonl: what counts of rows that were written twice, torn, or are of other kinds."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbatch.commands.course import Course, append_row, event_rows, read_course, scalars, series_names

STEPS = 10


def step(at: int, **more: Any) -> dict[str, Any]:
    row = {"kind": "step", "epoch": (at - 1) // STEPS + 1, "step": (at - 1) % STEPS + 1, "steps": STEPS}
    return {**row, "time": float(at), "global_step": at, "loss": 1 / at, "learning_rate": 0.001, **more}


def epoch(number: int, **more: Any) -> dict[str, Any]:
    row = {"kind": "epoch", "time": 0.0, "epoch": number, "global_step": number * STEPS, "loss": 1 / number}
    return {**row, "miou": 0.5, "iou": [0.4, 0.6], **more}


def resume(number: int, after: int = 0) -> dict[str, Any]:
    return {"kind": "resume", "time": 0.0, "epoch": number, "step": after, "global_step": number * STEPS + after}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    for row in rows:
        append_row(path, row)
    return path


def test_a_course_survives_the_disk(tmp_path: Path) -> None:
    rows = [step(4), step(10), epoch(1), step(15)]
    course = read_course(write(tmp_path / "m", *rows))
    assert course.steps == (rows[0], rows[1], rows[3])
    assert course.epochs == (rows[2],)
    assert course.rows == rows
    assert read_course(tmp_path / "absent").rows == []


def test_what_is_done_again_counts_once(tmp_path: Path) -> None:
    path = write(
        tmp_path / "m",
        step(5),
        epoch(1),
        step(15),
        epoch(2),
        step(25),
        resume(1),
        step(13, loss=9.0),
        epoch(2, loss=8.0),
    )
    course = read_course(path)
    assert [row["global_step"] for row in course.steps] == [5, 13]
    assert [(row["epoch"], row["loss"]) for row in course.epochs] == [(1, 1.0), (2, 8.0)]


def test_a_restart_that_was_not_told_counts_once(tmp_path: Path) -> None:
    """A worker lost before the first checkpoint begins again, and has nothing to resume."""
    course = read_course(write(tmp_path / "m", step(5), step(9), epoch(1), step(3), step(7), epoch(1, loss=7.0)))
    assert [row["global_step"] for row in course.steps] == [3, 7]
    assert [row["loss"] for row in course.epochs] == [7.0]


def test_a_resume_in_the_middle_of_an_epoch_keeps_the_steps_before_it(tmp_path: Path) -> None:
    course = read_course(write(tmp_path / "m", epoch(1), step(12), step(14), step(18), resume(1, 4), step(16)))
    assert [row["global_step"] for row in course.steps] == [12, 14, 16]
    assert [row["epoch"] for row in course.epochs] == [1]


@pytest.mark.parametrize("torn", [b'{"kind": "step", "glo', b"\xff\x00", b"[1]", b'{"kind": "step"}', b"null"])
def test_a_torn_line_costs_nothing_but_itself(tmp_path: Path, torn: bytes) -> None:
    path = write(tmp_path / "m", step(4))
    with path.open("ab") as file:
        file.write(torn)
    append_row(path, step(8))
    assert [row["global_step"] for row in read_course(path).steps] == [4, 8]


@given(stops=st.lists(st.tuples(st.integers(1, 60), st.integers(0, 40)), max_size=5))
def test_however_often_it_is_interrupted_every_step_counts_once(
    stops: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("course") / "m"
    at = 0
    for until, back in [*stops, (60, 0)]:
        for done in range(at + 1, until + 1):
            append_row(path, step(done))
            if done % STEPS == 0:
                append_row(path, epoch(done // STEPS))
        at = max(0, max(at, until) - back) if until < 60 else 60
        if at == 60:
            break
        append_row(path, resume(at // STEPS, at % STEPS))
    else:
        raise AssertionError("the last one goes to the end")
    course = read_course(path)
    assert [row["global_step"] for row in course.steps] == list(range(1, 61))
    assert [row["epoch"] for row in course.epochs] == list(range(1, 7))


def test_of_an_epoch_event_its_epoch_is_kept() -> None:
    event = {"kind": "epoch", "history": [{"epoch": 1}, {"epoch": 2, "loss": 0.5}], "epochs": 9, "global_step": 20}
    (row,) = event_rows(event, Course())
    assert row == {
        "kind": "epoch", "epoch": 2, "loss": 0.5, "global_step": 20, "time": row["time"],
    }  # fmt: skip
    assert json.loads(json.dumps(row)) == row


@pytest.mark.parametrize("known", [0, 1, 2])
def test_epochs_that_nobody_heard_of_are_told_when_a_training_goes_on(tmp_path: Path, known: int) -> None:
    path = tmp_path / "metrics.jsonl"
    for number in range(1, known + 1):
        append_row(path, epoch(number))
    history = [{"epoch": number, "miou": 0.5} for number in (1, 2)]
    event = {"kind": "resume", "epoch": 2, "step": 3, "global_step": 2 * STEPS + 3, "history": history}
    rows = event_rows(event, read_course(path))
    assert [row["kind"] for row in rows] == ["epoch"] * (2 - known) + ["resume"]
    assert "history" not in rows[-1]
    for row in rows:
        append_row(path, row)
    course = read_course(path)
    assert [(row["epoch"], row["global_step"]) for row in course.epochs] == [(1, STEPS), (2, 2 * STEPS)]


def test_figures_that_are_none_or_not_finite_have_no_point() -> None:
    names = series_names(("water", "old wood"))
    assert scalars(epoch(1, loss=math.nan, iou=[None, 0.6], waited=0.25), names) == {
        "epoch/miou": 0.5,
        "epoch/waited": 0.25,
        "iou/old_wood": 0.6,
    }
    assert scalars(step(2), names) == {"step/loss": 0.5, "step/learning_rate": 0.001}
    assert scalars(resume(1), names) == {}


@given(st.lists(st.text(max_size=4), min_size=1, max_size=8, unique=True))
def test_curves_of_classes_have_names_that_differ(names: list[str]) -> None:
    series = series_names(names)
    assert len(set(series)) == len(names)
    assert all("/" not in name and " " not in name for name in series)
