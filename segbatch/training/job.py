"""What a training is: all that its workers need to know."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from segbatch.classes import ClassTable, LabelMap
from segbatch.config import Model, Training
from segbatch.training.augmentation import Augmentation
from segbatch.training.survey import Survey, TrainingScene

Listener = Callable[[dict[str, Any]], None]
"""Takes the events of a training."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingJob:
    """All that a worker needs to know.

    Args:
        classes: The class table.
        label_map: From label values to class ids.
        train: Scenes to learn from.
        validate: Scenes that choose the best epoch.
        survey: Statistics of the training scenes.
        band_names: Of the model's channels.
        bands: 1-based band numbers where the user chose them, else None.
        dtype: numpy's name of the scenes' pixel type.
        model: The network.
        settings: How it is fitted.
        steps_per_epoch: Optimizer steps an epoch.
        threads: Torch threads a worker.
        calibrate: Whether to measure the halo when the last epoch is over.
    """

    classes: ClassTable
    label_map: LabelMap
    train: tuple[TrainingScene, ...]
    validate: tuple[TrainingScene, ...]
    survey: Survey
    band_names: tuple[str, ...]
    bands: tuple[int, ...] | None
    dtype: str
    model: Model
    settings: Training
    steps_per_epoch: int
    threads: int
    calibrate: bool = True

    @property
    def total_steps(self) -> int:
        """Length of the training, unless patience ends it."""
        return self.settings.epochs * self.steps_per_epoch

    @property
    def augmentation(self) -> Augmentation:
        """How tiles are changed."""
        settings = self.settings
        return Augmentation(settings.augment, settings.scale, settings.noise, settings.cutout)

    def tile_numbers(self, step: int, rank: int, world: int) -> range:
        """Numbers of the tiles of a step that are a worker's.

        Which tiles a step has depends on the step alone; workers take shares of them that differ by one at most.
        """
        size = self.settings.batch_size
        first = step * size
        return range(first + size * rank // world, first + size * (rank + 1) // world)
