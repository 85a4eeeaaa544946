"""Which backend is taken, and which are measured at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbatch.inference.tuning import fastest, seconds_for, worth_trying
from segbatch.models.profile import FAILED, Speed

speeds = st.dictionaries(
    st.sampled_from(["eager/float32", "eager/bf16", "compile/float32", "openvino/float32", "onnx/float32"]),
    st.builds(Speed, st.floats(0.01, 100), st.floats(0, 300), st.floats(0.9, 1)) | st.just(FAILED),
)


@given(speeds, st.floats(1e3, 1e13), st.floats(0.9, 1))
def test_the_fastest_takes_least_time_of_those_that_agree(
    known: dict[str, Speed], pixels: float, min_agreement: float
) -> None:
    name = fastest(known, pixels, min_agreement)
    good = [other for other, speed in known.items() if speed is not FAILED and speed.agreement >= min_agreement]
    assert (name is None) == (not good)
    if name is not None:
        assert name in good
        took = known[name].build_seconds + pixels / 1e6 / known[name].mpx_per_second
        assert took == pytest.approx(seconds_for(known[name], pixels))
        assert all(seconds_for(known[other], pixels) >= took * (1 - 1e-9) for other in good)


def test_a_long_build_pays_only_in_a_long_run() -> None:
    known = {"eager/float32": Speed(1.0, 0.0, 1.0), "compile/float32": Speed(2.0, 50.0, 1.0)}
    assert fastest(known, 99e6, 0.999) == "eager/float32"  # 99 s against 99.5
    assert fastest(known, 101e6, 0.999) == "compile/float32"  # 101 s against 100.5


def test_agreement_and_failure_are_minded() -> None:
    known = {"eager/float32": Speed(1.0, 0.0, 1.0), "eager/bf16": Speed(9.0, 0.0, 0.99), "onnx/float32": FAILED}
    assert fastest(known, 1e9, 0.999) == "eager/float32"
    assert fastest(known, 1e9, 0.99) == "eager/bf16"
    assert fastest({"onnx/float32": FAILED}, 1e9, 0.5) is None
    assert fastest({}, 1e9, 0.5) is None


def test_equals_are_taken_in_the_same_order_always() -> None:
    known = {name: Speed(1.0, 0.0, 1.0) for name in ("onnx/float32", "eager/float32", "openvino/float32")}
    assert fastest(known, 1e9, 0.5) == fastest(dict(reversed(known.items())), 1e9, 0.5) == "eager/float32"


CANDIDATES = [
    ("tensorrt", "float32"), ("compile", "float32"), ("onnx", "float32"), ("openvino", "float32"), ("eager", "bf16"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (1, ["eager/bf16"]),
        (10, ["eager/bf16", "openvino/float32"]),
        (60, ["eager/bf16", "openvino/float32", "onnx/float32"]),
        (180, ["eager/bf16", "openvino/float32", "onnx/float32", "compile/float32"]),
        (300, ["eager/bf16", "openvino/float32", "onnx/float32", "compile/float32", "tensorrt/float32"]),
    ],
)
def test_what_takes_longer_to_build_than_it_could_save_is_not_tried(seconds: float, expected: list[str]) -> None:
    known = {"eager/float32": Speed(1.0, 0.0, 1.0)}
    assert ["/".join(how) for how in worth_trying(CANDIDATES, known, seconds * 1e6)] == expected


def test_what_is_measured_on_the_way_counts() -> None:
    """After openvino has brought 180 s down to 30, compiling has nothing left to win."""
    known = {"eager/float32": Speed(1.0, 0.0, 1.0)}
    tried = []
    for how in worth_trying(CANDIDATES, known, 180e6):
        tried.append(how[0])
        known["/".join(how)] = Speed(6.0, 0.0, 1.0) if how[0] == "openvino" else FAILED
    assert tried == ["eager", "openvino", "onnx"]


def test_what_is_known_is_not_tried_again() -> None:
    """Nor is what failed."""
    known = {"eager/float32": Speed(1.0, 0.0, 1.0), "eager/bf16": FAILED, "onnx/float32": Speed(0.5, 9.0, 1.0)}
    assert list(worth_trying(CANDIDATES, known, 1e12)) == [
        ("openvino", "float32"), ("compile", "float32"), ("tensorrt", "float32"),
    ]  # fmt: skip


def test_where_nothing_is_known_all_is_tried() -> None:
    assert set(worth_trying(CANDIDATES, {}, 1.0)) == set(CANDIDATES)
