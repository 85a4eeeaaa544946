"""The report as one HTML page that needs nothing beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from segbatch.report.charts import training_charts
from segbatch.report.document import POLICY
from segbatch.report.summary import RunSummary
from segbatch.report.tables import SCENE_FILES, area_field, nothing_evaluated
from segbatch.report.training import epoch_table, kept_epoch, training_facts

MOST_PANELS = 24
"""Scenes that are shown as pictures."""

MOST_SCENES = 200
"""Scenes in the table; per_scene.csv has them all."""

_NO_VALUE = "\u2013"
_MOST_GROUPS = 200
_MOST_LISTED = 50
_MOST_MATRIX_CLASSES = 40
_MOST_CLASS_COLUMNS = 8
_MOST_EPOCHS = 200
_MOST_RUNS = 20


@dataclass(frozen=True, slots=True)
class Picture:
    """A tile as the page shows it.

    Args:
        caption: image, label or class mask.
        uri: ``data:`` URI.
        problem: Why there is no picture, or None.
        width: Pixels.
        height: Pixels.
    """

    caption: str
    uri: str
    problem: str | None
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Panel:
    """The pictures of a scene, or of a window of one."""

    title: str
    pictures: tuple[Picture, ...]


def render_html(
    document: dict[str, Any], summary: RunSummary, panels: Sequence[Panel], samples: Sequence[Panel] = ()
) -> str:
    """The page. Nothing in it depends on the time or place of writing.

    Args:
        document: What `metrics_document` returns for the summary.
        summary: The run.
        panels: Pictures of the first scenes.
        samples: Pictures of the training's sample predictions.
    """
    environment = Environment(
        loader=PackageLoader("segbatch.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(figure=figure, percent=percent, count=count, area=area, cell=cell, short=short)
    scenes, failed, unfinished = document["scenes"], document["failed"], document["unfinished"]
    mapped = len(scenes) - len(failed) - len(unfinished)
    rows = summary.training
    kept, schedule = kept_epoch(rows), summary.schedule
    kept_number = None if kept is None else kept["epoch"]
    return environment.get_template("report.html.j2").render(
        document=document,
        no_value=_NO_VALUE,
        facts=summary.facts,
        labelled=document["confusion"] is not None,
        num_mapped=mapped,
        num_labelled=sum(scene["status"] == "done" for scene in scenes),
        failed=failed[:_MOST_LISTED],
        unfinished=unfinished[:_MOST_LISTED],
        nothing_evaluated=nothing_evaluated(document),
        files=[name for name in SCENE_FILES if any(scene[name] is not None for scene in scenes)],
        area_field=area_field(document),
        matrix=_matrix(document["confusion"]),
        class_columns=len(document["classes"]) <= _MOST_CLASS_COLUMNS,
        groups=document["groups"][:_MOST_GROUPS],
        scenes=scenes[:MOST_SCENES],
        panels=panels,
        mapped=bool(scenes),
        epochs=rows,
        shown_epochs=epoch_table(rows[-_MOST_EPOCHS:], len(document["classes"])),
        epoch_columns=len(document["classes"]) <= _MOST_CLASS_COLUMNS,
        kept_epoch=kept_number,
        training_facts=training_facts(rows) if rows else (),
        charts=training_charts(rows, summary.classes, summary.steps, kept_number),
        samples=samples,
        schedule=schedule,
        runs=schedule.runs[: -_MOST_RUNS - 1 : -1] if schedule else (),
        dated=sorted(schedule.scenes, key=lambda row: row["status"] == "mapped")[:MOST_SCENES] if schedule else (),
        policy=POLICY,
    )


def figure(value: float | None) -> str:
    """Format a metric with three decimals."""
    return _NO_VALUE if value is None else f"{value:.3f}"


def short(value: float | None) -> str:
    """Format a number of any size with three digits."""
    return _NO_VALUE if value is None else f"{value:.3g}"


def percent(value: float | None) -> str:
    """Format a share as a percentage; one that is not zero is not shown as zero."""
    if value is None:
        return _NO_VALUE
    if value == 0:
        return "0 %"
    return "< 0.1 %" if value < 0.0005 else f"{value * 100:.1f} %"


def count(value: int | None) -> str:
    """Format a whole number in groups of three digits."""
    return _NO_VALUE if value is None else f"{value:,}"


def area(value: float | None) -> str:
    """Format an area with four significant digits, never in exponents."""
    if value is None:
        return _NO_VALUE
    decimals = next((digits for digits, limit in ((3, 10), (2, 100), (1, 1000)) if value < limit), 0)
    return "< 0.001" if 0 < value < 0.0005 else f"{value:,.{decimals}f}"


def cell(share: float | None) -> str:
    """Format a share for a cell of the confusion matrix: a percentage without its sign, short enough for 20 classes."""
    if share is None or share == 0:
        return "·"
    return "<1" if share < 0.005 else f"{share * 100:.0f}"


def _matrix(confusion: list[list[int]] | None) -> list[list[tuple[int, float | None]]] | None:
    """(count, share of its row) by label and prediction; None if there is none or it is too large to read."""
    if confusion is None or len(confusion) > _MOST_MATRIX_CLASSES:
        return None
    return [[(value, value / sum(row) if sum(row) else None) for value in row] for row in confusion]
