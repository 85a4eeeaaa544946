"""What is worth trying on a machine, by what is installed there."""

import importlib.util
import subprocess
import sys

import pytest

import segbatch.models.backends.available as module
from segbatch.models.backends.available import available

EAGER, COMPILE = ("eager", "float32"), ("compile", "float32")
OPENVINO, ONNX = ("openvino", "float32"), ("onnx", "float32")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A CPU without bf16, with a compiler and all packages."""
    monkeypatch.setattr(module, "has_bf16", lambda device: False)
    monkeypatch.setattr(module, "has_compiler", lambda device: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    return monkeypatch


def test_what_needs_least_comes_first(machine: pytest.MonkeyPatch) -> None:
    assert available("cpu") == (EAGER, COMPILE, OPENVINO, ONNX)


def test_bf16_where_there_is_hardware_for_it(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(module, "has_bf16", lambda device: True)
    found = available("cpu")
    assert set(found) - {EAGER, COMPILE, OPENVINO, ONNX} == {
        ("eager", "bf16"),
        ("compile", "bf16"),
        ("openvino", "bf16"),
    }


def test_a_gpu_has_pytorch_alone(machine: pytest.MonkeyPatch) -> None:
    assert available("cuda") == (EAGER, COMPILE)


def test_no_compiler(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(module, "has_compiler", lambda device: False)
    assert available("cpu") == (EAGER, OPENVINO, ONNX)


@pytest.mark.parametrize(
    ("package", "left"),
    [
        ("openvino", (EAGER, COMPILE, ONNX)),
        ("onnxruntime", (EAGER, COMPILE, OPENVINO)),
        ("onnxscript", (EAGER, COMPILE)),
    ],
)
def test_packages_that_are_missing(
    machine: pytest.MonkeyPatch, package: str, left: tuple[tuple[str, str], ...]
) -> None:
    machine.setattr(importlib.util, "find_spec", lambda name: None if name == package else object())
    assert available("cpu") == left


def test_looking_imports_nothing() -> None:
    code = (
        "import sys; from segbatch.models.backends.available import available; available('cpu');"
        "print({'openvino', 'onnx', 'onnxruntime', 'onnxscript', 'torch._inductor'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
