"""The metrics document as tables: CSV for spreadsheets, a summary for the terminal."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

_CLASS_FIELDS = ("color", "iou", "dice", "precision", "recall", "support", "predicted", "pixels", "share")
SCENE_FILES = ("image", "label", "mask")
"""What a scene's figures come from."""

_SCENE_FIELDS = ("id", "group", *SCENE_FILES, "status", "error", "miou", "pixel_accuracy", "width", "height", "pixels")
_SCENE_SHARES = ("counted_pixels", "nodata_share", "ignored_share")
_AREAS = ("area_km2", "area_mm2")
_MOST_LISTED = 20

_MOSTLY = 0.5
"""With a larger share of pixels without a label, figures are of a part that people should know of."""


def per_class_csv(document: dict[str, Any]) -> str:
    """One row a class; cells of undefined figures are empty."""
    fields = (*_CLASS_FIELDS, *_AREAS)
    rows = ([item["name"], *(item[field] for field in fields)] for item in document["classes"])
    return _csv(["class", *fields], rows)


def per_scene_csv(document: dict[str, Any]) -> str:
    """One row a scene, with a column a class for iou, pixels and area; cells of undefined figures are empty."""
    names = [item["name"] for item in document["classes"]]
    lists = {"iou": "iou", "pixels": "class_pixels", **{area: area for area in _AREAS}}
    header = [*_SCENE_FIELDS, *_SCENE_SHARES, *(f"{title}_{name}" for title in lists for name in names)]
    rows = (
        [
            *(scene[field] for field in (*_SCENE_FIELDS, *_SCENE_SHARES)),
            *(value for field in lists.values() for value in scene[field] or [None] * len(names)),
        ]
        for scene in document["scenes"]
    )
    return _csv(header, rows)


def confusion_csv(document: dict[str, Any]) -> str:
    """Pixel counts: a row for each label class, a column for each predicted class; no rows without labels."""
    names = [item["name"] for item in document["classes"]]
    counts = document["confusion"]
    rows = [] if counts is None else [[name, *row] for name, row in zip(names, counts, strict=True)]
    return _csv(["label/prediction", *names], rows)


def console_summary(document: dict[str, Any]) -> Group:
    """The per-class table, the headline and the scenes that are in neither, for terminals of 80 columns.

    Returns:
        Something for ``rich.console.Console.print``.
    """
    scenes, failed, unfinished = (document[name] for name in ("scenes", "failed", "unfinished"))
    parts: list[Table | Text] = []
    if len(scenes) > len(failed) + len(unfinished):
        table = _mapped(document) if document["confusion"] is None else _evaluated(document)
        parts += [table, Text(_headline(document))]
    of = f"of {len(scenes)} scene{'' if len(scenes) == 1 else 's'}"
    parts += _listed(failed, "error", Text(f"\n{len(failed)} {of} failed:", style="bold red"))
    go_on = "Run the same command again to go on."
    parts += _listed(unfinished, "left", Text(f"\n{len(unfinished)} {of} not finished. {go_on}", style="bold"))
    return Group(*parts)


def _listed(scenes: Sequence[dict[str, Any]], why: str, headline: Text) -> list[Text]:
    """The headline and the first scenes with the reason, or nothing where there is none."""
    lines = [Text(f"  {scene['id']}: {scene[why]}") for scene in scenes[:_MOST_LISTED]]
    if len(scenes) > _MOST_LISTED:
        lines.append(Text(f"  and {len(scenes) - _MOST_LISTED} more, listed in metrics.json"))
    return [headline, *lines] if lines else []


def nothing_evaluated(document: dict[str, Any]) -> str:
    """Why there are no figures, in a sentence."""
    if any(scene["label"] is not None for scene in document["scenes"]):
        return "No scene with a label could be evaluated."
    return "No scene has a label: there is nothing to evaluate."


def area_field(document: dict[str, Any]) -> str | None:
    """Which of a class's areas is known in this run, or None."""
    return next((area for area in _AREAS if document["classes"][0][area] is not None), None)


def _evaluated(document: dict[str, Any]) -> Table:
    table = _table("IoU", "Dice", "Precision", "Recall", "Labelled")
    total = document["counted_pixels"]
    for item in document["classes"]:
        figures = [_figure(item[field]) for field in ("iou", "dice", "precision", "recall")]
        share = _percent(item["support"] / total if total else None)
        table.add_row(_named(item), *figures, share)
    return table


def _mapped(document: dict[str, Any]) -> Table:
    area = area_field(document)
    table = _table("Predicted", *([] if area is None else [area.removeprefix("area_")]))
    for item in document["classes"]:
        cells = [_percent(item["share"]), *([] if area is None else [f"{item[area]:,.4g}"])]
        table.add_row(_named(item), *cells)
    return table


def _table(*figures: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    # Only names may wrap, so that a narrow terminal never cuts a number.
    table.add_column("Class", overflow="fold")
    for figure in figures:
        table.add_column(figure, justify="right", no_wrap=True)
    return table


def _named(item: dict[str, Any]) -> Text:
    # Text, since a name like "[red]" is not markup.
    return Text(item["name"])


def _headline(document: dict[str, Any]) -> str:
    if document["confusion"] is None:
        return nothing_evaluated(document)
    figures = (
        f"mIoU {_figure(document['miou'])}  pixel accuracy {_figure(document['pixel_accuracy'])}  "
        f"fwIoU {_figure(document['fwiou'])}  mean Dice {_figure(document['mdice'])}"
    )
    ignored = document["ignored_share"]
    few = ignored is not None and ignored > _MOSTLY
    return f"{figures}\n{ignored:.1%} of the pixels have no label and are not counted." if few else figures


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    if value is None:
        return "-"
    return "<0.1%" if 0 < value < 0.0005 else f"{value:.1%}"


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
