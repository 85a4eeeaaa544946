"""What an engine is asked to do: the blocks of a plan that have no ledger row yet."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segbatch.classes import LabelMap
from segbatch.inference.plan import ScenePlan
from segbatch.inference.stages import PredictStage, ReadStage, WriteStage


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """Blocks to map.

    Args:
        scenes: The plan.
        pending: (blocks, 2) int64: index of the scene, number of the block.
        bundle: Folder of the bundle.
        masks: Folder of the Zarr stores, whose templates are there.
        ledger: Folder of the ledger.
        label_map: From label values to class ids.
        batch_size: Windows a forward pass.
    """

    scenes: tuple[ScenePlan, ...]
    pending: NDArray[np.int64]
    bundle: str
    masks: str
    ledger: str
    label_map: LabelMap
    batch_size: int

    def reader(self) -> ReadStage:
        """The first stage."""
        return ReadStage(self.scenes)

    def predictor(self, threads: int | None, device: str) -> PredictStage:
        """The second stage; loads the model."""
        return PredictStage(self.scenes, self.bundle, self.batch_size, threads, device)

    def writer(self) -> WriteStage:
        """The third stage."""
        return WriteStage(self.scenes, self.masks, self.ledger, self.label_map)
