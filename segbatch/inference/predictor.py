"""From the pixels of a block to its class mask: pure torch, knows nothing of Ray or of files."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from segbatch.errors import SegbatchError
from segbatch.geometry import Tile, Tiling, Window
from segbatch.inference.mosaic import Mosaic, Outputs
from segbatch.inference.settings import Settings
from segbatch.inference.views import average_views, probabilities
from segbatch.models.backends.forward import Forward


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model makes of a block; arrays are of the pixels that the block keeps.

    Args:
        outputs: The class mask and what goes with it.
        windows: Windows run through the model, each view counted.
        seconds: By stage: ``upload`` to the device, ``forward``, ``download`` from it.
        note: What had to be changed to fit the device's memory, for people; empty if nothing.
    """

    outputs: Outputs
    windows: int
    seconds: dict[str, float]
    note: str = ""

    @property
    def mask(self) -> NDArray[np.uint8]:
        """(height, width) uint8 class ids, `NODATA` where no pixel is wanted."""
        return self.outputs.mask


class Predictor:
    """Slides windows over a block and puts their predictions together.

    In crop mode each window keeps its core. In the blend modes the softmax probabilities of all windows that see a
    pixel are averaged with weights that add up to 1, in the lattice's order, so that blocks change no bit.

    Pixels travel to the device as stored and are normalised there. Batches have one shape; the last is padded, so a
    pixel's class does not depend on its neighbours in the batch. Where the device's memory does not hold a batch,
    the batch is halved, then the core, and the block is done again.

    Args:
        forward: The model, ready to run.
        settings: How windows become class masks.
        stride: Of the model: windows start at multiples of it.
    """

    def __init__(self, forward: Forward, settings: Settings | None = None, stride: int = 1) -> None:
        self._forward = forward
        self._settings = settings or Settings()
        self._stride = stride
        self._batch_size = self._settings.batch_size
        self._splits: dict[tuple[int, int], int] = {}

    def prepare(self, bands: int, dtype: str, window: tuple[int, int]) -> None:
        """Make the backend ready for windows of one shape, which may take it a minute, before any pixels come.

        Args:
            bands: Number of bands.
            dtype: numpy's name of the pixel type.
            window: (rows, columns).
        """
        settings = self._settings
        plain = settings.blend == "crop" and settings.tta == "none" and not settings.products
        # Quarter turns lay windows on their side.
        for shape in {window, window[::-1]} if settings.tta == "d4" else {window}:
            pixels = torch.from_numpy(np.zeros((self._batch_size, bands, *shape), dtype)).to(self._forward.device)
            valid = torch.zeros((self._batch_size, 1, *shape), dtype=torch.bool, device=self._forward.device)
            with suppress(torch.OutOfMemoryError):  # the first block will find out, and what to do about it
                self._forward.prepare(pixels, valid, logits=not plain)

    def predict(
        self,
        values: NDArray[Any],
        valid: NDArray[np.bool_],
        tiling: Tiling,
        *,
        kept: Window | None = None,
        wanted: NDArray[np.bool_] | None = None,
    ) -> Prediction:
        """Predict a block.

        Args:
            values: (bands, height, width) as stored.
            valid: (height, width) bool, True = a real pixel.
            tiling: The windows.
            kept: The part that the block keeps; all its cores when None.
            wanted: (rows, columns) of ``kept``: which pixels are to be predicted; all valid ones when None.

        Raises:
            SegbatchError: The device's memory does not hold one window.
        """
        if valid.shape != (tiling.height, tiling.width):
            raise ValueError(f"{valid.shape[0]} x {valid.shape[1]} pixels are not those of {tiling}")
        kept = kept or tiling.cores
        inner = valid[kept.slices]
        wanted = inner if wanted is None else wanted & inner
        note = ""
        while True:
            try:
                prediction = self._predict(_Block(values, valid, wanted, kept), tiling)
            except torch.OutOfMemoryError as error:
                note = self._shrink(tiling, error)
            else:
                return Prediction(prediction.outputs, prediction.windows, prediction.seconds, note)

    def _predict(self, block: "_Block", tiling: Tiling) -> Prediction:
        tiling = tiling.split(self._splits.get(tiling.core, 1))
        device = self._forward.device
        clock = _Clock(device)
        source = _Source(block, device)
        clock.lap("upload")
        mosaic = Mosaic(tiling, block.kept, block.wanted, self._settings, device)
        tiles = mosaic.tiles()
        with torch.inference_mode():
            for first in range(0, len(tiles), self._batch_size):
                batch = tiles[first : first + self._batch_size]
                self._run(mosaic, batch, *source.batch([tile.window for tile in batch], self._batch_size))
            clock.lap("forward")
            outputs = mosaic.outputs()
        clock.lap("download")
        return Prediction(outputs, len(tiles) * self._settings.views, clock.seconds)

    def _run(self, mosaic: Mosaic, batch: Sequence[Tile], pixels: torch.Tensor, valid: torch.Tensor) -> None:
        """Predict a batch of windows and hand what they give to the mosaic."""
        settings, forward = self._settings, self._forward
        if settings.blend != "crop":
            mosaic.blend(batch, average_views(forward.logits, pixels, valid, settings.tta))
        elif settings.tta != "none":
            shares = average_views(forward.logits, pixels, valid, settings.tta)
            mosaic.put_probabilities(batch, shares, shares.argmax(1).to(torch.uint8))
        elif settings.products:
            logits = forward.logits(pixels, valid)
            # Of the logits, as without the products: rounding in the softmax may make ties.
            mosaic.put_probabilities(batch, probabilities(logits), logits.argmax(1).to(torch.uint8))
        else:
            mosaic.put_classes(batch, forward.classes(pixels, valid))

    def _shrink(self, tiling: Tiling, error: torch.OutOfMemoryError) -> str:
        """Halve the batch, or where it is one window already the core.

        Returns:
            What was done, for people.
        """
        if self._forward.device.type == "cuda":
            torch.cuda.empty_cache()
        if self._batch_size > 1:
            self._batch_size //= 2
            return f"the GPU's memory ran out: going on with {self._batch_size} windows a batch"
        core = tiling.core
        splits = self._splits.get(core, 1)
        smaller = core[0] // (2 * splits), core[1] // (2 * splits)
        whole = all(side % (2 * splits) == 0 and side // (2 * splits) % self._stride == 0 for side in core)
        # Blended windows cannot be cut: their weights reach over all of them.
        if self._settings.blend != "crop" or not whole:
            height, width = tiling.split(splits).window
            raise SegbatchError(
                f"The device's memory does not hold a window of {height} x {width} pixels: lower the core or the halo."
            ) from error
        self._splits[core] = 2 * splits
        return f"the GPU's memory ran out: going on with cores of {smaller[0]} x {smaller[1]}"


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    values: NDArray[Any]
    valid: NDArray[np.bool_]
    wanted: NDArray[np.bool_]
    kept: Window


class _Source:
    """Cuts batches of windows out of a block.

    A GPU gets the block once, since windows overlap; on the CPU windows are copied out of it.
    """

    def __init__(self, block: _Block, device: torch.device) -> None:
        self._values, self._valid = block.values, block.valid
        self._on_device: tuple[torch.Tensor, torch.Tensor] | None = None
        if device.type != "cpu":
            self._on_device = _upload(block.values, device), _upload(block.valid, device)

    def batch(self, windows: Sequence[Window], size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(size, bands, height, width) as stored and (size, 1, height, width) bool; a short batch is padded."""
        padded = [*windows, *[windows[0]] * (size - len(windows))]
        if self._on_device is None:
            return (
                torch.from_numpy(np.stack([self._values[:, *window.slices] for window in padded])),
                torch.from_numpy(np.stack([self._valid[window.slices] for window in padded])).unsqueeze(1),
            )
        values, valid = self._on_device
        return (
            torch.stack([values[:, *window.slices] for window in padded]),
            torch.stack([valid[window.slices] for window in padded]).unsqueeze(1),
        )


def _upload(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """A copy on the device, by way of pinned memory: the driver copies from that without a detour of its own."""
    like = torch.from_numpy(np.empty(0, array.dtype))
    pinned = torch.empty(array.shape, dtype=like.dtype, pin_memory=True)
    np.copyto(pinned.numpy(), array)
    return pinned.to(device, non_blocking=True)


class _Clock:
    """Seconds between laps, with the device's queue run empty at each."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self.seconds[stage] = now - self._last
        self._last = now
