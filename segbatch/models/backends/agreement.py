"""How far two backends tell the same."""

import torch


def agreement(reference: torch.Tensor, other: torch.Tensor, valid: torch.Tensor) -> float:
    """Share of the valid pixels with the same class id in both; 1 where no pixel is valid.

    Args:
        reference: Class ids, of any shape.
        other: Likewise.
        valid: bool, True = a real pixel.
    """
    count = int(valid.sum())
    return int(((reference == other) & valid).sum()) / count if count else 1.0
