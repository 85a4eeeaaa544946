"""Class ids from logits, against argmax."""

import pytest
import torch

from segbatch.models.backends.choice import class_ids


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_largest_logit_wins_and_the_first_of_equals(layout: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randint(-2, 3, (2, 5, 24, 17), generator=generator).float().contiguous(memory_format=layout)
    before = logits.clone()
    found = class_ids(logits)
    expected = logits.argmax(1)
    assert found.dtype == torch.uint8
    assert torch.equal(found.long(), expected)
    assert torch.equal(logits, before)


def test_one_class() -> None:
    assert torch.equal(class_ids(torch.ones(1, 1, 4, 4)), torch.zeros(1, 4, 4, dtype=torch.uint8))
