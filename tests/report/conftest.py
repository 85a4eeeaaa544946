"""Scenes and runs made from arrays of class ids."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from segbatch.classes import IGNORE_INDEX, NODATA, ClassTable
from segbatch.report import RunSummary, SceneResult


@pytest.fixture(scope="session")
def make_scene() -> Callable[..., SceneResult]:
    """A function that counts a class mask, and a label if there is one, pixel by pixel."""
    return _make_scene


@pytest.fixture(scope="session")
def make_failed_scene() -> Callable[..., SceneResult]:
    """A function that makes a scene that failed, with counts that must not be used."""
    return _make_failed_scene


@pytest.fixture(scope="session")
def make_unfinished_scene(make_failed_scene: Callable[..., SceneResult]) -> Callable[..., SceneResult]:
    """A function that makes a scene of a run that was stopped, with counts that must not be used."""
    return lambda scene_id, left: replace(make_failed_scene(scene_id, "-"), error=None, left=left)


@pytest.fixture(scope="session")
def make_run() -> Callable[..., RunSummary]:
    """A function that makes a run of scenes."""
    return _make_run


@pytest.fixture(scope="session")
def random_ids() -> Callable[..., NDArray[np.uint8]]:
    """A function that draws class ids."""

    def draw(seed: int, ids: Sequence[int], shape: tuple[int, int] = (40, 50)) -> NDArray[np.uint8]:
        return np.random.default_rng(seed).choice(np.array(ids, np.uint8), shape)

    return draw


def _make_scene(
    mask: NDArray[np.uint8],
    label: NDArray[np.uint8] | None = None,
    *,
    num_classes: int = 3,
    scene_id: str = "scene",
    group: str | None = None,
    image: str = "absent/image.tif",
    label_path: str | None = None,
    mask_path: str | None = None,
    pixel_area_m2: float | None = None,
    pixel_size_um: float | None = None,
) -> SceneResult:
    confusion, ignored = None, 0
    if label is not None:
        confusion = np.zeros((num_classes, num_classes), np.int64)
        both = (mask != NODATA) & (label != IGNORE_INDEX)
        np.add.at(confusion, (label[both], mask[both]), 1)
        ignored = int(((mask != NODATA) & (label == IGNORE_INDEX)).sum())
    return SceneResult(
        id=scene_id,
        group=group,
        image=image,
        label=label_path,
        mask=mask_path,
        width=mask.shape[1],
        height=mask.shape[0],
        pixel_area_m2=pixel_area_m2,
        pixel_size_um=pixel_size_um,
        class_pixels=tuple(int((mask == index).sum()) for index in range(num_classes)),
        nodata_pixels=int((mask == NODATA).sum()),
        ignored_pixels=ignored,
        confusion=confusion,
        error=None,
    )


def _make_failed_scene(scene_id: str, error: str, num_classes: int = 3, group: str | None = None) -> SceneResult:
    return SceneResult(
        id=scene_id,
        group=group,
        image=f"absent/{scene_id}.tif",
        label=None,
        mask=None,
        width=1000,
        height=1000,
        pixel_area_m2=None,
        pixel_size_um=None,
        class_pixels=(77,) * num_classes,
        nodata_pixels=5,
        ignored_pixels=3,
        confusion=np.full((num_classes, num_classes), 99, np.int64),
        error=error,
    )


def _make_run(
    scenes: Sequence[SceneResult], names: Sequence[str] = ("water", "forest", "road"), **more: Any
) -> RunSummary:
    return RunSummary(
        name=more.pop("name", "trial"),
        classes=ClassTable.from_items([(name, None) for name in names]),
        scenes=tuple(scenes),
        **more,
    )
