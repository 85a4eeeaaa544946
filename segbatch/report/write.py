"""Write a run's report: figures, tables, pictures and the page."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbatch.classes import LabelMap
from segbatch.report.document import metrics_document
from segbatch.report.figures import MaskReader, panel_png, scene_tiles, tile_uri
from segbatch.report.html import MOST_PANELS, Panel, Picture, render_html
from segbatch.report.summary import RunSummary
from segbatch.report.tables import confusion_csv, per_class_csv, per_scene_csv
from segbatch.scenes import open_scene


def read_raster_mask(path: str, max_side: int) -> NDArray[np.uint8]:
    """A class mask that GDAL reads, such as a COG, shrunk so that no side exceeds ``max_side`` pixels."""
    with open_scene(path) as reader:
        return reader.thumbnail(max_side, (1,)).values[0].astype(np.uint8)


def write_report(
    summary: RunSummary,
    out_dir: str | Path,
    *,
    label_map: LabelMap,
    read_mask: MaskReader = read_raster_mask,
    bands_to_show: Sequence[int | str] | None = None,
    nodata: float | None = None,
) -> dict[str, Any]:
    """Write report.html, metrics.json, per_class.csv, per_scene.csv, confusion.csv and a PNG a scene.

    Pictures are made of the first `MOST_PANELS` scenes that did not fail. Each file appears whole or not at
    all, metrics.json last; the same summary gives the same bytes.

    Args:
        summary: The run.
        out_dir: Folder; made if need be.
        label_map: From label values to class ids.
        read_mask: Reads class masks for the pictures.
        bands_to_show: Bands of the images for the pictures; see `scene_tiles`.
        nodata: Fill value that overrides the images' own.

    Returns:
        The content of metrics.json.
    """
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    document = metrics_document(summary)
    panels = []
    for scene in [scene for scene in summary.scenes if scene.error is None][:MOST_PANELS]:
        tiles = scene_tiles(scene, summary.classes, label_map, read_mask, bands_to_show, nodata)
        _replace(folder / f"{scene.id}.png", panel_png(tiles))
        pictures = [
            Picture(tile.caption, tile_uri(tile), tile.problem, tile.pixels.shape[1], tile.pixels.shape[0])
            for tile in tiles
        ]
        panels.append(Panel(scene.id, tuple(pictures)))
    _replace(folder / "per_class.csv", per_class_csv(document))
    _replace(folder / "per_scene.csv", per_scene_csv(document))
    _replace(folder / "confusion.csv", confusion_csv(document))
    _replace(folder / "report.html", render_html(document, summary, panels))
    _replace(folder / "metrics.json", json.dumps(document, indent=1, allow_nan=False) + "\n")
    return document


def _replace(path: Path, content: bytes | str) -> None:
    """Write a file whole: readers see the old content or the new one."""
    if isinstance(content, str):
        # File names that are not UTF-8 reach us with surrogates, which UTF-8 refuses.
        content = content.encode("utf-8", "backslashreplace")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
