"""What an engine is asked to do: the blocks of a plan that have no ledger row yet."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segbatch.classes import LabelMap
from segbatch.inference.attempts import ATTEMPTS
from segbatch.inference.files import BlockWriter
from segbatch.inference.plan import ScenePlan
from segbatch.inference.settings import Settings
from segbatch.inference.stages import BlockPixels, PredictStage, ReadStage, WriteStage
from segbatch.storage import place


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """Blocks to map.

    Args:
        scenes: The plan.
        pending: (blocks, 2) int64: index of the scene, number of the block.
        bundle: Folder of the bundle.
        files: Writes blocks.
        ledger: Folder of the ledger.
        label_map: From label values to class ids.
        settings: How windows become class masks.
        quantized: File of the int8 model, where the precision is int8.
        window_bytes: Memory that a forward pass takes in a predicting process, as far as it is known; 0 if not.
    """

    scenes: tuple[ScenePlan, ...]
    pending: NDArray[np.int64]
    bundle: str
    files: BlockWriter
    ledger: str
    label_map: LabelMap
    settings: Settings
    quantized: str | None = None
    window_bytes: int = 0

    @property
    def attempts(self) -> Path:
        """Folder of the blocks that are under way."""
        return place(self.ledger) / ATTEMPTS

    def reader(self) -> ReadStage:
        """The first stage."""
        return ReadStage(self.scenes)

    def unread(self, scene: int, block: int, problem: str) -> BlockPixels:
        """What the first stage gives for a block that was given up."""
        plan = self.scenes[scene]
        nothing = np.zeros((len(plan.bands), 0, 0), plan.info.dtype)
        return BlockPixels(scene, block, nothing, np.zeros((0, 0), bool), None, time.time(), {"read": 0.0}, problem)

    def predictor(self, threads: int | None, device: str) -> PredictStage:
        """The second stage; loads the model."""
        first = int(self.pending[0, 0])
        return PredictStage(
            self.scenes, first, self.bundle, self.settings, self.quantized, self.window_bytes, threads, device
        )

    def writer(self) -> WriteStage:
        """The third stage."""
        return WriteStage(self.scenes, self.files, self.ledger, self.label_map)
