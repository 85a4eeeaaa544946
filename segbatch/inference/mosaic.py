"""Putting the predictions of windows together to what a block keeps, a row of windows at a time.

Blending needs the probabilities of all classes, but never for the whole block: once a row of windows is in, the
pixels above the next row are final and leave for the block's uint8 arrays.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from segbatch.classes import NODATA, PROBABILITY_STEPS
from segbatch.geometry import Window, axis_weights
from segbatch.inference.settings import Settings


@dataclass(frozen=True, slots=True, eq=False)
class Outputs:
    """What is written of a block.

    Args:
        mask: (height, width) uint8 class ids, `NODATA` where nothing is predicted.
        confidence: (height, width) uint8 largest probability in steps of 1 / 254, `NODATA` likewise; None where
            it was not asked for.
        probabilities: (classes, height, width) uint8 likewise.
    """

    mask: NDArray[np.uint8]
    confidence: NDArray[np.uint8] | None = None
    probabilities: NDArray[np.uint8] | None = None


class Mosaic:
    """The outputs of a block while its windows come in.

    Args:
        shape: (rows, columns) of the block as read: whole cores and a halo on each side.
        kept: The part of it that the block keeps.
        wanted: (rows, columns) bool of ``kept``: the pixels to predict.
        settings: How windows become class masks.
        core: (rows, columns) of a core; windows start at multiples of it.
        halo: Pixels of a window on each side of its core.
        device: Where predictions come from.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        kept: Window,
        wanted: NDArray[np.bool_],
        settings: Settings,
        *,
        core: tuple[int, int],
        halo: int,
        device: torch.device,
    ) -> None:
        self._width, self._kept, self._wanted, self._settings = shape[1], kept, wanted, settings
        self._core, self._halo, self._device = core, halo, device
        self._mask = torch.full((kept.height, kept.width), NODATA, dtype=torch.uint8, device=device)
        self._confidence = torch.full_like(self._mask, NODATA) if "confidence" in settings.products else None
        self._probabilities: torch.Tensor | None = None
        self._sums: torch.Tensor | None = None
        self._row = 0
        self._rows, self._cols = ((side - 2 * halo) // core_side for side, core_side in zip(shape, core, strict=True))
        if settings.blend != "crop":
            self._row_weights, self._col_weights = (
                torch.from_numpy(axis_weights(settings.blend, side, halo, count)).to(device)
                for side, count in zip(core, (self._rows, self._cols), strict=True)
            )

    def windows(self) -> list[Window]:
        """The windows to run, in the block's array, row by row; those without a pixel to predict are left out."""
        height, width = self._core[0] + 2 * self._halo, self._core[1] + 2 * self._halo
        grid = (
            Window(col * self._core[1], row * self._core[0], width, height)
            for row in range(self._rows)
            for col in range(self._cols)
        )
        return [window for window in grid if self._is_wanted(window)]

    def put_classes(self, windows: Sequence[Window], ids: torch.Tensor) -> None:
        """Keep the cores' class ids.

        Args:
            windows: Of the batch.
            ids: (batch, rows, columns) uint8 of the cores; what is beyond ``windows`` is padding.
        """
        for window, found in zip(windows, ids, strict=False):
            target, source = self._owned(self._core_of(window))
            self._mask[target] = found[source]

    def put_probabilities(self, windows: Sequence[Window], probabilities: torch.Tensor, ids: torch.Tensor) -> None:
        """Keep the cores' class ids and what else is asked for.

        Args:
            windows: Of the batch.
            probabilities: (batch, classes, rows, columns) of the cores.
            ids: (batch, rows, columns) uint8 of the cores.
        """
        for window, shares, found in zip(windows, probabilities, ids, strict=False):
            self._write(self._core_of(window), shares, found)

    def blend(self, windows: Sequence[Window], probabilities: torch.Tensor) -> None:
        """Add weighted probabilities of windows.

        Args:
            windows: Of the batch, in the order of `windows`.
            probabilities: (batch, classes, rows, columns) of the whole windows.
        """
        if self._sums is None:
            classes, height = probabilities.shape[1:3]
            self._sums = torch.zeros((classes, height, self._width), device=self._device)
        for window, shares in zip(windows, probabilities, strict=False):
            row, col = window.row_off // self._core[0], window.col_off // self._core[1]
            while self._row < row:
                self._end_row(self._core[0])
            weights = self._row_weights[row][:, None] * self._col_weights[col][None, :]
            self._sums[:, :, window.col_off : window.col_end] += shares * weights

    def outputs(self) -> Outputs:
        """All windows are in: the block's arrays, in this process's memory."""
        if self._sums is not None:
            self._end_row(self._sums.shape[1])
        found = [
            None if array is None else array.cpu().numpy()
            for array in (self._mask, self._confidence, self._probabilities)
        ]
        if not self._wanted.all():
            for array in found:
                if array is not None:
                    array[..., ~self._wanted] = NODATA
        mask, confidence, probabilities = found
        assert mask is not None
        return Outputs(mask, confidence, probabilities)

    def _end_row(self, final: int) -> None:
        """No window to come reaches the first ``final`` rows of the sums: write them and make room."""
        assert self._sums is not None
        rows = self._sums[:, :final]
        self._write(Window(0, self._row * self._core[0], self._width, final), rows, rows.argmax(0).to(torch.uint8))
        self._sums = torch.cat([self._sums[:, final:], torch.zeros_like(rows)], dim=1)
        self._row += 1

    def _core_of(self, window: Window) -> Window:
        return window.buffered(-self._halo)

    def _is_wanted(self, window: Window) -> bool:
        """Whether a window gives a pixel that is to be predicted."""
        seen = (self._core_of(window) if self._settings.blend == "crop" else window).intersection(self._kept)
        return seen is not None and bool(self._wanted[seen.relative_to(self._kept).slices].any())

    def _owned(self, window: Window) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Where the kept part of a window lies: in the outputs, and in the window."""
        common = window.intersection(self._kept)
        assert common is not None  # windows that keep nothing are not run
        return common.relative_to(self._kept).slices, common.relative_to(window).slices

    def _write(self, window: Window, probabilities: torch.Tensor, ids: torch.Tensor) -> None:
        if window.intersection(self._kept) is None:
            return
        target, source = self._owned(window)
        self._mask[target] = ids[source]
        if self._confidence is not None:
            self._confidence[target] = _quantised(probabilities[:, *source].amax(0))
        if "probabilities" in self._settings.products:
            if self._probabilities is None:
                shape = len(probabilities), *self._mask.shape
                self._probabilities = torch.full(shape, NODATA, dtype=torch.uint8, device=self._device)
            self._probabilities[:, *target] = _quantised(probabilities[:, *source])


def _quantised(probabilities: torch.Tensor) -> torch.Tensor:
    return (probabilities * PROBABILITY_STEPS).round().clamp(0, PROBABILITY_STEPS).to(torch.uint8)
