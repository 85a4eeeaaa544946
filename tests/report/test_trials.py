"""Trials as a table, as CSV and as a page."""

import csv
import io
from typing import Any

import pytest
from rich.console import Console

from segbatch.report.trials import (
    TrialResult,
    course_chart,
    scatter_chart,
    short_keys,
    trials_csv,
    trials_html,
    trials_table,
)


def trial(number: int, mious: list[float | None], state: Any = "done", rate: float = 0.001, **more: Any) -> TrialResult:
    history = [{"epoch": epoch, "miou": miou} for epoch, miou in enumerate(mious, 1)]
    settings = {"training.learning_rate": rate, "training.loss": more.pop("loss", "ce"), "training.tile": 256}
    return TrialResult(number, settings, state, more.pop("reason", None), history, 12.34)


@pytest.fixture
def trials() -> list[TrialResult]:
    return [
        trial(1, [0.2, 0.5, 0.4], rate=0.001),
        trial(2, [0.1], "stopped", rate=0.0001),
        trial(3, [], "failed", rate=0.5, reason="The loss became nan, <b>so</b> it ended."),
        trial(4, [0.3, 0.7], "unfinished", rate=0.02, loss="ce+dice"),
        trial(5, [0.9, None], "failed", reason="lost"),
    ]


def test_the_table_is_sorted_and_fits_80_columns(trials: list[TrialResult]) -> None:
    console = Console(width=80, file=io.StringIO())
    console.print(trials_table(trials))
    lines = [line.rstrip() for line in console.file.getvalue().splitlines() if line.strip()]  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["Trial", "mIoU", "Best", "epoch", "learning_rate", "loss", "tile"]
    rows = [line.split() for line in lines[2:]]
    assert [row[0] for row in rows] == ["4", "1", "2", "5", "3"]
    assert rows[0] == ["4", "0.700", "2", "of", "2", "0.02", "ce+dice", "256", "not", "finished"]
    assert rows[1] == ["1", "0.500", "2", "of", "3", "0.001", "ce", "256"]
    assert rows[2][-2:] == ["stopped", "early"]
    assert rows[4] == ["3", "-", "-", "0.5", "ce", "256", "failed"]


def test_csv_has_all_that_is_known(trials: list[TrialResult]) -> None:
    rows = list(csv.DictReader(io.StringIO(trials_csv(trials))))
    assert [row["trial"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert rows[0] == {
        "trial": "1", "state": "done", "miou": "0.5", "epoch": "2", "epochs": "3", "seconds": "12.3",
        "training.learning_rate": "0.001", "training.loss": "ce", "training.tile": "256", "reason": "",
    }  # fmt: skip
    assert rows[2]["miou"] == ""
    assert rows[2]["reason"] == "The loss became nan, <b>so</b> it ended."


def test_keys_are_short_where_they_stay_apart() -> None:
    assert short_keys({"training.tile": 1, "model.init": 2}) == {"training.tile": "tile", "model.init": "init"}
    assert short_keys({"model.weights": 1, "model.options.weights": 2}) == {
        "model.weights": "model.weights",
        "model.options.weights": "model.options.weights",
    }


def test_the_course_has_a_curve_a_trial_and_the_best_on_top(trials: list[TrialResult]) -> None:
    ordered = sorted(trials, key=lambda trial: trial.rank)
    chart = course_chart(ordered)
    assert chart is not None
    assert len(chart.lines) == 4
    assert chart.lines[-1].name.startswith("trial 4: ")
    assert [line.color is None for line in chart.lines] == [False, False, False, True]


def test_magnitudes_are_spread_evenly_and_words_side_by_side(trials: list[TrialResult]) -> None:
    ordered = sorted([trial(1, [0.2], rate=1e-4), trial(2, [0.4], rate=1e-3), trial(3, [0.8], rate=1e-2, loss="dice")],
                     key=lambda trial: trial.rank)  # fmt: skip
    rates = scatter_chart("training.learning_rate", ordered)
    (low, middle, high) = rates.points
    assert middle.x - low.x == pytest.approx(high.x - middle.x)
    assert low.y - middle.y == pytest.approx((middle.y - high.y) / 2, abs=0.2)
    assert (high.best, low.best) == (True, False)
    assert [text for _, text in rates.x_ticks][:3] == ["0.0001", "0.0002", "0.0005"]
    losses = scatter_chart("training.loss", ordered)
    assert [text for _, text in losses.x_ticks] == ["ce", "dice"]
    assert {point.x for point in losses.points} == {x for x, _ in losses.x_ticks}
    (only,) = scatter_chart("training.tile", ordered).x_ticks
    assert only[1] == "256"


def test_the_page_shows_all_and_escapes_what_it_quotes(trials: list[TrialResult]) -> None:
    page = trials_html("<name>", trials)
    assert "&lt;name&gt;" in page
    assert "The loss became nan, &lt;b&gt;so&lt;/b&gt; it ended." in page
    assert page.count("<circle") == 3 * 4
    assert page.count('<circle cx="') - page.count('fill="#') == 3  # the best, in each
    assert "<script" not in page


def test_a_search_without_an_epoch_has_a_page_without_charts() -> None:
    page = trials_html("name", [trial(1, [], "failed", reason="lost")])
    assert "<svg" not in page
    assert "failed: lost" in page
