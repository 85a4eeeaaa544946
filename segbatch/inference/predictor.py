"""From the pixels of a block to its class mask: pure torch, knows nothing of Ray or of files."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from segbatch.classes import NODATA


@dataclass(frozen=True, slots=True)
class Prediction:
    """The class mask of a block.

    Args:
        mask: (height, width) uint8 class ids of the block's whole cores, `NODATA` where no pixel is valid.
        windows: Windows run through the model.
        forward_seconds: Time in the model, transfers included.
    """

    mask: NDArray[np.uint8]
    windows: int
    forward_seconds: float


class Predictor:
    """Slides windows over a block and keeps each window's core.

    Pixels travel to the device as stored and are normalised there. Invalid pixels are 0 after normalisation:
    the mean. Batches have one shape; the last is padded, so a pixel's class does not depend on its
    neighbours in the batch.

    Args:
        model: Takes (batch, bands, height, width) float32, gives logits (batch, classes, height, width).
        mean: Of each band, in pixel values.
        std: Of each band, in pixel values.
        batch_size: Windows a forward pass.
        device: Where the model runs.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        *,
        batch_size: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        self._device = torch.device(device)
        self._model = model.to(device=self._device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self._mean = torch.tensor(mean, dtype=torch.float32, device=self._device).view(-1, 1, 1)
        self._scale = 1 / torch.tensor(std, dtype=torch.float32, device=self._device).view(-1, 1, 1)
        self._batch_size = batch_size

    def predict(
        self,
        values: NDArray[Any],
        valid: NDArray[np.bool_],
        *,
        core: tuple[int, int],
        halo: int,
    ) -> Prediction:
        """Predict a block.

        Args:
            values: (bands, height, width) as stored, where height and width are those of whole cores and a
                halo on each side.
            valid: (height, width) bool, True = a real pixel.
            core: (rows, columns) of a core.
            halo: Context pixels around a core.
        """
        height, width = valid.shape[0] - 2 * halo, valid.shape[1] - 2 * halo
        rows, cols = core
        if height <= 0 or width <= 0 or height % rows or width % cols:
            raise ValueError(f"a block of {height} x {width} pixels is not made of cores of {rows} x {cols}")
        mask = np.full((height, width), NODATA, np.uint8)
        inner_valid = valid[halo : halo + height, halo : halo + width]
        corners = [
            (row, col)
            for row in range(0, height, rows)
            for col in range(0, width, cols)
            if inner_valid[row : row + rows, col : col + cols].any()
        ]
        started = time.perf_counter()
        for first in range(0, len(corners), self._batch_size):
            batch = corners[first : first + self._batch_size]
            windows = [(slice(row, row + rows + 2 * halo), slice(col, col + cols + 2 * halo)) for row, col in batch]
            classes = self._forward(
                [values[:, window[0], window[1]] for window in windows], [valid[window] for window in windows]
            )
            kept = classes[:, halo : halo + rows, halo : halo + cols].cpu().numpy()
            for (row, col), ids in zip(batch, kept, strict=False):  # the padding of the last batch is dropped
                mask[row : row + rows, col : col + cols] = ids
        seconds = time.perf_counter() - started
        mask[~inner_valid] = NODATA
        return Prediction(mask, len(corners), seconds)

    def _forward(self, values: list[NDArray[Any]], valid: list[NDArray[np.bool_]]) -> torch.Tensor:
        """Class ids (batch_size, height, width) uint8 on the device."""
        missing = self._batch_size - len(values)
        pixels = torch.from_numpy(np.stack(values + [values[0]] * missing)).to(self._device)
        real = torch.from_numpy(np.stack(valid + [valid[0]] * missing)).to(self._device).unsqueeze(1)
        with torch.inference_mode():
            logits = self._model(self.normalize(pixels, real).contiguous(memory_format=torch.channels_last))
            return logits.argmax(dim=1).to(torch.uint8)

    def normalize(self, pixels: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Float32 with mean 0 and deviation 1; 0 where not valid (NaN included)."""
        return torch.where(valid, (pixels.float() - self._mean) * self._scale, 0.0)
