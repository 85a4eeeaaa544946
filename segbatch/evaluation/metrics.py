"""Metrics of a confusion matrix.

Policy: a class in neither label nor prediction has no value (None) and is left out of means; a class that
is only predicted counts as 0.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ClassMetrics:
    """Figures of one class; None where they are not defined.

    Args:
        iou: Intersection over union, TP / (TP + FP + FN).
        dice: 2 TP / (2 TP + FP + FN).
        precision: TP / (TP + FP).
        recall: TP / (TP + FN).
        support: Labelled pixels of the class.
        predicted: Predicted pixels of the class, among those with a label.
    """

    iou: float | None
    dice: float | None
    precision: float | None
    recall: float | None
    support: int
    predicted: int


@dataclass(frozen=True, slots=True)
class Metrics:
    """Figures of a confusion matrix; None where nothing was counted.

    Args:
        classes: One entry a class, in the order of the ids.
        miou: Mean of the classes' iou.
        fwiou: Mean of the classes' iou weighted by support.
        mdice: Mean of the classes' dice.
        pixel_accuracy: Share of pixels predicted right.
        mean_accuracy: Mean recall of the classes that have labelled pixels.
    """

    classes: tuple[ClassMetrics, ...]
    miou: float | None
    fwiou: float | None
    mdice: float | None
    pixel_accuracy: float | None
    mean_accuracy: float | None


def compute_metrics(confusion: NDArray[np.int64]) -> Metrics:
    """Derive all figures from a confusion matrix (rows = label, columns = prediction)."""
    true_positive = np.diag(confusion)
    support = confusion.sum(axis=1)
    predicted = confusion.sum(axis=0)
    classes = tuple(
        ClassMetrics(
            iou=_ratio(tp, labelled + found - tp),
            dice=_ratio(2 * tp, labelled + found),
            precision=_ratio(tp, found),
            recall=_ratio(tp, labelled),
            support=labelled,
            predicted=found,
        )
        for tp, labelled, found in zip(true_positive.tolist(), support.tolist(), predicted.tolist(), strict=True)
    )
    total = int(confusion.sum())
    return Metrics(
        classes=classes,
        miou=_mean([c.iou for c in classes]),
        fwiou=sum((c.iou or 0.0) * c.support for c in classes) / total if total else None,
        mdice=_mean([c.dice for c in classes]),
        pixel_accuracy=_ratio(int(true_positive.sum()), total),
        mean_accuracy=_mean([c.recall for c in classes]),
    )


def one_class_miou(confusion: NDArray[np.int64]) -> float | None:
    """The miou of calling every pixel of a confusion matrix's labels the commonest class; None without any."""
    support = confusion.sum(axis=1)
    present = int((support > 0).sum())
    return float(support.max() / support.sum()) / present if present else None


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _mean(values: list[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None
