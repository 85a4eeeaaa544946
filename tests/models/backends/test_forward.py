"""Functions are built once for each kind of input; what is missing is told before any work."""

import sys
from collections.abc import Callable

import pytest
import torch

from segbatch.errors import InputError
from segbatch.models.backends import BACKENDS, eager
from segbatch.models.backends.forward import Forward

Inputs = tuple[torch.Tensor, torch.Tensor]


def test_one_function_for_each_shape_type_and_output(
    integer_forward: Callable[..., Forward], integer_inputs: Callable[..., Inputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []
    real = eager.build

    def build(mapper: torch.nn.Module, pixels: torch.Tensor, *rest: object) -> object:
        built.append((tuple(pixels.shape), pixels.dtype, mapper.logits))
        return real(mapper, pixels, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(eager, "build", build)
    forward = integer_forward("eager")
    first, other = integer_inputs(), integer_inputs(1, 64, 32)
    for _ in range(2):
        forward.classes(*first)
        forward.logits(*first)
        forward.classes(*other)
        forward.classes(first[0].to(torch.int16), first[1])
    shape = (2, 2, 32, 48)
    assert built == [
        (shape, torch.uint8, False),
        (shape, torch.uint8, True),
        ((1, 2, 64, 32), torch.uint8, False),
        (shape, torch.int16, False),
    ]


def test_a_dropout_does_not_act(integer_inputs: Callable[..., Inputs]) -> None:
    forward = Forward(torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), torch.nn.Dropout(0.9)), (0.0, 0.0), (1.0, 1.0))
    inputs = integer_inputs()
    assert torch.equal(forward.logits(*inputs), forward.logits(*inputs))


@pytest.mark.parametrize(
    ("backend", "package"), [("openvino", "openvino"), ("onnx", "onnxruntime"), ("tensorrt", "torch_tensorrt")]
)
def test_a_missing_package_names_the_extra(
    integer_forward: Callable[..., Forward], monkeypatch: pytest.MonkeyPatch, backend: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"segbatch.models.backends.{backend}", raising=False)
    with pytest.raises(InputError, match=rf"backend {backend} is not installed: pip install .*{backend}"):
        integer_forward(backend)


@pytest.mark.parametrize(("backend", "package"), [("openvino", "openvino"), ("onnx", "onnxruntime")])
@pytest.mark.parametrize("exporter", ["onnx", "onnxscript"])
def test_a_missing_exporter_names_the_extra(
    integer_forward: Callable[..., Forward],
    integer_inputs: Callable[..., Inputs],
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    package: str,
    exporter: str,
) -> None:
    pytest.importorskip(package)
    forward = integer_forward(backend)
    monkeypatch.setitem(sys.modules, exporter, None)
    with pytest.raises(InputError, match=rf"not installed: pip install 'segbatch\[{backend}\]'"):
        forward.classes(*integer_inputs())


@pytest.mark.parametrize("backend", sorted(set(BACKENDS) - {"openvino", "onnx", "tensorrt"}))
def test_int8_is_not_for_every_backend(
    integer_forward: Callable[..., Forward], integer_inputs: Callable[..., Inputs], backend: str
) -> None:
    with pytest.raises(InputError, match=f"int8 is for the backends openvino and onnx, not for {backend}"):
        integer_forward(backend, "int8").classes(*integer_inputs())


def test_compile_without_a_compiler(
    integer_forward: Callable[..., Forward], integer_inputs: Callable[..., Inputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match=r"needs the C\+\+ compiler no-such-compiler: install it, or .* eager"):
        integer_forward("compile").classes(*integer_inputs())


def test_functions_are_not_kept_for_ever(
    integer_forward: Callable[..., Forward], integer_inputs: Callable[..., Inputs]
) -> None:
    """Of other backends each holds a network of its own, and scenes may have windows of many shapes."""
    forward = integer_forward("eager")
    for side in range(8, 48, 2):
        forward.classes(*integer_inputs(1, side, 16))
    assert len(forward._functions) == 8
