"""What is special about OpenVINO: it is refused where it would not do what was asked, and it does not call home."""

import multiprocessing
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from segbatch.errors import InputError
from segbatch.models.backends.forward import Forward, UnsupportedError
from segbatch.models.backends.mapper import Mapper

pytest.importorskip("openvino")
pytest.importorskip("onnxscript")

import segbatch.models.backends.openvino as backend

Inputs = tuple[torch.Tensor, torch.Tensor]


def test_it_reports_to_nobody(
    integer_forward: Callable[..., Forward],
    integer_inputs: Callable[..., Inputs],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    tried: list[Any] = []

    def refuse(*args: Any, **named: Any) -> Any:
        tried.append(args)
        raise OSError("refused")

    telemetry = pytest.importorskip("openvino_telemetry")
    monkeypatch.setattr(telemetry.Telemetry, "init", refuse)
    monkeypatch.setattr(telemetry.Telemetry, "send_event", refuse)
    monkeypatch.setattr(multiprocessing.Process, "start", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    integer_forward("openvino").classes(*integer_inputs())
    assert not tried
    assert capfd.readouterr() == ("", "")


INTERRUPTED = """
import signal
import torch
from segbatch.models.backends.mapper import Mapper
from segbatch.models.backends.openvino import build

mapper = Mapper(torch.nn.Conv2d(1, 2, 1), (0.0,), (1.0,)).eval()
windows = [torch.zeros(1, 1, 16, side) for side in (16, 32)]
functions = [build(mapper, pixels, pixels == 0, "float32", None) for pixels in windows]
while functions:
    del functions[0]
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_process_that_has_dropped_networks_survives_signals() -> None:
    found = subprocess.run([sys.executable, "-X", "faulthandler", "-c", INTERRUPTED], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "interrupted\n"), found.stderr


def test_other_devices_are_refused(integer_inputs: Callable[..., Inputs]) -> None:
    pixels, valid = (tensor.to("meta") for tensor in integer_inputs())
    mapper = Mapper(torch.nn.Identity(), (0.0, 0.0), (1.0, 1.0))
    with pytest.raises(InputError, match="openvino runs on the CPU, not on meta"):
        backend.build(mapper, pixels, valid, "float32", None)


def test_bf16_is_refused_where_it_would_be_float32(
    integer_forward: Callable[..., Forward], integer_inputs: Callable[..., Inputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "has_bf16", lambda device: False)
    with pytest.raises(InputError, match="no bf16 arithmetic .*Choose precision float32"):
        integer_forward("openvino", "bf16").classes(*integer_inputs())


def test_as_many_threads_as_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """An actor's share of the machine is set through torch."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert backend._settings("float32")["INFERENCE_NUM_THREADS"] == 3


class Unknown(torch.nn.Module):
    """Asks for a value in the middle of the graph."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image if image.sum() > 0 else -image


def test_a_model_that_cannot_be_exported_is_refused(
    integer_inputs: Callable[..., Inputs], capfd: pytest.CaptureFixture[str]
) -> None:
    forward = Forward(Unknown(), (0.0, 0.0), (1.0, 1.0), backend="openvino")
    with pytest.raises(UnsupportedError, match="openvino does not take the model .*Choose backend eager") as caught:
        forward.classes(*integer_inputs())
    assert "\n" not in str(caught.value)
    assert "GraphModule" not in "".join(capfd.readouterr())
