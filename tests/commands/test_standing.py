"""How a run stands: sums that depend neither on the order of rows nor on how often they come."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbatch.commands.course import Course
from segbatch.commands.standing import Tally, run_state, training_standing
from segbatch.inference.ledger import LedgerRow

NOW = 1.7e9
PIXELS = 100


def done(scene: str, block: int, ended: float = NOW, took: float = 2.0) -> LedgerRow:
    seconds = {
        "read": took / 4,
        "wait": took / 4,
        "idle": 99.0,
        "predict": took / 4,
        "forward": 50.0,
        "write": took / 4,
    }
    return LedgerRow(scene, block, "x", (60, 30), PIXELS - 90, 0, None, 1, ended - took, seconds)


def failed(scene: str, block: int, why: str = "damaged", ended: float = NOW) -> LedgerRow:
    return LedgerRow.failed(scene, block, why, num_classes=2, started=ended)


def tally(rows: list[LedgerRow], **blocks: int) -> Tally:
    found = Tally(blocks)
    for row in rows:
        found.add(row)
    return found


def test_blocks_pixels_and_scenes_are_counted() -> None:
    rows = [done("a", 0), done("a", 1), done("b", 0), failed("c", 1, "c.tif is damaged")]
    found = tally(rows, a=2, b=3, c=2, d=4).standing(NOW, True)
    assert (found.blocks, found.done, found.failed, found.pixels) == (11, 3, 1, 3 * PIXELS)
    assert found.scenes == {"whole": 1, "at_work": 1, "failed": 1, "waiting": 1}
    assert found.reasons == (("c", "c.tif is damaged"),)
    assert found.latest == pytest.approx(NOW)


@given(st.data())
def test_order_and_repetition_of_rows_change_nothing(data: st.DataObject) -> None:
    blocks = {"a": 4, "b": 3}
    places = [(scene, block) for scene, count in blocks.items() for block in range(count)]
    some = st.lists(st.tuples(st.sampled_from(places), st.booleans()), max_size=12)
    rows = [done(*place) if good else failed(*place) for place, good in data.draw(some)]
    found = tally(rows, **blocks).standing(NOW, True)
    good = {(row.scene, row.block) for row in rows if row.error is None}
    bad = {(row.scene, row.block) for row in rows} - good
    assert (found.done, found.failed, found.pixels) == (len(good), len(bad), PIXELS * len(good))
    assert {scene for scene, _ in found.reasons} == {scene for scene, _ in bad}
    assert sum(found.scenes.values()) == 2
    again = tally(data.draw(st.permutations(rows)) + rows, **blocks).standing(NOW, True)
    assert (again.done, again.failed, again.pixels, again.scenes) == (
        found.done, found.failed, found.pixels, found.scenes,
    )  # fmt: skip


@pytest.mark.parametrize("row", [done("other", 0), done("a", 9), done("a", -1)])
def test_rows_of_nothing_that_is_planned_are_left_out(row: LedgerRow) -> None:
    found = tally([row], a=2).standing(NOW, True)
    assert (found.done, found.latest, found.pixels_per_second) == (0, None, None)


def test_speed_is_that_of_the_last_minutes() -> None:
    """Two blocks a minute an hour ago, six a minute now."""
    old = [done("a", number, NOW - 3000 + 30 * number) for number in range(20)]
    new = [done("a", 20 + number, NOW - 10 * number) for number in range(40)]
    found = tally(old + new, a=120).standing(NOW, True)
    assert found.pixels_per_second == pytest.approx(PIXELS / 10, rel=0.05)
    assert found.seconds_left == pytest.approx(60 * 10, rel=0.05)


def test_speed_falls_while_nothing_is_done() -> None:
    rows = [done("a", number, NOW - 2 * number) for number in range(10)]
    counted = tally(rows, a=20)
    first, later = counted.standing(NOW, True), counted.standing(NOW + 200, True)
    assert first.pixels_per_second > 5 * later.pixels_per_second > 0
    assert counted.standing(NOW + 7200, True).pixels_per_second is None
    # Of a run that was stopped the clock counts no more, and there is no time left to tell.
    stopped = counted.standing(NOW + 7200, False)
    assert stopped.pixels_per_second == pytest.approx(first.pixels_per_second)
    assert stopped.seconds_left is None


def test_a_single_slow_block_tells_a_speed() -> None:
    found = tally([done("a", 0, NOW - 100, took=600)], a=3).standing(NOW, True)
    assert found.pixels_per_second == pytest.approx(PIXELS / 700)
    assert found.seconds_left == pytest.approx(2 * 700)


def test_a_week_of_blocks_takes_little_memory() -> None:
    counted = Tally({"a": 20_000})
    for number in range(20_000):
        counted.add(done("a", number, NOW - 30 * (20_000 - number)))
    assert len(counted._buckets) < 1000
    assert counted.standing(NOW, True).pixels_per_second == pytest.approx(PIXELS / 30, rel=0.2)


def test_rows_without_a_time_tell_no_speed() -> None:
    found = tally([LedgerRow.failed("a", 0, "cannot be opened", num_classes=2, started=0.0)], a=1).standing(NOW, False)
    assert (found.failed, found.latest, found.pixels_per_second) == (1, None, None)


@pytest.mark.parametrize(
    ("sections", "is_alive", "latest", "begun", "expected"),
    [
        ({"mapping": "running"}, True, NOW + 5, True, "running"),
        ({"mapping": "running"}, True, None, True, "waiting for its first block"),
        ({"mapping": "running"}, True, NOW - 5, True, "waiting for its next block"),  # the latest is an earlier call's
        ({"training": "running"}, True, None, False, "running"),
        ({}, True, None, False, "running"),
        ({"training": "done", "mapping": "running"}, None, NOW, True, "stopped"),
        ({"training": "running", "mapping": None}, None, None, False, "stopped"),
        ({}, None, None, False, "stopped"),
        ({"training": "done", "mapping": "failed"}, None, NOW, False, "failed"),
        ({"training": "done", "mapping": "done"}, None, NOW, False, "done"),
        ({"training": "done", "mapping": None}, None, None, False, "done"),
        ({"mapping": "done"}, True, NOW - 5, False, "running"),
        # Killed between training and mapping.
        ({"training": "done", "mapping": None}, False, None, False, "stopped"),
    ],
)
def test_states(
    sections: dict[str, Any], is_alive: bool | None, latest: float | None, begun: bool, expected: str
) -> None:
    assert run_state(sections, is_alive, latest, NOW, begun) == expected


def epoch(number: int, miou: float | None = 0.5) -> dict[str, Any]:
    return {
        "kind": "epoch", "epoch": number, "global_step": 10 * number, "loss": 1.0 / number, "miou": miou,
        "train_seconds": 20.0, "validate_seconds": 4.0, "tiles_per_second": 8.0, "time": NOW,
    }  # fmt: skip


def step(number: int) -> dict[str, Any]:
    return {
        "kind": "step", "epoch": (number - 1) // 10 + 1, "epochs": 4, "step": (number - 1) % 10 + 1, "steps": 10,
        "global_step": number, "global_steps": 40, "loss": 0.25, "tiles_per_second": 16.0, "time": NOW + 7,
    }  # fmt: skip


def test_a_training_by_its_course() -> None:
    course = Course((step(5), step(24)), (epoch(1, 0.6), epoch(2, 0.5)))
    found = training_standing(course, 4, 8)
    assert (found.done, found.epochs, found.step, found.steps) == (2, 4, 4, 10)
    assert (found.loss, found.miou, found.best) == (0.25, 0.5, (1, 0.6))
    assert found.seconds_left == pytest.approx(24 * (4 - 2.4))
    assert found.latest == NOW + 7


def test_a_training_in_its_first_epoch() -> None:
    found = training_standing(Course((step(5),), ()), None, 8)
    assert (found.done, found.epochs, found.step, found.miou, found.best) == (0, 4, 5, None, None)
    assert found.seconds_left == pytest.approx(35 * 8 / 16)


def test_between_two_epochs_no_step_is_told() -> None:
    found = training_standing(Course((step(10),), (epoch(1),)), 4, 8)
    assert (found.done, found.step, found.loss) == (1, 0, 1.0)
    assert found.seconds_left == pytest.approx(72)


def test_nothing_is_known_of_nothing() -> None:
    found = training_standing(Course(), None, None)
    assert (found.done, found.epochs, found.loss, found.best, found.seconds_left, found.latest) == (0, *[None] * 5)
    assert training_standing(Course((), (epoch(1, None),)), 1, 8).best is None
