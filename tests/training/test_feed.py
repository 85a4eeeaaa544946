"""The stream of batches: in order, bounded, and loud when a scene is damaged."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from segbatch.classes import LabelMap
from segbatch.errors import SceneReadError
from segbatch.training import feed
from segbatch.training.augmentation import Augmentation
from segbatch.training.feed import Batch, load_batch, stream
from segbatch.training.survey import Survey, TrainingScene
from segbatch.training.tiles import TileReader, TileSampler

MakeScene = Callable[..., TrainingScene]
TakeSurvey = Callable[..., Survey]
LABELS = LabelMap(2)
FULL = Augmentation("full", scale=1.33, noise=0.1, cutout=0.5)
TENSORS = ("values", "valid", "label", "gamma", "gain", "offset")


@pytest.fixture
def sampler(scene: TrainingScene, take_survey: TakeSurvey) -> TileSampler:
    return TileSampler([scene], take_survey((scene,), 16, LABELS), 0.5, 0)


def feeding(scene: TrainingScene, sampler: TileSampler, batches: list[range], threads: int = 1) -> Iterator[Batch]:
    return stream([scene], LABELS, sampler, batches=batches, side=32, augmentation=FULL, threads=threads)


def equal(one: Batch, other: Batch) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in TENSORS) and (
        (one.noise, one.numbers, one.places) == (other.noise, other.numbers, other.places)
    )


def test_a_batch_has_the_shapes_and_types_that_it_says(scene: TrainingScene, sampler: TileSampler) -> None:
    with TileReader([scene], LABELS) as reader:
        batch = load_batch(reader, sampler, range(3), 32, FULL)
    assert (batch.values.shape, batch.values.dtype) == ((3, 3, 32, 32), torch.uint8)
    assert (batch.valid.shape, batch.valid.dtype) == ((3, 1, 32, 32), torch.bool)
    assert (batch.label.shape, batch.label.dtype) == ((3, 32, 32), torch.int64)
    assert (batch.gamma.shape, batch.gamma.dtype) == ((3, 3, 1, 1), torch.float32)
    assert (batch.gain.shape, batch.gain.dtype) == ((3, 3, 1, 1), torch.float32)
    assert (batch.offset.shape, batch.offset.dtype) == ((3, 3, 1, 1), torch.float32)
    assert len(batch) == len(batch.noise) == len(batch.places) == 3
    assert batch.numbers == (0, 1, 2)


@pytest.mark.parametrize("threads", [1, 3])
def test_batches_come_in_order_and_are_what_they_are_alone(
    scene: TrainingScene, sampler: TileSampler, threads: int
) -> None:
    numbers = [range(first, first + 2) for first in range(0, 24, 2)]
    fed = list(feeding(scene, sampler, numbers, threads))
    assert len(fed) == 12
    with TileReader([scene], LABELS) as reader:
        for batch, wanted in zip(fed, numbers, strict=True):
            assert equal(batch, load_batch(reader, sampler, wanted, 32, FULL))
            assert batch.waited >= 0
    assert not equal(fed[0], fed[1])


def test_workers_shares_put_together_are_the_whole_batch(scene: TrainingScene, sampler: TileSampler) -> None:
    (whole,) = feeding(scene, sampler, [range(8, 12)])
    (first,) = feeding(scene, sampler, [range(8, 10)])
    (second,) = feeding(scene, sampler, [range(10, 12)])
    assert first.numbers + second.numbers == whole.numbers
    for name in TENSORS:
        assert torch.equal(torch.cat([getattr(first, name), getattr(second, name)]), getattr(whole, name))


def test_no_batches_is_an_empty_stream(scene: TrainingScene, sampler: TileSampler) -> None:
    assert list(feeding(scene, sampler, [])) == []


def test_reading_ahead_is_bounded(scene: TrainingScene, sampler: TileSampler, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    real = feed.load_batch

    def noting(reader: TileReader, drawn: TileSampler, numbers: range, *rest: Any) -> Batch:
        started.append(numbers[0])
        return real(reader, drawn, numbers, *rest)

    monkeypatch.setattr(feed, "load_batch", noting)
    batches = feeding(scene, sampler, [range(number, number + 1) for number in range(20)])
    for taken in range(1, 21):
        next(batches)
        # The queue is in the hands of a thread, but there never is more in it than this.
        assert len(started) <= taken + feed._AHEAD
    assert started == list(range(20))


def threads() -> set[threading.Thread]:
    return set(threading.enumerate())


def test_the_thread_ends_with_the_stream(scene: TrainingScene, sampler: TileSampler) -> None:
    before = threads()
    batches = feeding(scene, sampler, [range(1)] * 6)
    next(batches)
    assert len(threads() - before) == 1
    list(batches)
    assert threads() == before


def test_the_thread_ends_when_the_consumer_stops_early(scene: TrainingScene, sampler: TileSampler) -> None:
    before = threads()
    batches = feeding(scene, sampler, [range(8)] * 50)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert threads() == before


def test_a_damaged_scene_reaches_the_consumer_by_name(make_scene: MakeScene, take_survey: TakeSurvey) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (1, 256, 256)).astype(np.uint8)
    scene = make_scene("torn", noise, noise[0] % 2, tiled=True, blockxsize=64, blockysize=64)
    drawn = TileSampler([scene], take_survey((scene,), 64, LABELS), 0.5, 0)
    with open(scene.image, "r+b") as file:
        file.truncate(20_000)
    before = threads()
    with pytest.raises(SceneReadError, match=r"torn.tif is damaged"):
        list(feeding(scene, drawn, [range(number, number + 4) for number in range(10)]))
    assert threads() == before
