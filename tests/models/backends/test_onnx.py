"""What is special about ONNX Runtime: what it does not have is refused with the way out."""

from collections.abc import Callable

import pytest
import torch

from segbatch.errors import InputError
from segbatch.models.backends.forward import Forward
from segbatch.models.backends.mapper import Mapper

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

import segbatch.models.backends.onnx as backend

Inputs = tuple[torch.Tensor, torch.Tensor]


def test_bf16_is_refused(integer_forward: Callable[..., Forward], integer_inputs: Callable[..., Inputs]) -> None:
    with pytest.raises(InputError, match="onnx has no bf16. Choose precision float32"):
        integer_forward("onnx", "bf16").classes(*integer_inputs())


def test_devices_without_a_provider_are_refused(integer_inputs: Callable[..., Inputs]) -> None:
    pixels, valid = (tensor.to("meta") for tensor in integer_inputs())
    mapper = Mapper(torch.nn.Identity(), (0.0, 0.0), (1.0, 1.0))
    with pytest.raises(InputError, match="does not run on meta: install onnxruntime-gpu"):
        backend.build(mapper, pixels, valid, "float32", None)


def test_it_is_silent(
    integer_forward: Callable[..., Forward],
    integer_inputs: Callable[..., Inputs],
    capfd: pytest.CaptureFixture[str],
) -> None:
    integer_forward("onnx").classes(*integer_inputs())
    assert capfd.readouterr() == ("", "")
