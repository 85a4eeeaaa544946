"""Losses, all blind to `IGNORE_INDEX`: cross-entropy, dice, focal, and their sums."""

from collections.abc import Callable

import segmentation_models_pytorch as smp
import torch

from segbatch.classes import IGNORE_INDEX

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def build_loss(name: str, label_smoothing: float = 0.0) -> Loss:
    """A function of logits (batch, classes, height, width) and class ids (batch, height, width).

    Args:
        name: ``ce``, ``dice``, ``focal``, or a sum of them such as ``ce+dice``. Dice: Milletari et al. 2016;
            focal: Lin et al. 2017.
        label_smoothing: Of the cross-entropy.
    """
    terms = [_term(part.strip(), label_smoothing) for part in name.split("+")]

    def loss(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return torch.stack([term(logits, label) for term in terms]).sum()

    return loss


def _term(name: str, label_smoothing: float) -> Loss:
    if name == "ce":

        def cross_entropy(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            total = torch.nn.functional.cross_entropy(
                logits, label, ignore_index=IGNORE_INDEX, label_smoothing=label_smoothing, reduction="sum"
            )
            # The built-in mean is 0 / 0 for a batch in which no pixel has a label.
            return total / (label != IGNORE_INDEX).sum().clamp(min=1)

        return cross_entropy
    if name == "dice":
        return smp.losses.DiceLoss("multiclass", ignore_index=IGNORE_INDEX)
    if name == "focal":
        focal = smp.losses.FocalLoss("multiclass", ignore_index=IGNORE_INDEX)

        def focal_or_zero(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            # Here, too, the mean over no pixel is 0 / 0.
            return focal(logits, label) if (label != IGNORE_INDEX).any() else logits.sum() * 0

        return focal_or_zero
    raise ValueError(f"unknown loss {name!r}")
