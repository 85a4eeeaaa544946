"""Small labelled scenes and what training makes of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from segbatch.classes import LabelMap
from segbatch.geometry import Window
from segbatch.training.survey import Survey, Tally, TrainingScene, strips, survey_strip

MakeScene = Callable[..., TrainingScene]


@pytest.fixture
def make_scene(tmp_path: Path, make_raster: Callable[..., str]) -> MakeScene:
    """A function that writes an image (bands, height, width) and a label and gives the training scene."""

    def make(
        name: str,
        image: NDArray[Any],
        label: NDArray[Any],
        window: tuple[int, int, int, int] | None = None,
        bands: tuple[int, ...] | None = None,
        nodata: float | None = None,
        **profile: Any,
    ) -> TrainingScene:
        return TrainingScene(
            id=name,
            image=make_raster(tmp_path / f"{name}.tif", image, **profile),
            label=make_raster(tmp_path / f"{name}_label.tif", label),
            bands=bands or tuple(range(1, image.shape[0] + 1)),
            window=Window(*window) if window else Window(0, 0, image.shape[2], image.shape[1]),
            nodata=nodata,
        )

    return make


@pytest.fixture(scope="session")
def take_survey() -> Callable[..., Survey]:
    """A function that surveys scenes, strip after strip."""

    def take(scenes: tuple[TrainingScene, ...], cell: int, label_map: LabelMap) -> Survey:
        tally = Tally(scenes, cell, label_map.num_classes)
        for index, row in strips(scenes, cell):
            tally.add(survey_strip(scenes[index], index, row, cell, label_map))
        return tally.survey()

    return take


@pytest.fixture
def scene(make_scene: MakeScene) -> TrainingScene:
    """96 x 80 pixels of two classes that differ in colour."""
    rng = np.random.default_rng(5)
    label = np.kron(rng.integers(0, 2, (10, 12)), np.ones((8, 8))).astype(np.uint8)
    image = (np.stack([label * 100, 255 - label * 100, label * 0 + 50]) + rng.integers(0, 30, (3, 80, 96))).clip(0, 255)
    return make_scene("scene", image.astype(np.uint8), label)
