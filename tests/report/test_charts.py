"""Charts of training: where points lie, and what missing values do."""

import math
import re

import pytest

from segbatch.classes import ClassTable
from segbatch.report.charts import nice_ticks, training_charts

CLASSES = ClassTable.from_items([("water", "#0000ff"), ("forest", "#00ff00")])


def points(path):
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path)]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 1.83, [0, 0.5, 1, 1.5, 2]),
        (0, 0.0007, [0, 0.0002, 0.0004, 0.0006, 0.0008]),
        (3, 3, [3, 4, 5, 6]),
        (0, 0, [0, 0.2, 0.4, 0.6, 0.8, 1]),
    ],
)
def test_ticks_are_round_and_span_the_values(low, high, ticks):
    assert nice_ticks(low, high) == pytest.approx(ticks)


def test_points_are_in_proportion():
    rows = [{"epoch": e, "loss": 2.0 / e, "miou": m, "iou": [m, 0.5]} for e, m in ((1, 0.0), (2, 0.5), (3, 1.0))]
    loss, iou = training_charts(rows, CLASSES)
    (x1, y1), (x2, y2), (x3, y3) = points(iou.lines[-1].path)
    assert iou.lines[-1].name == "mean IoU"
    assert (x1, x3) == (iou.left, iou.right)
    assert x2 == pytest.approx((x1 + x3) / 2, abs=0.1)
    assert y1 == iou.bottom == iou.y_ticks[0][0]
    assert y3 == iou.y_ticks[-1][0] < y1
    assert y2 == pytest.approx((y1 + y3) / 2, abs=0.1)
    assert [line.color for line in iou.lines] == ["#0000ff", "#00ff00", None]
    assert [text for _, text in loss.x_ticks] == ["1", "2", "3"]


def test_epochs_without_a_value_break_the_curve():
    values = [0.1, math.nan, 0.3, 0.4, None, 0.6]
    rows = [{"epoch": e, "loss": v, "miou": None, "iou": None} for e, v in enumerate(values, 1)]
    (chart,) = training_charts(rows, CLASSES)
    assert chart.title == "Training loss"
    assert len(points(chart.lines[0].path)) == 4
    assert chart.lines[0].path.count("M") == 3
    assert "nan" not in chart.lines[0].path


def test_one_epoch_is_a_dot():
    loss, iou = training_charts([{"epoch": 7, "loss": 0.5, "miou": 0.2, "iou": [0.1, 0.3]}], CLASSES)
    assert re.fullmatch(r"M[\d.]+ [\d.]+h0", loss.lines[0].path)
    assert [text for _, text in iou.x_ticks] == ["7"]


def test_long_training_has_few_round_ticks():
    rows = [{"epoch": e, "loss": 1.0, "miou": 0.5, "iou": [0.5, 0.5]} for e in range(1, 301)]
    assert [text for _, text in training_charts(rows, CLASSES)[0].x_ticks] == ["50", "100", "150", "200", "250", "300"]


def test_no_training_no_chart():
    assert training_charts([], CLASSES) == ()


def test_steps_lie_inside_their_epochs_and_the_kept_epoch_is_marked():
    rows = [{"epoch": e, "loss": 1.0, "miou": 0.5, "iou": [0.5, 0.5], "learning_rate": 1e-3} for e in (1, 2)]
    steps = [{"epoch": e, "step": s, "steps": 4, "loss": 2.0, "learning_rate": 2e-3} for e in (1, 2) for s in (2, 4)]
    loss, iou, rate = training_charts(rows, CLASSES, steps, kept=2)
    assert [line.name for line in loss.lines] == ["steps", "mean of the epoch"]
    (x1, _), (x2, _), (x3, _), (x4, _) = points(loss.lines[0].path)
    assert (x2 - x1, x3 - x2, x4 - x3) == pytest.approx(((x4 - loss.left) / 4,) * 3, abs=0.15)
    assert (x2, x4) == tuple(x for x, _ in points(iou.lines[-1].path))
    assert loss.mark == iou.mark == rate.mark == x4 == loss.right
    assert [text for _, text in loss.x_ticks] == ["0", "1", "2"]
    assert rate.lines[0].path.count("L") == 3
    assert [text for _, text in rate.y_ticks] == ["0", "5e-4", "1e-3", "1.5e-3", "2e-3"]


def test_many_steps_are_drawn_as_means_of_neighbours():
    rows = [{"epoch": 1, "loss": 1.0, "miou": None, "iou": None}]
    steps = [{"epoch": 1, "step": s, "steps": 9000, "loss": float(s % 2)} for s in range(1, 9001)]
    (loss,) = training_charts(rows, CLASSES, steps)
    found = points(loss.lines[0].path)
    assert len(found) == 300
    assert {y for _, y in found} == {(loss.y_ticks[0][0] + loss.y_ticks[-1][0]) / 2}
    assert found[-1][0] == loss.right


def test_a_class_that_an_epoch_does_not_know_has_no_curve():
    (chart,) = training_charts([{"epoch": 1, "miou": 0.5, "iou": [0.5]}], CLASSES)
    assert [line.name for line in chart.lines] == ["water", "mean IoU"]
