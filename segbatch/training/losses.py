"""Losses, all blind to `IGNORE_INDEX`, and their sums."""

from collections.abc import Callable

import numpy as np
import segmentation_models_pytorch as smp
import torch
from numpy.typing import NDArray

from segbatch.classes import IGNORE_INDEX
from segbatch.config import ClassWeights

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

_FALSE_POSITIVES, _FALSE_NEGATIVES = 0.3, 0.7
"""Their weights in the Tversky loss: what is missed counts more, as its authors found best for small structures."""


def build_loss(name: str, label_smoothing: float = 0.0, class_weights: torch.Tensor | None = None) -> Loss:
    """A function of logits (batch, classes, height, width) and class ids (batch, height, width).

    Args:
        name: ``ce``, ``dice``, ``focal``, ``lovasz``, ``tversky``, or a sum of them such as ``ce+dice``. Dice:
            Milletari et al. 2016; focal: Lin et al. 2017; Lovasz-softmax: Berman et al. 2018; Tversky: Salehi et al.
            2017.
        label_smoothing: Of the cross-entropy.
        class_weights: (classes,) of the cross-entropy; None for equal ones.
    """
    terms = [_term(part.strip(), label_smoothing, class_weights) for part in name.split("+")]

    def loss(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return torch.stack([term(logits, label) for term in terms]).sum()

    return loss


def weigh_classes(how: ClassWeights, class_pixels: NDArray[np.int64], total_pixels: NDArray[np.int64]) -> list[float]:
    """Weights of the classes, whose mean over the labelled pixels is 1; 0 for classes that never occur.

    Args:
        how: ``none``: all alike. ``inverse``: by the inverse of a class's frequency, so that all have the same say.
            ``median``: by the median of all frequencies over a class's own, which counts only the cells that have
            the class (median frequency balancing, Eigen and Fergus 2015).
        class_pixels: (classes,) labelled pixels.
        total_pixels: (classes,) labelled pixels, of any class, of the cells that a class occurs in.
    """
    seen = class_pixels > 0
    weights = np.zeros(len(class_pixels))
    if how == "none":
        weights[seen] = 1.0
    elif how == "inverse":
        weights[seen] = 1 / class_pixels[seen]
    else:
        frequency = class_pixels[seen] / total_pixels[seen]
        weights[seen] = np.median(frequency) / frequency
    return (weights * class_pixels.sum() / (weights * class_pixels).sum()).tolist()


def _term(name: str, label_smoothing: float, class_weights: torch.Tensor | None) -> Loss:
    if name == "ce":

        def cross_entropy(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            weights = torch.ones(logits.shape[1]) if class_weights is None else class_weights
            weights = weights.to(logits)
            total = torch.nn.functional.cross_entropy(
                logits, label, weight=weights, ignore_index=IGNORE_INDEX, label_smoothing=label_smoothing,
                reduction="sum",
            )  # fmt: skip
            # The built-in mean is 0 / 0 for a batch in which no pixel has a label.
            labelled = label != IGNORE_INDEX
            weight = (weights[label.where(labelled, 0)] * labelled).sum()
            return total / weight.where(weight > 0, 1)

        return cross_entropy
    if name == "dice":
        return smp.losses.DiceLoss("multiclass", ignore_index=IGNORE_INDEX)
    if name == "focal":
        return _or_zero(smp.losses.FocalLoss("multiclass", ignore_index=IGNORE_INDEX))
    if name == "lovasz":
        lovasz = smp.losses.LovaszLoss("multiclass", ignore_index=IGNORE_INDEX)
        return _or_zero(lambda logits, label: lovasz(logits.float(), label))  # it knows no other type
    if name == "tversky":
        return smp.losses.TverskyLoss(
            "multiclass", ignore_index=IGNORE_INDEX, alpha=_FALSE_POSITIVES, beta=_FALSE_NEGATIVES
        )
    raise ValueError(f"unknown loss {name!r}")


def _or_zero(term: Loss) -> Loss:
    """A loss that is 0 / 0 where no pixel has a label, as 0."""

    def guarded(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return term(logits, label) if (label != IGNORE_INDEX).any() else logits.sum() * 0

    return guarded
