"""The pass over the training scenes: band statistics, and where each class is."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbatch.classes import IGNORE_INDEX, LabelMap
from segbatch.errors import InputError, SceneReadError
from segbatch.geometry import Window
from segbatch.inference.attempts import MOST_ATTEMPTS, Attempt, Attempts, under_way
from segbatch.inference.watch import SURVEY
from segbatch.scenes import LabelReader, open_scene
from segbatch.storage import write_whole
from segbatch.training.histogram import count_values, percentiles

PERCENTILES = (1.0, 50.0, 99.0)
"""Those that a survey tells of each band."""


@dataclass(frozen=True, slots=True)
class TrainingScene:
    """A labelled scene, or a part of one.

    Args:
        id: Of its catalog.
        image: Path or URL.
        label: Path or URL.
        bands: 1-based band numbers in the order of the model's channels.
        window: The part to use.
        nodata: Fill value that overrides the file's own.
    """

    id: str
    image: str
    label: str
    bands: tuple[int, ...]
    window: Window
    nodata: float | None


@dataclass(frozen=True, slots=True)
class BandSums:
    """Sums over valid pixels, from which mean, deviation and percentiles follow; those of parts add up.

    Args:
        count: Valid pixels.
        total: Sum of each band, (bands,) float64.
        squares: Sum of squares of each band, (bands,) float64.
        values: Histogram of each band, (bands, buckets) int64, see `count_values`.
        dtype: numpy's name of the pixel type.
    """

    count: int
    total: NDArray[np.float64]
    squares: NDArray[np.float64]
    values: NDArray[np.int64]
    dtype: str

    @classmethod
    def of(cls, bands: NDArray[np.generic], valid: NDArray[np.bool_]) -> "BandSums":
        """The sums of pixels (bands, height, width) where ``valid``, (height, width), is true."""
        # Band by band: a wide scene's strip is large already, and float64 takes eight times as much.
        totals, squares, values = [], [], []
        for plane in bands:
            stored = plane[valid]
            real = stored.astype(np.float64)
            totals.append(real.sum())
            squares.append(np.dot(real, real))
            values.append(count_values(stored))
        return cls(int(valid.sum()), np.array(totals), np.array(squares), np.stack(values), bands.dtype.name)

    def mean_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each band; a constant band has deviation 1."""
        mean = self.total / self.count
        std = np.sqrt(np.maximum(self.squares / self.count - mean**2, 0))
        std[std <= 1e-6 * np.abs(mean)] = 1  # what is left of a constant by rounding
        return tuple(mean.tolist()), tuple(std.tolist())

    def percentiles(self) -> tuple[tuple[float, ...], ...]:
        """Of each band the `PERCENTILES`."""
        return tuple(percentiles(counts, self.dtype, PERCENTILES) for counts in self.values)


@dataclass(frozen=True, slots=True, eq=False)
class Strip:
    """What the survey found in a strip of rows of a scene.

    Args:
        scene: Index of the scene.
        row: First row of cells.
        cells: (rows of cells, columns of cells, classes) int64: labelled valid pixels by class.
        sums: Of the valid pixels.
    """

    scene: int
    row: int
    cells: NDArray[np.int64]
    sums: BandSums


def strips(scenes: Sequence[TrainingScene], cell: int) -> Iterator[tuple[int, int]]:
    """(scene index, row of cells) of the strips that cover all scenes: the survey's units of work."""
    for index, scene in enumerate(scenes):
        for row in range(-(-scene.window.height // cell)):
            yield index, row


def survey_strip(scene: TrainingScene, index: int, row: int, cell: int, label_map: LabelMap) -> Strip:
    """Read one row of cells of a scene and count.

    Args:
        scene: The scene.
        index: Its index.
        row: Row of cells.
        cell: Side of a cell in pixels.
        label_map: From label values to class ids.

    Raises:
        SceneReadError: Image or label is damaged.
    """
    window = scene.window
    top = row * cell
    part = Window(window.col_off, window.row_off + top, window.width, min(cell, window.height - top))
    with open_scene(scene.image, scene.nodata) as reader:
        values, valid = reader.read(part, scene.bands)
        info = reader.info
    with LabelReader(scene.label, label_map, info) as label:
        ids = label.read(part)
    ids[~valid] = IGNORE_INDEX
    cols = -(-window.width // cell)
    counts = np.zeros((1, cols, label_map.num_classes), np.int64)
    for col in range(cols):
        found = np.bincount(ids[:, col * cell : (col + 1) * cell].ravel(), minlength=256)
        counts[0, col] = found[: label_map.num_classes]
    return Strip(index, row, counts, BandSums.of(values, valid))


def try_to_survey(
    place: tuple[int, int], scenes: Sequence[TrainingScene], cell: int, label_map: LabelMap, attempts: str
) -> Strip:
    """`survey_strip`, but for a strip whose processes were lost again and again.

    Args:
        place: Index of the scene and row of cells, as `strips` gives them.
        scenes: The scenes.
        cell: Side of a cell in pixels.
        label_map: From label values to class ids.
        attempts: Folder that counts the attempts.

    Raises:
        SceneReadError: Image or label is damaged, or the strip is given up.
    """
    index, row = place
    scene = scenes[index]
    # A scene may be there in several parts, which have the same rows; see `strips_under_way`.
    with Attempts(attempts, SURVEY).at(f"{scene.id}.{index}", row) as problem:
        if problem is None:
            return survey_strip(scene, index, row, cell, label_map)
    raise SceneReadError(
        f"The training scene {scene.id} was given up: {MOST_ATTEMPTS} processes that were to read it from row "
        f"{scene.window.row_off + row * cell} on were lost. {scene.image} or its label may crash the library that "
        "decodes it, or there was too little memory."
    )


def strips_under_way(attempts: Path) -> list[Attempt]:
    """What `try_to_survey` is at, by the ids of the scenes.

    Args:
        attempts: Folder that counts the attempts.
    """
    return [attempt._replace(scene=attempt.scene.rpartition(".")[0]) for attempt in under_way(attempts)]


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """What is known of the training scenes.

    Args:
        cell: Side of a cell in pixels.
        cells: For each scene (rows of cells, columns of cells, classes) int64: labelled pixels by class.
        mean: Of each band over the valid pixels.
        std: Of each band over the valid pixels.
        percentiles: Of each band the `PERCENTILES` of the valid pixels.
    """

    cell: int
    cells: tuple[NDArray[np.int64], ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    percentiles: tuple[tuple[float, ...], ...]

    @property
    def class_pixels(self) -> NDArray[np.int64]:
        """Labelled pixels by class over all scenes."""
        return np.sum([grid.sum(axis=(0, 1)) for grid in self.cells], axis=0)

    @property
    def shared_pixels(self) -> NDArray[np.int64]:
        """Of each class, the labelled pixels of any class in the cells that it occurs in."""
        cells = np.concatenate([grid.reshape(-1, grid.shape[2]) for grid in self.cells])
        return (cells > 0).T.astype(np.int64) @ cells.sum(axis=1)


class Tally:
    """Puts the strips of all scenes together, in whatever order they arrive.

    Args:
        scenes: The scenes.
        cell: Side of a cell in pixels.
        num_classes: Classes.
    """

    def __init__(self, scenes: Sequence[TrainingScene], cell: int, num_classes: int) -> None:
        self._cell = cell
        self._cells = tuple(
            np.zeros((-(-scene.window.height // cell), -(-scene.window.width // cell), num_classes), np.int64)
            for scene in scenes
        )
        self._count, self._dtype = 0, ""
        self._values: NDArray[np.int64] | int = 0
        # Sums of floats depend on their order: they are added up in that of the scenes.
        self._waiting: dict[tuple[int, int], tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
        self._order = strips(scenes, cell)
        self._next = next(self._order, None)
        self._total: NDArray[np.float64] | float = 0.0
        self._squares: NDArray[np.float64] | float = 0.0

    def add(self, strip: Strip) -> None:
        """Count a strip in."""
        self._cells[strip.scene][strip.row] = strip.cells[0]
        sums = strip.sums
        self._count += sums.count
        self._values, self._dtype = self._values + sums.values, sums.dtype
        self._waiting[strip.scene, strip.row] = sums.total, sums.squares
        while self._next in self._waiting:
            total, squares = self._waiting.pop(self._next)
            self._total, self._squares = self._total + total, self._squares + squares
            self._next = next(self._order, None)

    def survey(self) -> Survey:
        """The whole, when all strips are there.

        Raises:
            InputError: There is nothing to learn from.
        """
        assert self._next is None
        if self._count == 0:
            raise InputError("The training scenes have no valid pixel: check nodata and windows.")
        if not sum(int(grid.sum()) for grid in self._cells):
            raise InputError("The training labels have no labelled pixel: check label_values and windows.")
        sums = BandSums(
            self._count, np.asarray(self._total), np.asarray(self._squares), np.asarray(self._values), self._dtype
        )
        return Survey(self._cell, self._cells, *sums.mean_std(), sums.percentiles())


def save_survey(survey: Survey, file: Path) -> None:
    """Keep a survey, as a compressed numpy archive that appears whole or not at all.

    Raises:
        OSError: The disk is full, or the folder cannot be written to.
    """
    cells: dict[str, Any] = {f"cells{index}": grid for index, grid in enumerate(survey.cells)}
    content = io.BytesIO()
    np.savez_compressed(
        content, cell=survey.cell, mean=survey.mean, std=survey.std, percentiles=survey.percentiles, **cells
    )
    write_whole(file, content.getvalue())


def load_survey(file: Path) -> Survey:
    """What `save_survey` kept."""
    with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as kept:
        return Survey(
            int(kept["cell"]),
            tuple(kept[f"cells{index}"] for index in range(sum(name.startswith("cells") for name in kept.files))),
            tuple(kept["mean"].tolist()),
            tuple(kept["std"].tolist()),
            tuple(map(tuple, kept["percentiles"].tolist())),
        )
