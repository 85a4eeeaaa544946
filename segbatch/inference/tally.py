"""What the ledger says of each scene, summed in one pass that keeps no row: a run may have millions."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from segbatch.inference.ledger import LedgerRow, iterate_rows

_WORK = ("read", "predict", "write")
"""Stages that do not overlap within a block."""


@dataclass(slots=True, eq=False)
class SceneTally:
    """Sums over the blocks of a scene that are done.

    Args:
        done: (blocks,) bool, True = the block has a row that tells of success.
        errors: Number of a block to why it failed, of those that were not done since.
        class_pixels: (classes,) int64 predicted pixels.
        nodata_pixels: Pixels without a valid value.
        ignored_pixels: Valid pixels without a usable label.
        confusion: (classes, classes) int64, rows = label, columns = prediction; None where no block had a label.
        seconds: Of reading, predicting and writing.
        ended: When the latest block was written, in seconds since the epoch.
    """

    done: NDArray[np.bool_]
    errors: dict[int, str]
    class_pixels: NDArray[np.int64]
    nodata_pixels: int = 0
    ignored_pixels: int = 0
    confusion: NDArray[np.int64] | None = None
    seconds: float = 0.0
    ended: float = 0.0

    @classmethod
    def empty(cls, blocks: int, num_classes: int) -> Self:
        """Of a scene of which nothing is done."""
        return cls(np.zeros(blocks, bool), {}, np.zeros(num_classes, np.int64))

    @property
    def is_whole(self) -> bool:
        """Whether all blocks are done."""
        return bool(self.done.all())

    @property
    def error(self) -> str | None:
        """Why the first of the blocks that failed did; None where none did."""
        return self.errors[min(self.errors)] if self.errors else None

    def add(self, row: LedgerRow) -> None:
        """Count a row. A block may have several (it was retried, or two workers did it): one success counts, once."""
        if row.block >= len(self.done) or self.done[row.block]:
            return
        if row.error is not None:
            self.errors[row.block] = row.error
            return
        self.errors.pop(row.block, None)
        self.done[row.block] = True
        self.class_pixels += row.class_pixels
        self.nodata_pixels += row.nodata_pixels
        self.ignored_pixels += row.ignored_pixels
        if row.confusion is not None:
            if self.confusion is None:
                self.confusion = np.zeros((len(self.class_pixels), len(self.class_pixels)), np.int64)
            self.confusion += row.confusion
        worked = sum(row.seconds.get(stage, 0.0) for stage in _WORK)
        self.seconds += worked
        self.ended = max(self.ended, row.started + worked)


def tally_ledger(folder: str | Path, blocks: Mapping[str, int], num_classes: int) -> dict[str, SceneTally]:
    """Sum the rows of a ledger, each block's once.

    Args:
        folder: Of the ledger; it need not be there.
        blocks: By the id of a scene, how many it has. Rows of others are passed over.
        num_classes: Number of classes.

    Returns:
        By the id of a scene; those without a row too.
    """
    tallies = {scene: SceneTally.empty(count, num_classes) for scene, count in blocks.items()}
    for row in iterate_rows(folder):
        if (tally := tallies.get(row.scene)) is not None:
            tally.add(row)
    return tallies
