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
from segbatch.geometry import Tile, Tiling, Window, axis_weights
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
        tiling: The block's windows.
        kept: The part of it that the block keeps.
        wanted: (rows, columns) bool of ``kept``: the pixels to predict.
        settings: How windows become class masks.
        device: Where predictions come from.
    """

    def __init__(
        self,
        tiling: Tiling,
        kept: Window,
        wanted: NDArray[np.bool_],
        settings: Settings,
        device: torch.device,
    ) -> None:
        self._tiling, self._kept, self._wanted, self._settings = tiling, kept, wanted, settings
        self._device = device
        self._mask = torch.full((kept.height, kept.width), NODATA, dtype=torch.uint8, device=device)
        self._confidence = torch.full_like(self._mask, NODATA) if "confidence" in settings.products else None
        self._probabilities: torch.Tensor | None = None
        self._sums: torch.Tensor | None = None
        self._row = 0
        if settings.blend != "crop":
            self._row_weights, self._col_weights = (
                torch.from_numpy(axis_weights(settings.blend, side, starts)).to(device)
                for side, starts in zip(tiling.window, (tiling.row_starts, tiling.col_starts), strict=True)
            )

    def tiles(self) -> list[Tile]:
        """The windows to run, row by row; those without a pixel to predict are left out."""
        return [tile for tile in self._tiling if self._is_wanted(tile)]

    def put_classes(self, tiles: Sequence[Tile], ids: torch.Tensor) -> None:
        """Keep the cores' class ids.

        Args:
            tiles: Of the batch.
            ids: (batch, rows, columns) uint8 of the windows; what is beyond ``tiles`` is padding.
        """
        for tile, found in zip(tiles, ids, strict=False):
            common = self._common(tile.core)
            self._mask[common.relative_to(self._kept).slices] = found[common.relative_to(tile.window).slices]

    def put_probabilities(self, tiles: Sequence[Tile], probabilities: torch.Tensor, ids: torch.Tensor) -> None:
        """Keep the cores' class ids and what else is asked for.

        Args:
            tiles: Of the batch.
            probabilities: (batch, classes, rows, columns) of the windows.
            ids: (batch, rows, columns) uint8 of the windows.
        """
        for tile, shares, found in zip(tiles, probabilities, ids, strict=False):
            self._write(self._common(tile.core), tile.window, shares, found)

    def blend(self, tiles: Sequence[Tile], probabilities: torch.Tensor) -> None:
        """Add weighted probabilities of windows.

        Args:
            tiles: Of the batch, in the order of `tiles`.
            probabilities: (batch, classes, rows, columns) of the whole windows.
        """
        if self._sums is None:
            classes, height = probabilities.shape[1:3]
            self._sums = torch.zeros((classes, height, self._tiling.width), device=self._device)
        for tile, shares in zip(tiles, probabilities, strict=False):
            while self._row < tile.row:
                self._end_row()
            weights = self._row_weights[tile.row][:, None] * self._col_weights[tile.col][None, :]
            self._sums[:, :, tile.window.col_off : tile.window.col_end] += shares * weights

    def outputs(self) -> Outputs:
        """All windows are in: the block's arrays, in this process's memory."""
        if self._sums is not None:
            self._write_sums(self._sums.shape[1])
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

    def _end_row(self) -> None:
        """No window to come reaches the rows above the next row of windows: write them and make room."""
        assert self._sums is not None
        starts = self._tiling.row_starts
        final = starts[self._row + 1] - starts[self._row]
        if final > 0:
            self._write_sums(final)
            self._sums = torch.cat([self._sums[:, final:], torch.zeros_like(self._sums[:, :final])], dim=1)
        self._row += 1

    def _write_sums(self, final: int) -> None:
        """Write the first ``final`` rows of the sums."""
        assert self._sums is not None
        rows = self._sums[:, :final]
        lines = Window(0, self._tiling.row_starts[self._row], self._tiling.width, final)
        common = lines.intersection(self._kept)
        if common is not None:
            self._write(common, lines, rows, rows.argmax(0).to(torch.uint8))

    def _is_wanted(self, tile: Tile) -> bool:
        """Whether a window gives a pixel that is to be predicted."""
        seen = (tile.core if self._settings.blend == "crop" else tile.window).intersection(self._kept)
        return seen is not None and bool(self._wanted[seen.relative_to(self._kept).slices].any())

    def _common(self, core: Window) -> Window:
        """The part of a core that is kept."""
        common = core.intersection(self._kept)
        assert common is not None  # windows that keep nothing are not run
        return common

    def _write(self, part: Window, whole: Window, probabilities: torch.Tensor, ids: torch.Tensor) -> None:
        """Keep a part of what is predicted of a window."""
        target, source = part.relative_to(self._kept).slices, part.relative_to(whole).slices
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
