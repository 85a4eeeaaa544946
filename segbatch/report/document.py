"""The metrics document: every figure of a run as plain data, the content of metrics.json."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbatch.evaluation import Metrics, compute_metrics
from segbatch.redaction import redact
from segbatch.report.summary import RunSummary, SceneResult

_M2_PER_KM2 = 1e6
_UM2_PER_MM2 = 1e6

POLICY = (
    "Figures are pooled: confusion matrices of all labelled scenes are added up first, so every pixel weighs the same. "
    "The mean of the scenes' own mean IoU stands beside them.",
    "A class that is in neither label nor prediction has no value (null) and is left out of means; "
    "a class that is only predicted has IoU 0 and counts in the mean IoU.",
    "Pixels whose label is ignored and pixels without data are not counted. The ignored share is one of the "
    "labelled scenes' pixels, the nodata share one of all mapped scenes' pixels.",
    "Pixels and areas by class are those of all mapped scenes, labelled or not. "
    "An area is null unless it is known for each of them.",
    "Scenes that failed or are not finished count nowhere; they are listed by name.",
)
"""How the figures are to be read, one statement an entry."""


def metrics_document(summary: RunSummary) -> dict[str, Any]:
    """Derive all figures of a run.

    Returns:
        Plain data, strict JSON without NaN: figures that are not defined are None, and so are all metrics
        and the confusion matrix of a run without labelled scenes. Shares are of 1, areas in km2 and mm2.
    """
    mapped = [scene for scene in summary.scenes if scene.is_whole]
    confusion = _pooled(mapped)
    metrics = compute_metrics(_matrix(confusion, summary))
    class_pixels = _class_pixels(mapped, len(summary.classes))
    valid = sum(class_pixels)
    areas = _areas(mapped, len(summary.classes))
    return {
        "name": summary.name,
        "classes": [
            {
                "name": name,
                "color": color,
                "iou": figures.iou,
                "dice": figures.dice,
                "precision": figures.precision,
                "recall": figures.recall,
                "support": None if confusion is None else figures.support,
                "predicted": None if confusion is None else figures.predicted,
                "pixels": pixels,
                "share": pixels / valid if valid else None,
                **{unit: None if area is None else area[index] for unit, area in areas.items()},
            }
            for index, (name, color, figures, pixels) in enumerate(
                zip(summary.classes.names, summary.classes.colors, metrics.classes, class_pixels, strict=True)
            )
        ],
        **_means(metrics),
        "scene_mean": _scene_mean(mapped),
        "confusion": None if confusion is None else confusion.tolist(),
        **_counts(mapped),
        "scenes": [_scene_row(scene, summary) for scene in summary.scenes],
        "groups": _group_rows(summary),
        "failed": [
            {"id": scene.id, "image": _shown(scene.image), "error": _shown(scene.error)}
            for scene in summary.scenes
            if scene.error is not None
        ],
        "unfinished": [
            {"id": scene.id, "image": _shown(scene.image), "left": _shown(scene.left)}
            for scene in summary.scenes
            if scene.status == "unfinished"
        ],
        **({} if summary.cost is None else {"cost": dict(summary.cost)}),
        "policy": " ".join(POLICY),
    }


def _scene_row(scene: SceneResult, summary: RunSummary) -> dict[str, Any]:
    mapped = [scene] if scene.is_whole else []
    metrics = compute_metrics(_matrix(_pooled(mapped), summary))
    counts = _counts(mapped)
    return {
        "id": scene.id,
        "group": scene.group,
        "image": _shown(scene.image),
        "label": _shown(scene.label),
        "mask": _shown(scene.shown_mask),
        "status": scene.status,
        "error": _shown(scene.error or scene.left),
        "miou": metrics.miou,
        "pixel_accuracy": metrics.pixel_accuracy,
        "iou": [figures.iou for figures in metrics.classes],
        "width": scene.width,
        "height": scene.height,
        **counts,
        "class_pixels": list(scene.class_pixels) if mapped else None,
        **_areas(mapped, len(summary.classes)),
    }


def _shown(text: str | None) -> str | None:
    return None if text is None else redact(text)


def _group_rows(summary: RunSummary) -> list[dict[str, Any]]:
    """One row a group in order of appearance, scenes without one last; none at all if no scene has a group."""
    groups: dict[str | None, list[SceneResult]] = {}
    for scene in sorted(summary.scenes, key=lambda scene: scene.group is None):
        groups.setdefault(scene.group, []).append(scene)
    rows = []
    for name, members in groups.items() if set(groups) != {None} else ():
        mapped = [scene for scene in members if scene.is_whole]
        metrics = compute_metrics(_matrix(_pooled(mapped), summary))
        rows.append(
            {
                "group": name,
                "scenes": len(members),
                "labelled": sum(scene.status == "done" for scene in members),
                "failed": sum(scene.status == "failed" for scene in members),
                "unfinished": sum(scene.status == "unfinished" for scene in members),
                **_means(metrics),
                "scene_mean": _scene_mean(mapped),
                "iou": [figures.iou for figures in metrics.classes],
                **_counts(mapped),
                "class_pixels": _class_pixels(mapped, len(summary.classes)),
                **_areas(mapped, len(summary.classes)),
            }
        )
    return rows


def _pooled(scenes: Sequence[SceneResult]) -> NDArray[np.int64] | None:
    """The sum of the labelled scenes' confusion matrices, or None without any."""
    matrices = [scene.confusion for scene in scenes if scene.confusion is not None]
    return np.sum(matrices, axis=0, dtype=np.int64) if matrices else None


def _matrix(confusion: NDArray[np.int64] | None, summary: RunSummary) -> NDArray[np.int64]:
    """The matrix, or for None one that counts nothing, all of whose metrics are None."""
    count = len(summary.classes)
    return np.zeros((count, count), np.int64) if confusion is None else confusion


def _means(metrics: Metrics) -> dict[str, float | None]:
    return {
        "miou": metrics.miou,
        "fwiou": metrics.fwiou,
        "mdice": metrics.mdice,
        "pixel_accuracy": metrics.pixel_accuracy,
        "mean_accuracy": metrics.mean_accuracy,
    }


def _scene_mean(scenes: Sequence[SceneResult]) -> float | None:
    """Mean of the labelled scenes' own mIoU."""
    figures = [compute_metrics(scene.confusion).miou for scene in scenes if scene.confusion is not None]
    present = [figure for figure in figures if figure is not None]
    return sum(present) / len(present) if present else None


def _counts(scenes: Sequence[SceneResult]) -> dict[str, int | float | None]:
    """Pixels, counted pixels, and the shares of those that are not counted."""
    labelled = [scene for scene in scenes if scene.confusion is not None]
    pixels = sum(scene.num_pixels for scene in scenes)
    labelled_pixels = sum(scene.num_pixels for scene in labelled)
    return {
        "pixels": pixels,
        "counted_pixels": sum(int(scene.confusion.sum()) for scene in labelled if scene.confusion is not None),
        "nodata_share": sum(scene.nodata_pixels for scene in scenes) / pixels if pixels else None,
        "ignored_share": sum(scene.ignored_pixels for scene in labelled) / labelled_pixels if labelled_pixels else None,
    }


def _class_pixels(scenes: Sequence[SceneResult], num_classes: int) -> list[int]:
    return [sum(scene.class_pixels[index] for scene in scenes) for index in range(num_classes)]


def _areas(scenes: Sequence[SceneResult], num_classes: int) -> dict[str, list[float] | None]:
    """Area by class in km2 (scenes with a map) and mm2 (scans); None unless each scene's pixel size is known."""
    square_um = [None if scene.pixel_size_um is None else scene.pixel_size_um**2 for scene in scenes]
    return {
        "area_km2": _area(scenes, [scene.pixel_area_m2 for scene in scenes], _M2_PER_KM2, num_classes),
        "area_mm2": _area(scenes, square_um, _UM2_PER_MM2, num_classes),
    }


def _area(
    scenes: Sequence[SceneResult], pixel_areas: Sequence[float | None], unit: float, num_classes: int
) -> list[float] | None:
    totals = [0.0] * num_classes
    for scene, pixel_area in zip(scenes, pixel_areas, strict=True):
        if pixel_area is None:
            return None
        for index, pixels in enumerate(scene.class_pixels):
            totals[index] += pixels * pixel_area / unit
    return totals if scenes else None
