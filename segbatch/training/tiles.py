"""Training tiles: windows drawn at random from the scenes, read on demand. No tile is ever a file."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from segbatch.classes import IGNORE_INDEX, LabelMap
from segbatch.geometry import Window
from segbatch.scenes import LabelReader, SceneReader, open_scene
from segbatch.scenes.scene import read_padded
from segbatch.training.survey import Survey, TrainingScene

_OPEN_SCENES = 64
"""File handles are few, and a training may have thousands of scenes."""


class Tile(NamedTuple):
    """A training sample.

    Args:
        values: (bands, side, side) as stored.
        valid: (side, side) bool, True = a real pixel.
        label: (side, side) uint8 class ids, `IGNORE_INDEX` where there is none.
    """

    values: NDArray[np.generic]
    valid: NDArray[np.bool_]
    label: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class TilePlace:
    """Where a tile is cut.

    Args:
        scene: Index of the scene.
        window: Pixels of the scene; may reach beyond it where it is smaller than a tile.
    """

    scene: int
    window: Window


class TileSampler:
    """Draws where tiles are cut.

    The place of tile number k depends on the seed and k alone, so the order of the data is the same for any
    number of workers and after any interruption.

    A tile is drawn either anywhere (in proportion to labelled pixels) or around a class. Classes are drawn
    in proportion to the square root of their share, which shows rare classes more often than their area
    would without repeating the few places where they are too often.

    Args:
        scenes: The scenes.
        survey: Where their classes are.
        balance: Share of tiles that are drawn around a class.
        seed: Seed.
    """

    def __init__(self, scenes: Sequence[TrainingScene], survey: Survey, balance: float, seed: int) -> None:
        self._windows = [scene.window for scene in scenes]
        self._cell = survey.cell
        self._balance = balance
        self._seed = seed
        counts = np.concatenate([grid.reshape(-1, grid.shape[-1]) for grid in survey.cells])
        self._origin = np.array(
            [
                (index, row, col)
                for index, grid in enumerate(survey.cells)
                for row in range(grid.shape[0])
                for col in range(grid.shape[1])
            ]
        )
        self._anywhere = _cumulative(counts.sum(axis=1))
        present = np.flatnonzero(counts.sum(axis=0))
        self._classes = _cumulative(np.sqrt(counts[:, present].sum(axis=0)))
        self._by_class = [_cumulative(counts[:, class_id]) for class_id in present]

    def place(self, number: int, side: int, rng: np.random.Generator | None = None) -> TilePlace:
        """Where tile ``number`` is cut.

        Args:
            number: Counts tiles from the start of training.
            side: Side of the tile in pixels.
            rng: Generator to draw from; by default the tile's own.
        """
        rng = rng or self.rng(number)
        around = rng.random() < self._balance
        cells = self._by_class[_draw(self._classes, rng)] if around else self._anywhere
        scene, row, col = self._origin[_draw(cells, rng)].tolist()
        window = self._windows[scene]
        center_row = row * self._cell + rng.integers(self._cell)
        center_col = col * self._cell + rng.integers(self._cell)
        row_off = window.row_off + _inside(int(center_row) - side // 2, side, window.height)
        col_off = window.col_off + _inside(int(center_col) - side // 2, side, window.width)
        return TilePlace(scene, Window(col_off, row_off, side, side))

    def rng(self, number: int) -> np.random.Generator:
        """The generator of tile ``number``: of its place, and of its augmentation."""
        return np.random.default_rng([self._seed, number])


class TileReader:
    """Reads tiles; keeps the scenes open. One a thread."""

    def __init__(self, scenes: Sequence[TrainingScene], label_map: LabelMap) -> None:
        self._scenes = scenes
        self._label_map = label_map
        self._open: OrderedDict[tuple[object, ...], tuple[SceneReader, LabelReader]] = OrderedDict()

    def read(self, place: TilePlace) -> Tile:
        """Read a tile. What lies outside the scene's window or is not valid has no label.

        Raises:
            SceneReadError: Image or label is damaged.
        """
        scene = self._scenes[place.scene]
        image, label = self._files(scene)
        values, valid = read_padded(image, place.window, scene.bands)
        ids = np.full(valid.shape, IGNORE_INDEX, np.uint8)
        labelled = place.window.intersection(scene.window)
        if labelled is not None:
            ids[labelled.relative_to(place.window).slices] = label.read(labelled)
        ids[~valid] = IGNORE_INDEX
        return Tile(values, valid, ids)

    def _files(self, scene: TrainingScene) -> tuple[SceneReader, LabelReader]:
        """The open files of a scene, which other parts of the same image share."""
        key = scene.image, scene.label, scene.nodata
        if key not in self._open:
            opened = open_scene(scene.image, scene.nodata)
            self._open[key] = opened, LabelReader(scene.label, self._label_map, opened.info)
            if len(self._open) > _OPEN_SCENES:
                for file in self._open.popitem(last=False)[1]:
                    file.close()
        self._open.move_to_end(key)
        return self._open[key]

    def close(self) -> None:
        """Close the scenes."""
        for image, label in self._open.values():
            image.close()
            label.close()
        self._open.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _cumulative(weights: NDArray[np.generic]) -> NDArray[np.float64]:
    total = np.cumsum(weights, dtype=np.float64)
    return total / total[-1]


def _draw(cumulative: NDArray[np.float64], rng: np.random.Generator) -> int:
    return int(np.searchsorted(cumulative, rng.random(), side="right"))


def _inside(offset: int, side: int, size: int) -> int:
    """The offset moved so that the tile lies inside; a tile larger than the scene is centred on it."""
    if side >= size:
        return (size - side) // 2
    return min(max(offset, 0), size - side)
