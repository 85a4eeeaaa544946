"""Validation by the inference engine's own predictor, so that it and mapping give the same figures."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segbatch.classes import IGNORE_INDEX, LabelMap
from segbatch.evaluation import confusion_matrix
from segbatch.geometry import BlockGrid, Lattice, Window, fit_core
from segbatch.inference.predictor import Predictor
from segbatch.scenes import LabelReader, Pixels, SceneReader, open_scene
from segbatch.scenes.scene import read_padded
from segbatch.training.survey import TrainingScene

_WINDOW_PIXELS = 1152**2
"""Most pixels of a window: the training's own state is in memory beside it."""


def validate(
    predictor: Predictor,
    scenes: Sequence[TrainingScene],
    label_map: LabelMap,
    *,
    stride: int,
    halo: int,
    part: tuple[int, int] = (0, 1),
) -> NDArray[np.int64]:
    """The confusion matrix over the scenes' windows.

    Args:
        predictor: The model.
        scenes: Where to predict.
        label_map: From label values to class ids.
        stride: Of the model.
        halo: Context pixels, of the scene's window alone: what is outside is for training.
        part: (index, count): every ``count``-th core from ``index`` on, to share the work between workers.
    """
    total = np.zeros((label_map.num_classes, label_map.num_classes), np.int64)
    number = 0
    for scene in scenes:
        crop = scene.window
        core = fit_core(crop.width, crop.height, halo=halo, stride=stride, window_pixels=_WINDOW_PIXELS)
        lattice = Lattice(crop.width, crop.height, core[1], core[0], halo)
        with (
            open_scene(scene.image, scene.nodata) as image,
            LabelReader(scene.label, label_map, image.info) as label,
        ):
            grid = BlockGrid(lattice, 1, 1)
            for block in grid:
                number += 1
                if number % part[1] != part[0]:
                    continue
                values, valid = read_within(image, block.read, crop, scene.bands)
                mask = predictor.predict(values, valid, grid.tiling(block), kept=block.kept).mask
                ids = label.read(block.owned.shifted(crop.col_off, crop.row_off))
                ids[~valid[block.kept.slices]] = IGNORE_INDEX
                total += confusion_matrix(ids, mask, label_map.num_classes)
    return total


def read_within(image: SceneReader, window: Window, crop: Window, bands: Sequence[int]) -> Pixels:
    """Read a window of a part of a scene; what is outside of the part is not valid.

    Args:
        image: The scene.
        window: In pixels of the part. It has some of them, and may reach beyond.
        crop: The part.
        bands: 1-based band numbers.
    """
    values, valid = read_padded(image, window.shifted(crop.col_off, crop.row_off), bands)
    within = window.intersection(Window(0, 0, crop.width, crop.height))
    assert within is not None
    outside = np.ones(valid.shape, bool)
    outside[within.relative_to(window).slices] = False
    valid[outside] = False
    return Pixels(values, valid)
