"""A model in 8-bit integers: close to itself in float32, the same bytes every time, for one shape of windows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from segbatch.errors import InputError
from segbatch.models.backends.agreement import agreement
from segbatch.models.backends.forward import Forward, UnsupportedError
from segbatch.models.backends.quantize import quantize
from segbatch.models.bundle import load_bundle

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

Inputs = tuple[torch.Tensor, torch.Tensor]


@pytest.fixture(scope="module")
def write(tiny_bundle: Path) -> Callable[..., str]:
    """A function that quantizes the small U-Net."""

    def write(path: Path, windows: list[Inputs], **more: Any) -> str:
        bundle = load_bundle(tiny_bundle)
        quantize(bundle.model, bundle.card.mean, bundle.card.std, windows, path, **more)
        return str(path)

    return write


@pytest.fixture(params=["openvino", "onnx"])
def runtime(request: pytest.FixtureRequest) -> str:
    pytest.importorskip({"openvino": "openvino", "onnx": "onnxruntime"}[request.param])
    return request.param


def test_it_is_close_to_float32(
    runtime: str,
    write: Callable[..., str],
    unet_forward: Callable[..., Forward],
    unet_inputs: Callable[..., Inputs],
    tmp_path: Path,
) -> None:
    inputs = unet_inputs()
    path = write(tmp_path / "model.onnx", [unet_inputs(1, seed=5)], shape=(2, 128, 96))
    forward = unet_forward(runtime, "int8", quantized=path)
    expected = unet_forward("eager").logits(*inputs)
    logits = forward.logits(*inputs)
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, expected), "it ran in float32"
    # An untrained network is unsure everywhere: of a trained one a thousandth differs. By chance a third would agree.
    assert agreement(expected.argmax(1), logits.argmax(1), inputs[1][:, 0]) > 0.9
    assert torch.equal(forward.classes(*inputs).long(), logits.argmax(1))


def test_the_same_windows_give_the_same_bytes(
    write: Callable[..., str], unet_inputs: Callable[..., Inputs], tmp_path: Path
) -> None:
    for folder in "ab":
        write(tmp_path / folder / "model.onnx", [unet_inputs(1), unet_inputs(1, seed=1)])
    first, second = ((tmp_path / folder / "model.onnx").read_bytes() for folder in "ab")
    assert first == second
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["model.onnx"]
    write(tmp_path / "a" / "model.onnx", [unet_inputs(1, seed=2)])
    assert (tmp_path / "a" / "model.onnx").read_bytes() != second


def test_the_first_and_the_last_convolution_stay_float(
    write: Callable[..., str], unet_inputs: Callable[..., Inputs], tmp_path: Path
) -> None:
    network = onnx.load(write(tmp_path / "model.onnx", [unet_inputs(1)]))
    makers = {name: node.op_type for node in network.graph.node for name in node.output}
    weights = [makers.get(node.input[1]) for node in network.graph.node if node.op_type == "Conv"]
    assert weights[0] is weights[-1] is None
    assert set(weights[1:-1]) == {"DequantizeLinear"}


def test_windows_of_another_shape_are_refused(
    runtime: str,
    write: Callable[..., str],
    unet_forward: Callable[..., Forward],
    unet_inputs: Callable[..., Inputs],
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "model.onnx", [unet_inputs(1, 64, 64)])
    with pytest.raises(InputError, match=r"of \(1, 3, 64, 64\), not of \(2, 3, 64, 64\): quantize the model again"):
        unet_forward(runtime, "int8", quantized=path).classes(*unet_inputs(2, 64, 64))


def test_a_file_that_is_missing_or_damaged_is_bad_input(
    runtime: str, unet_forward: Callable[..., Forward], unet_inputs: Callable[..., Inputs], tmp_path: Path
) -> None:
    inputs = unet_inputs(1, 64, 64)
    with pytest.raises(InputError, match="int8 needs a model that was quantized"):
        unet_forward(runtime, "int8").classes(*inputs)
    with pytest.raises(InputError, match=r"quantized model .*gone\.onnx does not exist"):
        unet_forward(runtime, "int8", quantized=str(tmp_path / "gone.onnx")).classes(*inputs)
    (tmp_path / "broken.onnx").write_bytes(b"\x08\x07\x12")
    with pytest.raises(UnsupportedError, match="does not take the model") as caught:
        unet_forward(runtime, "int8", quantized=str(tmp_path / "broken.onnx")).classes(*inputs)
    assert "\n" not in str(caught.value)


def test_a_failure_leaves_what_was_there(
    write: Callable[..., str],
    unet_inputs: Callable[..., Inputs],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("older")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", lambda *args: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            write(path, [unet_inputs(1, 64, 64)])
    assert path.read_text() == "older"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]
    assert capfd.readouterr().err == ""
