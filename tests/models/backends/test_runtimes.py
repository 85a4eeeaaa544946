"""Every backend against eager PyTorch: bit for bit where arithmetic is exact, closely where it rounds."""

from collections.abc import Callable

import pytest
import torch

from segbatch.models.backends.agreement import agreement
from segbatch.models.backends.forward import Forward
from segbatch.models.backends.hardware import has_bf16, has_compiler

Inputs = tuple[torch.Tensor, torch.Tensor]

CPU = torch.device("cpu")
PACKAGES = {"openvino": "openvino", "onnx": "onnxruntime"}
DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]

needs_bf16 = pytest.mark.skipif(not has_bf16(CPU), reason="this CPU has no bf16 arithmetic")
needs_compiler = pytest.mark.skipif(not has_compiler(CPU), reason="there is no C++ compiler")


@pytest.fixture(params=PACKAGES)
def runtime(request: pytest.FixtureRequest) -> str:
    """A backend that is not PyTorch."""
    for package in (PACKAGES[request.param], "onnx", "onnxscript"):
        pytest.importorskip(package)
    return request.param


@pytest.mark.parametrize("dtype", DTYPES)
def test_pixels_of_every_type(
    runtime: str, integer_forward: Callable[..., Forward], integer_inputs: Callable[..., Inputs], dtype: str
) -> None:
    inputs = integer_inputs(dtype=dtype)
    expected = integer_forward("eager").classes(*inputs)
    assert len(expected.unique()) > 2
    found = integer_forward(runtime).classes(*inputs)
    assert found.dtype == torch.uint8
    assert torch.equal(found, expected)


def test_shapes_and_outputs(
    runtime: str, integer_forward: Callable[..., Forward], integer_inputs: Callable[..., Inputs]
) -> None:
    forward, eager = integer_forward(runtime), integer_forward("eager")
    for inputs in (integer_inputs(1, 64, 32), integer_inputs(3, 32, 32), integer_inputs()):
        for found, expected in (
            (forward.logits(*inputs), eager.logits(*inputs)),
            (forward.classes(*inputs), eager.classes(*inputs)),
        ):
            assert found.dtype == expected.dtype
            assert torch.equal(found, expected)


def test_a_later_call_leaves_the_results_of_earlier_ones(
    runtime: str, integer_forward: Callable[..., Forward], integer_inputs: Callable[..., Inputs]
) -> None:
    forward, (pixels, valid) = integer_forward(runtime), integer_inputs()
    found = forward.classes(pixels, valid), forward.logits(pixels, valid)
    kept = [tensor.clone() for tensor in found]
    forward.classes(15 - pixels, valid)
    forward.logits(15 - pixels, valid)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(found, kept, strict=True))


def test_inputs_are_left_alone_and_may_lie_anyhow_in_memory(
    runtime: str, integer_forward: Callable[..., Forward], integer_inputs: Callable[..., Inputs]
) -> None:
    pixels, valid = integer_inputs()
    before = pixels.clone(), valid.clone()
    expected = integer_forward("eager").classes(pixels, valid)
    forward = integer_forward(runtime)
    turned = pixels.contiguous(memory_format=torch.channels_last), valid.transpose(2, 3).contiguous().transpose(2, 3)
    assert torch.equal(forward.classes(pixels, valid), expected)
    assert torch.equal(forward.classes(*turned), expected)
    assert torch.equal(pixels, before[0])
    assert torch.equal(valid, before[1])


def test_windows_without_a_valid_pixel(
    runtime: str, integer_forward: Callable[..., Forward], integer_inputs: Callable[..., Inputs]
) -> None:
    pixels, valid = integer_inputs(dtype="float32")
    nowhere = torch.zeros_like(valid)
    expected = integer_forward("eager").classes(torch.zeros_like(pixels), nowhere)
    assert torch.equal(integer_forward(runtime).classes(torch.full_like(pixels, torch.nan), nowhere), expected)


def test_a_network_of_real_layers(
    runtime: str, unet_forward: Callable[..., Forward], unet_inputs: Callable[..., Inputs]
) -> None:
    inputs = unet_inputs()
    expected = unet_forward("eager").classes(*inputs)
    assert len(expected.unique()) > 1
    found = unet_forward(runtime).classes(*inputs)
    assert agreement(expected, found, torch.ones_like(found, dtype=torch.bool)) > 0.999


@needs_bf16
@pytest.mark.parametrize("backend", ["eager", "openvino"])
def test_bf16_is_close(backend: str, unet_forward: Callable[..., Forward], unet_inputs: Callable[..., Inputs]) -> None:
    """An untrained network is unsure everywhere: of a trained one less than a tenth of this differs."""
    if backend == "openvino":
        pytest.importorskip("openvino")
    inputs = unet_inputs()
    expected = unet_forward("eager").logits(*inputs)
    found = unet_forward(backend, "bf16").logits(*inputs)
    assert found.dtype == torch.float32
    assert not torch.equal(found, expected), "it ran in float32"
    assert agreement(expected.argmax(1), found.argmax(1), inputs[1][:, 0]) > 0.97


@needs_compiler
def test_compiled(integer_forward: Callable[..., Forward], integer_inputs: Callable[..., Inputs]) -> None:
    inputs = integer_inputs()
    expected = integer_forward("eager").classes(*inputs)
    forward = integer_forward("compile")
    for _ in range(2):
        assert torch.equal(forward.classes(*inputs), expected)
