"""What a write task leaves of a block."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from numpy.typing import NDArray

from segbatch.classes import ClassTable
from segbatch.errors import SegbatchError
from segbatch.inference.files import BlockWriter, MaskFiles, cog_path, drop_parts, parts_path, store_path
from segbatch.inference.plan import ScenePlan, plan_scene
from segbatch.inference.settings import Settings
from segbatch.masks import create_store, part_path, read_window
from segbatch.masks.parts import open_part
from segbatch.scenes import SceneInfo, SceneRef

CLASSES = ClassTable.from_items([("water", None), ("land", None), ("ice", None)])
NAMES = ("class_mask", "confidence", "probabilities")


def make_arrays() -> dict[str, NDArray[np.uint8]]:
    """Class mask and products of a scene; the block in the middle is nodata."""
    random = np.random.default_rng(0)
    mask = random.choice(np.array([0, 1, 2, 255], np.uint8), (96, 130))
    mask[64:, 64:128] = 255
    probabilities = random.integers(0, 255, (3, 96, 130)).astype(np.uint8)
    probabilities[:, mask == 255] = 255
    return {"class_mask": mask, "confidence": probabilities.max(axis=0), "probabilities": probabilities}


ARRAYS = make_arrays()
EMPTY = 4
"""The number of the block that is nodata."""


def make_plan(scene_id: str = "a") -> ScenePlan:
    info = SceneInfo("a.tif", 130, 96, "uint8", ("",), None, None, None, Affine.identity(), 1, 1)
    settings = Settings(products=("confidence", "probabilities"))
    return plan_scene(
        SceneRef(scene_id, "a.tif"), info, (1,), stride=8, core=64, halo=0, window_pixels=64 * 64, block_bytes=1,
        settings=settings, num_classes=3,
    )  # fmt: skip


SCENE = make_plan()


def make_writer(masks: Path, formats: Sequence[Any], overviews: Any = "mode") -> BlockWriter:
    """A writer whose store is there."""
    create_store(
        store_path(masks, "a"), width=130, height=96, shard=SCENE.shard, chunk=SCENE.chunk, classes=CLASSES, crs=None,
        transform=Affine.identity(), pixel_size_um=None, products=("confidence", "probabilities"),
    )  # fmt: skip
    return BlockWriter(masks, formats, overviews, CLASSES)


def block_of(number: int) -> dict[str, NDArray[np.uint8]]:
    return {name: pixels[(..., *SCENE.grid[number].owned.slices)] for name, pixels in ARRAYS.items()}


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def shard_path(masks: Path, name: str, number: int) -> Path:
    block = SCENE.grid[number]
    bands = ["0"] if name == "probabilities" else []
    return masks.joinpath("a.zarr", name, "c", *bands, str(block.row), str(block.col))


def test_the_scene_has_six_blocks() -> None:
    assert len(SCENE.grid) == 6
    assert SCENE.shard == (64, 64)
    assert (block_of(EMPTY)["class_mask"] == 255).all()


def test_paths() -> None:
    masks = Path("masks")
    assert store_path(masks, "a") == masks / "a.zarr"
    assert cog_path(masks, "a") == masks / "a.tif"
    assert cog_path(masks, "a", "confidence") == masks / "confidence" / "a.tif"
    assert len({parts_path(masks, scene, name) for scene in "ab" for name in NAMES}) == 6


def test_a_block_leaves_a_shard_and_a_part_of_each_array(tmp_path: Path) -> None:
    writer = make_writer(tmp_path, ["cog"])
    before = set(files_of(tmp_path))
    writer.write(SCENE, 2, block_of(2))
    left = set(files_of(tmp_path)) - before
    expected = [shard_path(tmp_path, name, 2) for name in NAMES]
    expected += [part_path(parts_path(tmp_path, "a", name), 0, 2) for name in NAMES]
    assert left == {str(path.relative_to(tmp_path)) for path in expected}
    for name, pixels in block_of(2).items():
        np.testing.assert_array_equal(read_window(tmp_path / "a.zarr", SCENE.grid[2].owned, name), pixels)
        part = open_part(parts_path(tmp_path, "a", name), writer.pyramid(SCENE, name), 0, 2)
        assert part.counts(0).all()


def test_without_cogs_there_are_no_parts(tmp_path: Path) -> None:
    writer = make_writer(tmp_path, ["zarr"])
    for number in range(6):
        writer.write(SCENE, number, block_of(number))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zarr"]
    assert not MaskFiles(tmp_path).has_parts("a")


def test_a_block_of_nodata_leaves_nothing(tmp_path: Path) -> None:
    writer = make_writer(tmp_path, ["cog", "zarr"])
    before = files_of(tmp_path)
    writer.write(SCENE, EMPTY, block_of(EMPTY))
    assert files_of(tmp_path) == before


def test_a_block_that_became_nodata_takes_its_files_along(tmp_path: Path) -> None:
    writer = make_writer(tmp_path, ["cog", "zarr"])
    before = files_of(tmp_path)
    full = {name: np.zeros_like(pixels) for name, pixels in block_of(EMPTY).items()}
    writer.write(SCENE, EMPTY, full)
    assert len(files_of(tmp_path)) == len(before) + 6
    writer.write(SCENE, EMPTY, block_of(EMPTY))
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("formats", [["cog"], ["zarr"], ["cog", "zarr"]])
def test_writing_again_gives_the_same_bytes(tmp_path: Path, formats: list[str]) -> None:
    once, again = make_writer(tmp_path / "once", formats), make_writer(tmp_path / "again", formats)
    for number in range(6):
        once.write(SCENE, number, block_of(number))
    for number in (5, 0, 3, 3, 4, 1, 2, 0, 5):
        again.write(SCENE, number, block_of(number))
    assert files_of(tmp_path / "once") == files_of(tmp_path / "again")


def test_a_copy_in_another_process_writes_the_same(tmp_path: Path) -> None:
    writer = make_writer(tmp_path, ["cog"])
    writer.write(SCENE, 0, block_of(0))
    before = files_of(tmp_path)
    pickle.loads(pickle.dumps(writer)).write(pickle.loads(pickle.dumps(SCENE)), 0, block_of(0))
    assert files_of(tmp_path) == before


def test_a_block_without_products_writes_the_class_mask_alone(tmp_path: Path) -> None:
    writer = make_writer(tmp_path, ["cog"])
    writer.write(SCENE, 0, {"class_mask": block_of(0)["class_mask"]})
    assert [entry.name for entry in (tmp_path / ".parts" / "a").iterdir()] == ["class_mask"]


def test_pyramids_are_those_of_the_products(tmp_path: Path) -> None:
    writer = BlockWriter(tmp_path, ["cog"], "nearest", CLASSES)
    found = {name: writer.pyramid(SCENE, name) for name in NAMES}
    assert {name: (pyramid.bands, pyramid.resampling) for name, pyramid in found.items()} == {
        "class_mask": (1, "nearest"),
        "confidence": (1, "average"),
        "probabilities": (3, "average"),
    }
    assert {(pyramid.width, pyramid.height, pyramid.block) for pyramid in found.values()} == {(130, 96, (64, 64))}
    assert writer.pyramid(make_plan("b"), "class_mask") is found["class_mask"]


def test_parts_of_other_scenes_stay(tmp_path: Path) -> None:
    writer = make_writer(tmp_path, ["cog"])
    writer.write(SCENE, 0, block_of(0))
    other = make_plan("b")
    writer.write_part(other, 0, "class_mask", block_of(0)["class_mask"])
    assert MaskFiles(tmp_path).has_parts("a")
    drop_parts(tmp_path, "a")
    assert not MaskFiles(tmp_path).has_parts("a")
    assert MaskFiles(tmp_path).has_parts("b")
    drop_parts(tmp_path, "b")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zarr"]
    drop_parts(tmp_path, "b")


@pytest.mark.parametrize("number", [0, EMPTY])
def test_a_part_that_cannot_be_written_is_named(tmp_path: Path, number: int) -> None:
    writer = make_writer(tmp_path, ["cog"])
    (tmp_path / ".parts").write_text("a file")
    with pytest.raises(SegbatchError, match=r"\.part cannot be (written|removed): "):
        writer.write(SCENE, number, block_of(number))


def test_pixels_that_do_not_fit_the_block_are_refused(tmp_path: Path) -> None:
    writer = make_writer(tmp_path, ["cog"])
    before = files_of(tmp_path)
    with pytest.raises(ValueError, match="are needed"):
        writer.write(SCENE, 2, block_of(0))
    assert files_of(tmp_path) == before


def test_which_files_there_are_is_seen_at_once(tmp_path: Path) -> None:
    """A store counts with the file that is written last and removed first."""
    for name in ("a.tif", "confidence/a.tif", "a.zarr/zarr.json", "b.zarr/class_mask/zarr.json", ".parts/b/class_mask"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = MaskFiles(tmp_path, ["confidence", "probabilities"])
    assert [found.has_cog("a", name) for name in ("class_mask", "confidence", "probabilities")] == [True, True, False]
    assert not found.has_cog("b")
    assert [(found.has_store(scene), found.has_remains(scene)) for scene in "abc"] == [
        (True, True),
        (False, True),
        (False, False),
    ]
    assert [found.has_parts(scene) for scene in "ab"] == [False, True]
    assert not MaskFiles(tmp_path / "nowhere").has_cog("a")
