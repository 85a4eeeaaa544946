"""Validation against the prediction of whole images."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

import segbatch.training.validation as validation
from segbatch.classes import LabelMap
from segbatch.inference.predictor import Predictor
from segbatch.models.backends.forward import Forward
from segbatch.training.survey import TrainingScene
from segbatch.training.validation import validate

MakeScene = Callable[..., TrainingScene]
CLASSES, STRIDE, HALO = 3, 8, 16


@pytest.fixture
def model() -> torch.nn.Conv2d:
    """Sees one pixel at a time, so windows cannot matter."""
    torch.manual_seed(0)
    return torch.nn.Conv2d(2, CLASSES, 1)


@pytest.fixture(autouse=True)
def small_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many cores in a small scene."""
    monkeypatch.setattr(validation, "_WINDOW_PIXELS", (64 + 2 * HALO) ** 2)


def make_scenes(make_scene: MakeScene) -> tuple[list[TrainingScene], list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]]:
    rng = np.random.default_rng(0)
    scenes, arrays = [], []
    for index, (height, width, window) in enumerate(
        [(150, 202, (0, 0, 202, 150)), (130, 164, (13, 22, 140, 91)), (20, 9, (0, 0, 9, 20))]
    ):
        image = rng.integers(1, 255, (2, height, width)).astype(np.uint8)
        image[:, : height // 3, : width // 3] = 0
        label = rng.integers(0, CLASSES, (height, width)).astype(np.uint8)
        label[rng.random(label.shape) < 0.1] = 255
        scenes.append(make_scene(f"v{index}", image, label, window, nodata=0))
        rows, cols = scenes[-1].window.slices
        arrays.append((image[:, rows, cols], label[rows, cols]))
    return scenes, arrays


MEAN, STD = (120.0, 110.0), (60.0, 70.0)


def expected(model: torch.nn.Module, image: np.ndarray, label: np.ndarray) -> np.ndarray:
    valid = (image != 0).any(axis=0)
    pixels = (image.astype(np.float32) - np.float32(MEAN)[:, None, None]) / np.float32(STD)[:, None, None]
    with torch.inference_mode():
        predicted = model(torch.from_numpy(np.where(valid, pixels, 0))[None]).argmax(dim=1)[0].numpy()
    counted = valid & (label != 255)
    return confusion_matrix(label[counted], predicted[counted], labels=range(CLASSES))


def test_the_confusion_is_that_of_whole_images(make_scene: MakeScene, model: torch.nn.Conv2d) -> None:
    scenes, arrays = make_scenes(make_scene)
    predictor = Predictor(Forward(model, MEAN, STD))
    found = validate(predictor, scenes, LabelMap(CLASSES), stride=STRIDE, halo=HALO)
    wanted = sum(expected(model, *pair) for pair in arrays)
    assert found.dtype == np.int64
    assert found.tolist() == wanted.tolist()
    assert found.sum() > 5000


@pytest.mark.parametrize("count", [2, 3, 50])
def test_the_parts_of_the_workers_add_up(make_scene: MakeScene, model: torch.nn.Conv2d, count: int) -> None:
    scenes, _ = make_scenes(make_scene)
    predictor = Predictor(Forward(model, MEAN, STD))

    def part(index: int, count: int) -> NDArray[np.int64]:
        return validate(predictor, scenes, LabelMap(CLASSES), stride=STRIDE, halo=HALO, part=(index, count))

    parts = [part(index, count) for index in range(count)]
    assert np.array_equal(np.sum(parts, axis=0), part(0, 1))
    if count < 10:
        assert all(matrix.sum() > 0 for matrix in parts)


def test_pixels_around_a_scenes_window_are_not_seen(make_scene: MakeScene) -> None:
    """A model that looks 8 pixels to the left would tell: what is outside the window may be what it was trained on."""
    looks_left = torch.nn.Conv2d(1, 2, (1, 17), padding=(0, 8), bias=False)
    with torch.no_grad():
        looks_left.weight.zero_()
        looks_left.weight[1, 0, 0, 0] = 1.0
    image = np.ones((1, 32, 64), np.uint8)
    image[:, :, :20] = 3
    label = np.zeros((32, 64), np.uint8)
    scene = make_scene("context", image, label, (20, 0, 32, 32))
    predictor = Predictor(Forward(looks_left, (2.0,), (1.0,)))
    found = validate(predictor, [scene], LabelMap(2), stride=8, halo=16)
    # Columns 20 to 27 would look at columns 12 to 19.
    assert found.tolist() == [[32 * 32, 0], [0, 0]]
