"""The halo curve against what is known of a network, and against windows run one by one."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from segbatch.geometry import Tiling, Window
from segbatch.inference.calibration import calibrate_halo, least_side, measure_halo
from segbatch.inference.predictor import Predictor
from segbatch.inference.samples import Source
from segbatch.models.backends.forward import Forward
from segbatch.models.bundle import load_bundle
from segbatch.models.halo import HaloCurve
from segbatch.scenes.scene import Pixels, open_scene

REACH = 8
Paint = Callable[..., NDArray[np.uint8]]


def exact_model(reach: int = REACH) -> torch.nn.Module:
    """A class depends on ``reach`` pixels on each side; weights are whole, so float32 holds all sums exactly."""
    conv = torch.nn.Conv2d(2, 4, 2 * reach + 1, padding=reach)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        conv.weight.copy_(torch.randint(-2, 3, conv.weight.shape, generator=generator))
        assert conv.bias is not None
        conv.bias.zero_()
    return conv


def forward_of(model: torch.nn.Module) -> Forward:
    return Forward(model, (0.0, 0.0), (1.0, 1.0))


def sample(height: int, width: int | None = None, seed: int = 0) -> Pixels:
    width = width or height
    values = np.random.default_rng(seed).integers(0, 16, (2, height, width), dtype=np.uint8)
    return Pixels(values, np.ones((height, width), bool))


def exact_curve(samples: Sequence[Pixels], stride: int = 4) -> HaloCurve | None:
    return measure_halo(forward_of(exact_model()), samples, stride=stride)


def test_nothing_differs_from_the_networks_reach_on_and_something_before() -> None:
    curve = exact_curve([sample(256), sample(256, seed=1)])
    assert curve is not None
    shares = dict(curve.points)
    assert shares[0] > shares[4] > 0
    assert shares[8] == shares[12] == 0
    # Two halos without a difference in a row say that larger ones need not be looked at.
    assert list(shares) == [0, 4, 8, 12]
    assert curve.pixels == 2 * 192**2
    assert curve.smallest(1e-4, lambda halo: 4 / 1024) == 8


@pytest.mark.parametrize(("stride", "step"), [(1, 4), (2, 4), (3, 6), (8, 8), (32, 32)])
def test_halos_are_multiples_of_the_stride(stride: int, step: int) -> None:
    curve = exact_curve([sample(384)], stride)
    assert curve is not None
    assert [halo for halo, _ in curve.points][:2] == [0, step]


def test_halos_end_where_the_samples_are_too_small_for_larger_ones() -> None:
    model = forward_of(exact_model(40))
    curve = measure_halo(model, [sample(160)], stride=8)
    assert curve is not None
    assert [halo for halo, _ in curve.points] == [0, 8, 16, 24]  # a quarter of a window of 112 pixels
    assert all(share > 0 for _, share in curve.points)
    larger = measure_halo(model, [sample(160), sample(192, 256)], stride=8)
    assert larger is not None
    assert larger.points[-1][0] == 32  # margins of 24 pixels leave 144


def test_samples_that_are_too_small_say_nothing() -> None:
    assert least_side(32) == 192
    assert exact_curve([], 32) is None
    assert exact_curve([sample(160), sample(160, 640)], 32) is None
    assert exact_curve([sample(192)], 32) is not None
    # Too few pixels of borders to tell shares below any tolerance.
    assert exact_curve([sample(24)], 4) is None


def test_what_is_not_valid_is_not_compared() -> None:
    whole = sample(256)
    valid = whole.valid.copy()
    valid[:100] = False
    valid[np.random.default_rng(1).random(valid.shape) < 0.05] = False
    garbage = whole.values.copy()
    garbage[:, ~valid] = 255
    first, second = (exact_curve([Pixels(values, valid)]) for values in (whole.values, garbage))
    assert first is not None
    assert first == second
    assert first.pixels == valid[32:-32, 32:-32].sum()
    assert dict(first.points)[8] == 0 < dict(first.points)[4]
    assert exact_curve([Pixels(garbage, np.zeros_like(valid))]) is None


def test_borders_in_the_nodata_are_not_counted_as_compared() -> None:
    """A border without valid pixels cannot show a difference: that must not look like agreement."""
    full = exact_curve([sample(256)])
    half = sample(256)
    half.valid[:, 128:] = False
    assert full is not None
    found = exact_curve([half])
    assert found is not None
    assert dict(found.points)[0] == pytest.approx(dict(full.points)[0], rel=0.25)


def test_the_curve_holds_for_nine_places_in_ten() -> None:
    """Of which an average would say nothing: one place in ten may be far worse."""
    plain, busy = [sample(128, seed=seed) for seed in range(19)], sample(128, seed=99)
    for flat in plain:
        flat.values[:] = 1
    worse = exact_curve([busy])
    assert worse is not None
    assert dict(worse.points)[4] > 0
    assert exact_curve(plain) == exact_curve([*plain, busy][1:])
    among_few = exact_curve([*plain[:8], busy])
    assert among_few is not None
    assert among_few.points == worse.points


def test_a_model_that_sees_one_class_everywhere_gets_the_smallest_halo() -> None:
    class Constant(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.stack([image[:, 0] * 0 + 1, image[:, 0] * 0], 1)

    curve = measure_halo(forward_of(Constant()), [sample(256)], stride=16)
    assert curve is not None
    assert curve.points == ((0, 0.0), (16, 0.0))
    assert curve.smallest(1e-4, lambda halo: 4 / 1024) == 16


def test_a_sample_that_memory_does_not_hold_is_left_out() -> None:
    class Small(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = exact_model()

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            if image.shape[2] > 256:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return self.inner(image)

    model = forward_of(Small())
    assert measure_halo(model, [sample(320)], stride=4) is None
    assert measure_halo(model, [sample(320), sample(256)], stride=4) == exact_curve([sample(256)])


def tiling(shape: tuple[int, ...], core: tuple[int, ...], halo: int) -> Tiling:
    """A block inside a scene: a halo on all sides."""
    height, width = shape
    inner = Window(halo, halo, width - 2 * halo, height - 2 * halo)
    return Tiling(height, width, inner, (core[0], core[1]), (core[0] + 2 * halo, core[1] + 2 * halo), halo)


def directly(predictor: Predictor, image: NDArray[np.uint8], core: tuple[int, int], halo: int, inside: int) -> float:
    """Share of pixels that differ from the whole image's prediction, ``inside`` pixels from its border, run for run."""
    valid = np.ones(image.shape[1:], bool)
    whole = predictor.predict(image, valid, tiling(valid.shape, valid.shape, 0)).mask
    part = slice(inside - halo, image.shape[1] - inside + halo)
    cut = valid[part, part]
    mask = predictor.predict(image[:, part, part], cut, tiling(cut.shape, core, halo)).mask
    return float((mask != whole[inside:-inside, inside:-inside]).mean())


def test_the_curve_holds_for_windows_of_other_cores(tiny_bundle: Path, paint: Paint) -> None:
    """A U-Net whose features reach far: real shares at cores from 128 to 256 pixels, within a factor of two."""
    bundle = load_bundle(tiny_bundle)
    forward = Forward(bundle.model, bundle.card.mean, bundle.card.std)
    images = [paint(640, 640, seed) for seed in range(2)]
    samples = [Pixels(image, np.ones(image.shape[1:], bool)) for image in images]
    curve = measure_halo(forward, samples, stride=8)
    assert curve is not None
    checked = 0
    for core in ((128, 128), (256, 256), (64, 256)):
        for halo in (8, 16):
            found = np.mean([directly(Predictor(forward), image, core, halo, 64) for image in images])
            if found * 2 * 512**2 > 100:  # differing pixels
                checked += 1
                assert 0.5 < curve.expected(halo, 2 / core[0] + 2 / core[1]) / found < 2, (core, halo)
    assert checked >= 4


def test_scenes_are_sampled(tmp_path: Path, make_raster: Callable[..., str]) -> None:
    values = np.random.default_rng(0).integers(1, 16, (3, 300, 270)).astype(np.uint8)
    values[:, :50] = 0
    path = make_raster(tmp_path / "scene.tif", values)
    with open_scene(path) as reader:
        window = reader.info.window
    source = Source(path, 0.0, (3, 1), window)
    curve = calibrate_halo(forward_of(exact_model()), [source], stride=4, pixels=10**6)
    expected = exact_curve([Pixels(values[[2, 0], :, :268], (values[[2, 0], :, :268] != 0).any(axis=0))])
    assert curve == expected
    assert curve is not None
    assert dict(curve.points)[8] == 0
