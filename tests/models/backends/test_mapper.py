"""The network that backends run, against numpy."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from segbatch.models.backends.mapper import Mapper

Inputs = tuple[torch.Tensor, torch.Tensor]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
def test_pixels_are_normalised_and_what_is_not_valid_is_the_mean(
    integer_inputs: Callable[..., Inputs], dtype: str
) -> None:
    pixels, valid = integer_inputs(dtype=dtype)
    mean, std = (10.0, 5.0), (3.0, 0.5)
    found = Mapper(torch.nn.Identity(), mean, std)(pixels, valid)
    columns = (np.array(values)[:, None, None] for values in (mean, std))
    expected = (pixels.numpy().astype(np.float64) - next(columns)) / next(columns)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), np.where(valid, expected, 0), rtol=2e-6, atol=1e-6)


def test_classes_are_the_largest_logits(integer_inputs: Callable[..., Inputs]) -> None:
    pixels, valid = integer_inputs()
    model = torch.nn.Conv2d(2, 5, 1)
    logits = Mapper(model, (1.0, 2.0), (1.0, 1.0))(pixels, valid)
    assert logits.shape == (2, 5, 32, 48)
    classes = Mapper(model, (1.0, 2.0), (1.0, 1.0), logits=False)(pixels, valid)
    assert classes.dtype == torch.uint8
    assert torch.equal(classes.long(), logits.argmax(1))
