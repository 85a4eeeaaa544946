"""The last step of a scene, also after kills."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from segbatch.classes import ClassTable
from segbatch.geometry import Window
from segbatch.inference.finish import Format, finish_scene, is_finished, mask_path
from segbatch.inference.plan import ScenePlan, plan_scene
from segbatch.masks import create_store, write_block
from segbatch.scenes import SceneInfo, SceneRef

CLASSES = ClassTable.from_items([("water", None), ("land", None)])
MASK = np.random.default_rng(0).choice(np.array([0, 1, 255], np.uint8), (96, 130))


@pytest.fixture
def scene(tmp_path: Path) -> ScenePlan:
    """A plan whose store is written; its masks are in ``tmp_path``."""
    info = SceneInfo("a.tif", 130, 96, "uint8", ("",), None, None, None, Affine.identity(), 1, 1)
    plan = plan_scene(SceneRef("a", "a.tif"), info, (1,), stride=8, core=64, halo=0, block_bytes=1)
    create_store(
        tmp_path / "a.zarr",
        width=130,
        height=96,
        shard=plan.shard,
        chunk=plan.chunk,
        classes=CLASSES,
        crs=None,
        transform=Affine.identity(),
        pixel_size_um=None,
    )
    for block in plan.grid:
        write_block(tmp_path / "a.zarr", block.owned, MASK[block.owned.slices])
    return plan


def finish(scene: ScenePlan, masks: Path, formats: Sequence[Format]) -> str:
    return finish_scene(scene, masks, classes=CLASSES, formats=formats, overviews="mode")


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    ("formats", "expected"),
    [
        (["cog"], ["a.tif", "a.tif.aux.xml"]),
        (["zarr"], ["a.zarr"]),
        (["cog", "zarr"], ["a.tif", "a.tif.aux.xml", "a.zarr"]),
    ],
)
def test_the_files_that_are_wanted_are_there(
    scene: ScenePlan, tmp_path: Path, formats: list[Any], expected: list[str]
) -> None:
    assert is_finished(tmp_path, "a", formats) == (formats == ["zarr"])
    assert finish(scene, tmp_path, formats) == ""
    assert names(tmp_path) == expected
    assert is_finished(tmp_path, "a", formats)
    assert mask_path(tmp_path, "a", formats).exists()
    if "cog" in formats:
        with rasterio.open(tmp_path / "a.tif") as dataset:
            np.testing.assert_array_equal(dataset.read(1), MASK)


def test_finishing_twice_changes_nothing(scene: ScenePlan, tmp_path: Path) -> None:
    finish(scene, tmp_path, ["cog", "zarr"])
    before = (tmp_path / "a.tif").stat()
    assert finish(scene, tmp_path, ["cog", "zarr"]) == ""
    assert (tmp_path / "a.tif").stat().st_mtime_ns == before.st_mtime_ns


def test_a_kill_between_cog_and_removal_of_the_store(scene: ScenePlan, tmp_path: Path) -> None:
    finish(scene, tmp_path, ["cog", "zarr"])
    assert not is_finished(tmp_path, "a", ["cog"])
    assert finish(scene, tmp_path, ["cog"]) == ""
    assert names(tmp_path) == ["a.tif", "a.tif.aux.xml"]


def test_an_earlier_cog_is_no_obstacle(scene: ScenePlan, tmp_path: Path) -> None:
    finish(scene, tmp_path, ["cog", "zarr"])
    assert is_finished(tmp_path, "a", ["zarr"])


def test_what_killed_writers_left_is_removed(scene: ScenePlan, tmp_path: Path) -> None:
    (tmp_path / "a.zarr" / "class_mask" / "c" / "0" / f"1.{'0' * 32}.partial").write_bytes(b"half")
    for target in ("a.zarr", "a.tif"):
        (tmp_path / f".{target}.{'0' * 32}.partial").mkdir()
    finish(scene, tmp_path, ["cog", "zarr"])
    assert not list(tmp_path.rglob("*.partial")) + list(tmp_path.rglob(".*.partial"))


def test_a_damaged_shard_is_said(scene: ScenePlan, tmp_path: Path) -> None:
    shard = tmp_path / "a.zarr" / "class_mask" / "c" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-5] + b"wrong")
    problem = finish(scene, tmp_path, ["cog", "zarr"])
    assert "a.zarr is damaged" in problem
    assert "\n" not in problem
    assert names(tmp_path) == ["a.zarr"]
    write_block(tmp_path / "a.zarr", Window(0, 0, 64, 64), MASK[:64, :64])
    assert finish(scene, tmp_path, ["cog", "zarr"]) == ""
