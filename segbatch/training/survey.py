"""The pass over the training scenes: band statistics, and where each class is."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segbatch.classes import IGNORE_INDEX, LabelMap
from segbatch.errors import InputError
from segbatch.geometry import Window
from segbatch.scenes import LabelReader, open_scene


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
    """Sums over valid pixels, from which mean and deviation follow; parts add up.

    Args:
        count: Valid pixels.
        total: Sum of each band, (bands,) float64.
        squares: Sum of squares of each band, (bands,) float64.
    """

    count: int
    total: NDArray[np.float64]
    squares: NDArray[np.float64]

    def __add__(self, other: "BandSums") -> "BandSums":
        return BandSums(self.count + other.count, self.total + other.total, self.squares + other.squares)

    def mean_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each band; a constant band has deviation 1."""
        mean = self.total / self.count
        std = np.sqrt(np.maximum(self.squares / self.count - mean**2, 0))
        std[std <= 1e-6 * np.abs(mean)] = 1  # what is left of a constant by rounding
        return tuple(mean.tolist()), tuple(std.tolist())


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
    # Band by band: a wide scene's strip is large already, and float64 takes eight times as much.
    totals, squares = np.zeros(len(values)), np.zeros(len(values))
    for band, plane in enumerate(values):
        real = plane[valid].astype(np.float64)
        totals[band], squares[band] = real.sum(), np.dot(real, real)
    return Strip(index, row, counts, BandSums(int(valid.sum()), totals, squares))


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """What is known of the training scenes.

    Args:
        cell: Side of a cell in pixels.
        cells: For each scene (rows of cells, columns of cells, classes) int64: labelled pixels by class.
        mean: Of each band over the valid pixels.
        std: Of each band over the valid pixels.
    """

    cell: int
    cells: tuple[NDArray[np.int64], ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def class_pixels(self) -> NDArray[np.int64]:
        """Labelled pixels by class over all scenes."""
        return np.sum([grid.sum(axis=(0, 1)) for grid in self.cells], axis=0)

    @property
    def shared_pixels(self) -> NDArray[np.int64]:
        """Of each class, the labelled pixels of any class in the cells that it occurs in."""
        cells = np.concatenate([grid.reshape(-1, grid.shape[2]) for grid in self.cells])
        return (cells > 0).T.astype(np.int64) @ cells.sum(axis=1)


def merge(parts: Sequence[Strip], cell: int) -> Survey:
    """Put the strips of all scenes together, in whatever order they arrived.

    Raises:
        InputError: There is nothing to learn from.
    """
    ordered = sorted(parts, key=lambda part: (part.scene, part.row))
    by_scene = itertools.groupby(ordered, key=lambda part: part.scene)
    cells = tuple(np.concatenate([part.cells for part in found]) for _, found in by_scene)
    sums = ordered[0].sums
    for part in ordered[1:]:
        sums = sums + part.sums
    if sums.count == 0:
        raise InputError("The training scenes have no valid pixel: check nodata and windows.")
    if not sum(int(grid.sum()) for grid in cells):
        raise InputError("The training labels have no labelled pixel: check label_values and windows.")
    mean, std = sums.mean_std()
    return Survey(cell, cells, mean, std)
