"""Write a run's report: figures, tables, pictures and the page."""

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from segbatch.classes import LabelMap
from segbatch.report.document import metrics_document
from segbatch.report.figures import data_uri, panel_png, scene_tiles, tile_uri
from segbatch.report.html import MOST_PANELS, Panel, Picture, render_html
from segbatch.report.summary import RunSummary
from segbatch.report.tables import confusion_csv, per_class_csv, per_scene_csv
from segbatch.storage import place, write_whole

PAGE = "report.html"


def write_report(
    summary: RunSummary,
    out_dir: str | Path,
    *,
    label_map: LabelMap,
    bands_to_show: Sequence[int | str] | None = None,
    nodata: float | None = None,
) -> dict[str, Any]:
    """Write report.html, metrics.json, per_class.csv, per_scene.csv, confusion.csv and a PNG a scene.

    Pictures are made of the first `MOST_PANELS` scenes that are whole. Each file appears whole or not at
    all, metrics.json last; the same summary gives the same bytes.

    Args:
        summary: The run.
        out_dir: Folder; made if need be.
        label_map: From label values to class ids.
        bands_to_show: Bands of the images for the pictures; see `scene_tiles`.
        nodata: Fill value that overrides the images' own.

    Returns:
        The content of metrics.json.
    """
    folder = place(out_dir)
    document = metrics_document(summary)
    panels = []
    for scene in [scene for scene in summary.scenes if scene.is_whole][:MOST_PANELS]:
        tiles = scene_tiles(scene, summary.classes, label_map, bands_to_show, nodata)
        write_whole(folder / f"{scene.id}.png", panel_png(tiles))
        pictures = [
            Picture(tile.caption, tile_uri(tile), tile.problem, tile.pixels.shape[1], tile.pixels.shape[0])
            for tile in tiles
        ]
        panels.append(Panel(scene.id, tuple(pictures)))
    _write_text(folder / "per_class.csv", per_class_csv(document))
    _write_text(folder / "per_scene.csv", per_scene_csv(document))
    _write_text(folder / "confusion.csv", confusion_csv(document))
    _write_text(folder / PAGE, render_html(document, summary, panels, _samples(summary)))
    _write_text(folder / "metrics.json", json.dumps(document, indent=1, allow_nan=False) + "\n")
    return document


def write_training_report(summary: RunSummary, out_dir: str | Path) -> None:
    """Write report.html of a run that has trained and mapped nothing yet.

    Args:
        summary: The run, without scenes.
        out_dir: Folder; made if need be.
    """
    _write_text(place(out_dir) / PAGE, render_html(metrics_document(summary), summary, (), _samples(summary)))


def _samples(summary: RunSummary) -> list[Panel]:
    return [
        Panel(sample.title, tuple(_file_picture(caption, path) for caption, path in sample.pictures))
        for sample in summary.samples
    ]


def _file_picture(caption: str, path: str) -> Picture:
    """A picture from its file, as it is."""
    try:
        content = place(path).read_bytes()
        with Image.open(BytesIO(content), formats=("JPEG", "PNG")) as picture:
            kind, (width, height) = str(picture.format).lower(), picture.size
        return Picture(caption, data_uri(content, kind), None, width, height)
    except OSError as error:
        return Picture(caption, "", error.strerror or "the file is damaged", 0, 0)


def _write_text(path: Path, text: str) -> None:
    # File names that are not UTF-8 reach us with surrogates, which UTF-8 refuses.
    write_whole(path, text.encode("utf-8", "backslashreplace"))
