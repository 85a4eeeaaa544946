"""The share of valid pixels that agree."""

import torch

from segbatch.models.backends.agreement import agreement


def test_only_valid_pixels_count() -> None:
    reference = torch.tensor([[0, 1, 2, 3, 4]], dtype=torch.uint8)
    other = torch.tensor([[0, 1, 2, 0, 0]], dtype=torch.uint8)
    assert agreement(reference, other, torch.tensor([[True, True, True, True, False]])) == 0.75
    assert agreement(reference, other, torch.tensor([[False, False, False, True, True]])) == 0.0
    assert agreement(reference, reference, torch.ones(1, 5, dtype=torch.bool)) == 1.0


def test_nothing_valid_agrees() -> None:
    classes = torch.zeros(2, 2, dtype=torch.uint8)
    assert agreement(classes, classes + 1, torch.zeros(2, 2, dtype=torch.bool)) == 1.0
