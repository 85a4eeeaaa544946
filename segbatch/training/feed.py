"""The stream of training batches: tiles read and augmented in a thread while the model computes."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from segbatch.classes import LabelMap
from segbatch.training.augmentation import Augment, color, geometry, source_side
from segbatch.training.survey import TrainingScene
from segbatch.training.tiles import TileReader, TileSampler

_AHEAD = 4
"""Batches that may wait to be used: bounds the memory of the feed."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Tiles of a training step.

    Args:
        values: (batch, bands, side, side) as stored.
        valid: (batch, 1, side, side) bool, True = a real pixel.
        label: (batch, side, side) int64 class ids.
        gain: (batch, bands, 1, 1) float32 factor of the normalised pixels.
        offset: (batch, bands, 1, 1) float32 added to them.
        waited: Seconds that the step waited for the batch.
    """

    values: torch.Tensor
    valid: torch.Tensor
    label: torch.Tensor
    gain: torch.Tensor
    offset: torch.Tensor
    waited: float = 0.0


def load_batch(
    reader: TileReader, sampler: TileSampler, numbers: Sequence[int], side: int, augment: Augment, scale: float
) -> Batch:
    """Read and augment the tiles with these numbers.

    Args:
        reader: Of the scenes.
        sampler: Says where tiles are.
        numbers: Of the tiles.
        side: Of a tile in pixels.
        augment: How tiles are changed.
        scale: Largest change of scale.
    """
    tiles, colors = [], []
    for number in numbers:
        rng = sampler.rng(number)
        place = sampler.place(number, source_side(side, augment, scale, rng), rng)
        tile = geometry(reader.read(place), side, augment, rng)
        tiles.append(tile)
        colors.append(color(tile.values.shape[0], augment, rng))
    return Batch(
        values=torch.from_numpy(np.stack([tile.values for tile in tiles])),
        valid=torch.from_numpy(np.stack([tile.valid for tile in tiles])).unsqueeze(1),
        label=torch.from_numpy(np.stack([tile.label for tile in tiles])).long(),
        gain=torch.from_numpy(np.stack([change.gain for change in colors]))[:, :, None, None],
        offset=torch.from_numpy(np.stack([change.offset for change in colors]))[:, :, None, None],
    )


def stream(
    scenes: Sequence[TrainingScene],
    label_map: LabelMap,
    sampler: TileSampler,
    *,
    batches: Sequence[Sequence[int]],
    side: int,
    augment: Augment,
    scale: float,
) -> Iterator[Batch]:
    """Yield a batch for each list of tile numbers, read ahead in one thread.

    One thread suffices: GDAL keeps decoded blocks, so after the first round a tile costs a copy.
    """
    with TileReader(scenes, label_map) as reader, ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[Batch]] = deque()
        todo = iter(batches)

        def submit() -> None:
            numbers = next(todo, None)
            if numbers is not None:
                waiting.append(pool.submit(load_batch, reader, sampler, numbers, side, augment, scale))

        for _ in range(_AHEAD):
            submit()
        try:
            while waiting:
                started = time.perf_counter()
                batch = waiting.popleft().result()
                waited = time.perf_counter() - started
                submit()
                yield Batch(batch.values, batch.valid, batch.label, batch.gain, batch.offset, waited)
        finally:
            for future in waiting:
                future.cancel()
