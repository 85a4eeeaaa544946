"""What a report is made from: counts of every scene of a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segbatch.classes import ClassTable

Status = Literal["done", "failed", "unfinished", "unlabelled"]


@dataclass(frozen=True, slots=True, eq=False)
class SceneResult:
    """Counts of one scene. Those of a scene that failed, or is not finished, are not used.

    Args:
        id: Unique in the run and safe as a file name.
        group: What the scene belongs to (a patient, an animal, a flight), or None.
        image: Path or URL, or None where only a class mask was given.
        label: Path or URL of the label, or None.
        mask: Path of the class mask (COG or Zarr), or None if there is none.
        width: Columns.
        height: Rows.
        pixel_area_m2: Square metres a pixel for scenes with a projected CRS, or None.
        pixel_size_um: Micrometres a pixel for scenes without a map, or None.
        class_pixels: Predicted pixels by class.
        nodata_pixels: Pixels without a valid value.
        ignored_pixels: Valid pixels whose label is ignored; 0 without a label.
        confusion: int64 (classes, classes), rows = label, columns = prediction; None without a label.
        error: Why the scene failed, or None.
        left: What of the scene is still to do, or None; nothing has gone wrong then, but the run was stopped.
        shown_mask: The class mask as the report names it: one of the run's own by its place in the run's folder.

    Raises:
        ValueError: The counts of a scene that is whole do not add up: a part of it is missing.
    """

    id: str
    group: str | None
    image: str | None
    label: str | None
    mask: str | None
    width: int
    height: int
    pixel_area_m2: float | None
    pixel_size_um: float | None
    class_pixels: tuple[int, ...]
    nodata_pixels: int
    ignored_pixels: int
    confusion: NDArray[np.int64] | None
    error: str | None
    left: str | None = None
    shown_mask: str | None = None

    def __post_init__(self) -> None:
        if not self.is_whole:
            return
        valid, size = sum(self.class_pixels), self.width * self.height
        if valid + self.nodata_pixels != size:
            raise ValueError(
                f"scene {self.id}: {valid} class pixels and {self.nodata_pixels} nodata pixels are not the "
                f"{size} pixels of {self.width} x {self.height}"
            )
        if self.confusion is None:
            return
        counted = int(self.confusion.sum())
        if counted + self.ignored_pixels != valid:
            raise ValueError(
                f"scene {self.id}: {counted} pixels in the confusion matrix and {self.ignored_pixels} ignored "
                f"pixels are not the {valid} class pixels"
            )

    @property
    def is_whole(self) -> bool:
        """Whether all of it is done and counts."""
        return self.error is None and self.left is None

    @property
    def status(self) -> Status:
        """Whether the scene failed, is not finished, was mapped without a label, or was mapped and evaluated."""
        if not self.is_whole:
            return "unfinished" if self.error is None else "failed"
        return "unlabelled" if self.confusion is None else "done"

    @property
    def num_pixels(self) -> int:
        """All pixels of the scene."""
        return self.width * self.height


@dataclass(frozen=True, slots=True)
class Sample:
    """A window of a validation scene and what the trained model makes of it.

    Args:
        title: Where it is, and why it is shown.
        pictures: (caption, path of a JPEG or PNG file) of the image, the label and the class mask.
    """

    title: str
    pictures: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Schedule:
    """Runs that map into one folder time after time, each what is new.

    Args:
        scenes: One row a scene: ``{"scene", "status", "note", "modified", "mapped_at", "run", "km2", "image"}``.
        runs: One row a run, oldest first: ``{"number", "started", "ended", "new", "changed", "skipped", "vanished",
            "failed", "exit_code"}``.
    """

    scenes: tuple[Mapping[str, Any], ...]
    runs: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True, eq=False)
class RunSummary:
    """Everything a report shows of a run.

    Args:
        name: The run's name.
        classes: Names and colours.
        scenes: Every scene of the run, failed ones too, in the order of the catalog.
        facts: (label, value) lines for the report's header: bundle, core, halo, throughput, ...
        training: One row an epoch, in order: ``{"epoch", "loss", "miou", "iou": [...], "learning_rate",
            "tiles_per_second", "waited", "train_seconds", "validate_seconds"}``; empty when the run did not train.
        steps: Of the training, rows of steps: ``{"epoch", "step", "steps", "loss", "learning_rate"}``.
        samples: Of the training, sample predictions.
        schedule: When the scenes were mapped; None where that was not by a schedule.
        cost: What the run has cost, as plain data; None where there are no prices.

    Raises:
        ValueError: Counts of a scene are not those of this class table.
    """

    name: str
    classes: ClassTable
    scenes: tuple[SceneResult, ...]
    facts: tuple[tuple[str, str], ...] = ()
    training: tuple[Mapping[str, Any], ...] = ()
    steps: tuple[Mapping[str, Any], ...] = ()
    samples: tuple[Sample, ...] = ()
    schedule: Schedule | None = None
    cost: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        count = len(self.classes)
        for scene in self.scenes:
            if not scene.is_whole:
                continue
            shape = None if scene.confusion is None else scene.confusion.shape
            if len(scene.class_pixels) != count or shape not in (None, (count, count)):
                raise ValueError(
                    f"scene {scene.id}: {len(scene.class_pixels)} class counts and a confusion matrix of shape "
                    f"{shape} for {count} classes"
                )
