"""Which samples of scenes are read."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import segbatch.inference.samples as samples_module
from segbatch.geometry import Window
from segbatch.inference.samples import Source, read_samples

WriteRaster = Callable[..., str]


@pytest.fixture
def source(tmp_path: Path, make_raster: WriteRaster) -> Callable[..., Source]:
    """A function (name, image of (1, height, width), window=None, nodata=0) that writes a scene."""

    def make(name: str, image: np.ndarray, window: Window | None = None, nodata: float | None = 0) -> Source:
        path = make_raster(tmp_path / f"{name}.tif", image)
        return Source(path, nodata, (1,), window or Window(0, 0, image.shape[2], image.shape[1]))

    return make


MakeSource = Callable[..., Source]


def noise(height: int, width: int, low: int = 1, high: int = 255) -> np.ndarray:
    return np.random.default_rng(0).integers(low, high, (1, height, width)).astype(np.uint8)


def test_sides_are_multiples_of_the_stride_and_no_longer_than_asked(source: MakeSource) -> None:
    (first,) = read_samples([source("a", noise(75, 130))], stride=8, side=512, pixels=10**6)
    assert first.values.shape == (1, 72, 128)
    assert first.valid.shape == (72, 128)
    found = list(read_samples([source("b", noise(75, 130))], stride=8, side=37, pixels=10**6))
    assert {sample.valid.shape for sample in found} == {(32, 32)}
    assert len(found) == 8


def test_a_scene_smaller_than_the_stride_has_none(source: MakeSource) -> None:
    assert list(read_samples([source("a", noise(7, 100))], stride=8, side=64, pixels=10**6)) == []


def test_only_the_part_of_a_scene_that_may_be_used_is(source: MakeSource) -> None:
    image = noise(96, 96)
    image[:, :40] = image[:, :, :40] = 0
    found = list(read_samples([source("a", image, Window(40, 40, 56, 56))], stride=8, side=32, pixels=10**6))
    assert len(found) == 1
    assert found[0].valid.all()


def test_different_scenes_come_first_and_each_gives_its_best(source: MakeSource) -> None:
    """Of a scene's four quarters one is nodata, one a plain surface, one is busy, and one less so."""
    scenes = []
    for index in range(2):
        image = np.full((1, 128, 128), 100, np.uint8)
        image[:, :64, :64] = 0
        image[:, 64:, :64] = noise(64, 64, 100, 110)
        image[:, 64:, 64:] = noise(64, 64, 1, 200)
        image[:, -1, -1] = 200 + index
        scenes.append(source(str(index), image))
    found = list(read_samples(scenes, stride=32, side=64, pixels=4 * 64**2))
    assert [int(sample.values[0, -1, -1]) for sample in found[:2]] == [200, 201]
    assert len(found) == 4
    assert all(sample.values.min() >= 100 and sample.values.max() < 110 for sample in found[2:])
    everything = list(read_samples(scenes, stride=32, side=64, pixels=10**9))
    assert len(everything) == 6  # the empty quarters are left out


def test_reading_stops_when_there_is_enough(source: MakeSource) -> None:
    scene = source("a", noise(256, 256))
    assert len(list(read_samples([scene], stride=8, side=64, pixels=3 * 64**2))) == 3
    assert len(list(read_samples([scene], stride=8, side=64, pixels=1))) == 1


def test_of_many_scenes_some_are_looked_at(source: MakeSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples_module, "_MOST_SOURCES", 3)
    scenes = [source(str(index), np.full((1, 16, 16), index + 1, np.uint8)) for index in range(7)]
    found = list(read_samples(scenes, stride=8, side=16, pixels=10**6))
    assert [int(sample.values[0, 0, 0]) for sample in found] == [1, 4, 7]


def test_of_many_places_some_are_looked_at_and_always_the_same(
    source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples_module, "_MOST_PLACES", 5)
    scene = source("a", noise(160, 160))
    first, second = (list(read_samples([scene], stride=8, side=16, pixels=10**6)) for _ in range(2))
    assert len(first) == 5
    assert all(np.array_equal(a.values, b.values) for a, b in zip(first, second, strict=True))
