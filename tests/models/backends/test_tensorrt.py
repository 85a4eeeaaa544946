"""TensorRT as far as it goes without a GPU: what it refuses."""

import sys
from collections.abc import Callable
from types import ModuleType

import pytest
import torch

from segbatch.errors import InputError
from segbatch.models.backends.mapper import Mapper

Inputs = tuple[torch.Tensor, torch.Tensor]


def test_other_devices_and_int8(integer_inputs: Callable[..., Inputs], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_tensorrt", ModuleType("torch_tensorrt"))
    monkeypatch.delitem(sys.modules, "segbatch.models.backends.tensorrt", raising=False)
    from segbatch.models.backends.tensorrt import build

    mapper = Mapper(torch.nn.Conv2d(2, 3, 1), (0.0, 0.0), (1.0, 1.0))
    with pytest.raises(InputError, match="tensorrt runs on CUDA devices, not on cpu"):
        build(mapper, *integer_inputs(), "float32", None)
    with pytest.raises(InputError, match="int8 is for the backends openvino and onnx, not for tensorrt"):
        build(mapper, *integer_inputs(), "int8", None)
