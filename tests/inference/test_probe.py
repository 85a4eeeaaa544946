"""What a worker measures with, and what it keeps."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segbatch.errors import InputError
from segbatch.geometry import Window
from segbatch.inference import probe as probing
from segbatch.inference.probe import Probe, find_samples, run_probe
from segbatch.inference.samples import Source
from segbatch.models.profile import FAILED, Profile, Speed, read_profile

MakeRaster = Callable[..., str]


@pytest.fixture(autouse=True)
def small_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "_SIDE", 64)


def make_source(make_raster: MakeRaster, path: Path, values: np.ndarray, **profile: Any) -> Source:
    window = Window(0, 0, values.shape[2], values.shape[1])
    return Source(make_raster(path, values, nodata=0, **profile), None, (3, 1), window)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(1, 255, (3, height, width), dtype=np.uint8)


def test_samples_are_windows_of_different_scenes(tmp_path: Path, make_raster: MakeRaster) -> None:
    scenes = [noise(200, 300), noise(150, 90), noise(300, 300)]
    sources = [make_source(make_raster, tmp_path / f"{index}.tif", values) for index, values in enumerate(scenes)]
    found = find_samples(sources, 8)
    assert len(found) == 2
    for sample, values in zip(found, scenes, strict=False):
        assert sample.valid.all()
        assert sample.values.shape == (2, 64, 64)
        views = np.lib.stride_tricks.sliding_window_view(values[2], (64, 64))
        assert (views[..., 0, :4] == sample.values[0, 0, :4]).all(axis=-1).any()


def test_nodata_is_passed_over(tmp_path: Path, make_raster: MakeRaster) -> None:
    empty, corner = np.zeros((3, 256, 256), np.uint8), np.zeros((3, 256, 256), np.uint8)
    corner[:, 160:, :96] = noise(96, 96)
    sources = [make_source(make_raster, tmp_path / f"{name}.tif", values) for name, values in
             (("empty", empty), ("corner", corner))]  # fmt: skip
    (sample,) = find_samples(sources, 8)
    assert sample.valid.mean() > 0.5
    assert (sample.values[:, sample.valid] > 0).all()


def test_scenes_smaller_than_the_windows_are_passed_over(tmp_path: Path, make_raster: MakeRaster) -> None:
    scenes = [noise(100, 100), noise(30, 40), noise(80, 80)]
    sources = [make_source(make_raster, tmp_path / f"{index}.tif", values) for index, values in enumerate(scenes)]
    found = find_samples(sources, 8)
    assert [sample.values.shape for sample in found] == [(2, 64, 64)] * 2
    assert all(sample.valid.all() for sample in found)


def test_windows_of_a_small_scene_are_whole_strides(tmp_path: Path, make_raster: MakeRaster) -> None:
    (sample,) = find_samples([make_source(make_raster, tmp_path / "a.tif", noise(45, 60))], 16)
    assert sample.values.shape == (2, 32, 48)


def test_damaged_scenes_are_passed_over(tmp_path: Path, make_raster: MakeRaster) -> None:
    """Mapping tells of them; measuring is not what they may stop."""
    tiles = {"tiled": True, "blockxsize": 32, "blockysize": 32}
    sources = [make_source(make_raster, tmp_path / f"{name}.tif", noise(128, 128), **tiles) for name in ("bad", "good")]
    file = Path(sources[0].image)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 5])
    (sample,) = find_samples(sources, 8)
    assert sample.valid.all()


def test_where_there_is_nothing_to_measure_with_it_is_said(tmp_path: Path, make_raster: MakeRaster) -> None:
    source = make_source(make_raster, tmp_path / "empty.tif", np.zeros((3, 90, 90), np.uint8))
    with pytest.raises(InputError, match=r"empty\.tif has no window .* --backend eager"):
        find_samples([source], 8)


def make_probe(bundle: Path | str, *sources: Source, **changes: Any) -> Probe:
    settings: dict[str, Any] = {
        "bundle": str(bundle),
        "device_name": "a processor",
        "use_gpu": False,
        "threads": None,
        "sources": sources,
        "pixels": 1e7,
    }
    return Probe(**(settings | changes))


def test_what_may_be_used() -> None:
    names = ["eager/float32", "eager/bf16", "onnx/float32", "onnx/int8"]

    def allowed(**changes: Any) -> list[str]:
        return [name for name in names if make_probe("", **changes).allows(name)]

    assert allowed() == ["eager/float32", "eager/bf16", "onnx/float32"]
    assert allowed(backend="onnx") == ["onnx/float32"]
    assert allowed(precision="float32") == ["eager/float32", "onnx/float32"]
    assert allowed(precision="int8") == ["onnx/int8"]
    assert allowed(backend="eager", precision="bf16") == ["eager/bf16"]


def test_candidates_are_what_is_there_and_may_be_used() -> None:
    assert ("eager", "float32") in make_probe("").candidates()
    assert all(backend == "eager" for backend, _ in make_probe("", backend="eager").candidates())
    assert make_probe("", backend="onnx", precision="int8").candidates() == [("onnx", "int8")]


def test_whether_measuring_could_tell_more() -> None:
    probe = make_probe("", backend="eager", precision="bf16")
    reference = {"eager/float32": Speed(1.0, 0.0, 1.0)}
    assert probe.would_learn(None)
    assert probe.would_learn(Profile("a processor", 0.0))
    assert probe.would_learn(Profile("a processor", 0.0, reference))
    assert not probe.would_learn(Profile("a processor", 0.0, reference | {"eager/bf16": FAILED}))
    assert not make_probe("", backend="eager", precision="float32").would_learn(Profile("", 0.0, reference))


def test_what_was_measured_is_kept_beside_the_bundle(
    tmp_path: Path, tiny_bundle: Path, make_raster: MakeRaster, paint: Callable[..., np.ndarray]
) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    source = Source(make_raster(tmp_path / "a.tif", paint(100, 120)), None, (1, 2, 3), Window(0, 0, 120, 100))
    probe = make_probe(bundle, source, backend="eager", precision="bf16")
    profile = run_probe(probe)
    assert set(profile.speeds) == {"eager/float32", "eager/bf16"}
    assert read_profile(bundle, "a processor") == profile
    assert not probe.would_learn(profile)
    # Another precision later adds to it.
    assert set(run_probe(make_probe(bundle, source, backend="eager", precision="float32")).speeds) == set(
        profile.speeds
    )
