"""Measuring backends on real windows of a small model."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from segbatch.errors import InputError
from segbatch.inference.measure import measure
from segbatch.models.backends import eager, footprint, forward
from segbatch.models.backends.forward import UnsupportedError
from segbatch.models.bundle import Bundle, load_bundle
from segbatch.models.profile import FAILED, Profile, Speed
from segbatch.scenes.scene import Pixels

EAGER = [("eager", "float32"), ("eager", "bf16")]


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return load_bundle(tiny_bundle)


@pytest.fixture
def samples(paint: Callable[..., NDArray[np.uint8]]) -> list[Pixels]:
    found = [Pixels(paint(64, 96, seed), np.ones((64, 96), bool)) for seed in (1, 2)]
    found[0].valid[:, :40] = False
    return found


@pytest.fixture
def add_backend(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that puts another function in the place of a backend's ``build``."""

    def add(name: str, build: Any) -> None:
        monkeypatch.setitem(sys.modules, f"fake_{name}", SimpleNamespace(build=build))  # type: ignore[misc]
        monkeypatch.setitem(forward.MODULES, name, f"fake_{name}")

    return add


def run(bundle: Bundle, samples: list[Pixels], candidates: list[tuple[str, str]], **changes: Any) -> Profile:
    settings: dict[str, Any] = {"device": torch.device("cpu"), "name": "a processor", "pixels": 1e15}
    return measure(bundle, samples, candidates, **(settings | changes))


def test_two_backends(bundle: Bundle, samples: list[Pixels]) -> None:
    profile = run(bundle, samples, EAGER)
    assert profile.device == "a processor"
    assert profile.pixel_bytes == footprint.pixel_bytes(bundle.model, 3)
    assert list(profile.speeds) == ["eager/float32", "eager/bf16"]
    assert all(speed.mpx_per_second > 0 and speed.build_seconds >= 0 for speed in profile.speeds.values())
    assert profile.speeds["eager/float32"].agreement == 1.0
    assert 0.9 < profile.speeds["eager/bf16"].agreement <= 1.0


def test_what_does_not_take_the_model_has_failed(
    bundle: Bundle, samples: list[Pixels], add_backend: Callable[..., None]
) -> None:
    def build(*_: Any) -> None:
        raise UnsupportedError("this layer is not known")

    add_backend("onnx", build)
    profile = run(bundle, samples, [*EAGER, ("onnx", "float32")])
    assert profile.speeds["onnx/float32"] == FAILED
    assert not profile.speeds["eager/bf16"].failed


@pytest.mark.parametrize("error", [InputError, RuntimeError, OSError, torch.OutOfMemoryError, AttributeError])
def test_what_may_go_the_next_time_is_left_open(
    bundle: Bundle, samples: list[Pixels], add_backend: Callable[..., None], error: type[Exception]
) -> None:
    """A package may be installed, memory be free."""

    def build(*_: Any) -> None:
        raise error("not now")

    add_backend("onnx", build)
    assert set(run(bundle, samples, [("onnx", "float32")]).speeds) == {"eager/float32"}


def test_agreement_counts_valid_pixels(bundle: Bundle, samples: list[Pixels], add_backend: Callable[..., None]) -> None:
    """A backend that is wrong in the upper half of the windows, and in all that is not valid."""

    def build(*arguments: Any) -> Any:
        right = eager.build(*arguments)

        def wrong(pixels: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
            classes = right(pixels, valid)
            classes[:, :32] = 3 - classes[:, :32]
            return torch.where(valid[:, 0], classes, 200)

        return wrong

    add_backend("onnx", build)
    assert run(bundle, samples, [("onnx", "float32")]).speeds["onnx/float32"].agreement == 0.5


def test_what_is_known_stays_and_is_not_measured_again(
    bundle: Bundle, samples: list[Pixels], add_backend: Callable[..., None]
) -> None:
    def build(*_: Any) -> None:
        raise AssertionError("measured again")

    add_backend("onnx", build)
    add_backend("openvino", build)
    speeds = {"onnx/float32": Speed(5.0, 1.0, 0.99), "openvino/float32": FAILED}
    known = Profile("a processor", 0.0, speeds)
    profile = run(bundle, samples, [("onnx", "float32"), ("openvino", "float32")], known=known)
    assert {name: profile.speeds[name] for name in speeds} == speeds
    assert "eager/float32" in profile.speeds
    assert known.speeds == speeds


def test_what_could_not_pay_is_not_built(
    bundle: Bundle, samples: list[Pixels], add_backend: Callable[..., None]
) -> None:
    def build(*_: Any) -> None:
        raise AssertionError("built")

    add_backend("onnx", build)
    assert set(run(bundle, samples, [*EAGER, ("onnx", "float32")], pixels=1.0).speeds) == {
        "eager/float32", "eager/bf16",
    }  # fmt: skip
