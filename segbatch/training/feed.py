"""The stream of training batches: tiles read and augmented in threads while the model computes."""

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
import torch

from segbatch.classes import LabelMap
from segbatch.training.augmentation import Augmentation, color, geometry, source_side
from segbatch.training.survey import TrainingScene
from segbatch.training.tiles import TilePlace, TileReader, TileSampler

_AHEAD = 4
"""Batches that may wait to be used: bounds the memory of the feed."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Tiles of a training step.

    Args:
        values: (batch, bands, side, side) as stored.
        valid: (batch, 1, side, side) bool, True = a real pixel.
        label: (batch, side, side) int64 class ids.
        gamma: (batch, bands, 1, 1) float32 exponent, see `Color`.
        gain: (batch, bands, 1, 1) float32 factor of the normalised pixels.
        offset: (batch, bands, 1, 1) float32 added to them.
        noise: (batch,) standard deviation of the noise in those of the bands.
        numbers: Of the tiles.
        places: Where they were cut.
        waited: Seconds that the step waited for the batch.
    """

    values: torch.Tensor
    valid: torch.Tensor
    label: torch.Tensor
    gamma: torch.Tensor
    gain: torch.Tensor
    offset: torch.Tensor
    noise: tuple[float, ...]
    numbers: tuple[int, ...]
    places: tuple[TilePlace, ...]
    waited: float = 0.0

    def __len__(self) -> int:
        return len(self.numbers)


def load_batch(
    reader: TileReader, sampler: TileSampler, numbers: Sequence[int], side: int, augmentation: Augmentation
) -> Batch:
    """Read and augment the tiles with these numbers.

    Args:
        reader: Of the scenes.
        sampler: Says where tiles are.
        numbers: Of the tiles.
        side: Of a tile in pixels.
        augmentation: How tiles are changed.
    """
    tiles, colors, places = [], [], []
    for number in numbers:
        rng = sampler.rng(number)
        place = sampler.place(number, source_side(side, augmentation, rng), rng)
        tile = geometry(reader.read(place), side, augmentation, rng)
        tiles.append(tile)
        colors.append(color(tile.values.shape[0], augmentation, rng))
        places.append(place)
    values, valid, label = (torch.from_numpy(np.stack(arrays)) for arrays in zip(*tiles, strict=True))
    *changes, noise = zip(*colors, strict=True)
    gamma, gain, offset = (torch.from_numpy(np.stack(change))[:, :, None, None] for change in changes)
    return Batch(
        values,
        valid.unsqueeze(1),
        label.long(),
        gamma,
        gain,
        offset,
        noise=noise,
        numbers=tuple(numbers),
        places=tuple(places),
    )


def stream(
    scenes: Sequence[TrainingScene],
    label_map: LabelMap,
    sampler: TileSampler,
    *,
    batches: Sequence[Sequence[int]],
    side: int,
    augmentation: Augmentation,
    threads: int = 1,
) -> Iterator[Batch]:
    """Yield a batch for each list of tile numbers, read ahead in threads.

    Beside a CPU that computes one thread suffices: GDAL keeps decoded blocks (a twentieth of the machine's memory),
    so after the first round a tile costs a copy.
    """
    own = threading.local()
    # PyTorch's threads of a reader beside those of the model would be more than there are cores: OpenMP then lets
    # its threads sleep at each of a step's hundreds of meeting points.
    with ExitStack() as readers, ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:

        def load(numbers: Sequence[int]) -> Batch:
            if not hasattr(own, "reader"):
                own.reader = readers.enter_context(TileReader(scenes, label_map))
            return load_batch(own.reader, sampler, numbers, side, augmentation)

        waiting: deque[Future[Batch]] = deque()
        todo = iter(batches)

        def submit() -> None:
            numbers = next(todo, None)
            if numbers is not None:
                waiting.append(pool.submit(load, numbers))

        for _ in range(_AHEAD + threads - 1):
            submit()
        try:
            while waiting:
                started = time.perf_counter()
                batch = waiting.popleft().result()
                waited = time.perf_counter() - started
                submit()
                yield replace(batch, waited=waited)
        finally:
            for future in waiting:
                future.cancel()
