"""The last step of a scene, also after kills."""

import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rio_cogeo.cogeo import cog_validate

from segbatch.classes import ClassTable
from segbatch.inference import finish as finish_module
from segbatch.inference.files import BlockWriter, MaskFiles, cog_path, parts_path
from segbatch.inference.finish import finish_scene, is_finished, mask_path, try_to_finish
from segbatch.inference.plan import ScenePlan, plan_scene
from segbatch.inference.settings import Product, Settings
from segbatch.masks import PartError, create_store, part_path, read_cog_classes, read_window
from segbatch.masks.pyramid import halved
from segbatch.scenes import SceneInfo, SceneRef

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

CLASSES = ClassTable.from_items([("water", None), ("land", None)])
UTM = CRS.from_epsg(32633).to_wkt()
NORTH_UP = Affine(0.6, 0, 399960.3, 0, -0.6, 5000040.7)
PRODUCTS: tuple[Product, ...] = ("confidence", "probabilities")
NAMES = ("class_mask", *PRODUCTS)
FORMATS: list[list[Any]] = [["cog"], ["zarr"], ["cog", "zarr"]]
EMPTY = 4
"""The number of the block that is nodata."""


def make_arrays() -> dict[str, NDArray[np.uint8]]:
    random = np.random.default_rng(0)
    mask = random.choice(np.array([0, 1, 255], np.uint8), (96, 130))
    mask[64:, 64:128] = 255
    probabilities = random.integers(0, 255, (2, 96, 130)).astype(np.uint8)
    probabilities[:, mask == 255] = 255
    return {"class_mask": mask, "confidence": probabilities.max(axis=0), "probabilities": probabilities}


ARRAYS = make_arrays()


def make_plan() -> ScenePlan:
    info = SceneInfo("a.tif", 130, 96, "uint8", ("",), None, None, UTM, NORTH_UP, 1, 1)
    return plan_scene(
        SceneRef("a", "a.tif"), info, (1,), stride=8, core=64, halo=0, window_pixels=64 * 64, block_bytes=1,
        settings=Settings(products=PRODUCTS), num_classes=2,
    )  # fmt: skip


SCENE = make_plan()


def make_writer(masks: Path, formats: Sequence[Any], overviews: Any = "mode") -> BlockWriter:
    return BlockWriter(masks, formats, overviews, CLASSES)


def write_all(
    masks: Path, formats: Sequence[Any], products: Sequence[str] = PRODUCTS, order: Sequence[int] = range(6)
) -> BlockWriter:
    """What the write tasks of a scene leave."""
    create_store(
        masks / "a.zarr", width=130, height=96, shard=SCENE.shard, chunk=SCENE.chunk, classes=CLASSES, crs=UTM,
        transform=NORTH_UP, pixel_size_um=None, products=products,
    )  # fmt: skip
    writer = make_writer(masks, formats)
    for number in order:
        window = SCENE.grid[number].owned.slices
        writer.write(SCENE, number, {name: ARRAYS[name][(..., *window)] for name in ("class_mask", *products)})
    return writer


def finish(writer: BlockWriter, products: Sequence[str] = PRODUCTS) -> str:
    return finish_scene(SCENE, replace(writer, products=products))


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def whole_files_of(folder: Path) -> dict[str, bytes]:
    """Without what killed processes leave for the next sweep."""
    return {name: content for name, content in files_of(folder).items() if ".partial" not in name}


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture(scope="module")
def cogs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the scene whose format is cog, by their names."""
    masks = tmp_path_factory.mktemp("cogs")
    assert finish(write_all(masks, ["cog"])) == ""
    return files_of(masks)


@pytest.mark.parametrize("formats", FORMATS)
def test_the_files_that_are_wanted_are_there(tmp_path: Path, formats: list[Any]) -> None:
    writer = write_all(tmp_path, formats, ())
    assert is_finished(MaskFiles(tmp_path), "a", formats) == (formats == ["zarr"])
    assert finish(writer, ()) == ""
    expected = {"cog": ["a.tif", "a.tif.aux.xml"], "zarr": ["a.zarr"]}
    assert names(tmp_path) == sorted(name for format_ in formats for name in expected[format_])
    assert is_finished(MaskFiles(tmp_path), "a", formats)
    assert mask_path(tmp_path, "a", formats).exists()


@pytest.mark.parametrize("formats", FORMATS)
def test_products_have_files_of_their_own(tmp_path: Path, formats: list[Any]) -> None:
    writer = write_all(tmp_path, formats)
    assert is_finished(MaskFiles(tmp_path, PRODUCTS), "a", formats, PRODUCTS) == (formats == ["zarr"])
    assert finish(writer) == ""
    assert is_finished(MaskFiles(tmp_path, PRODUCTS), "a", formats, PRODUCTS)
    cogs = {"a.tif", "a.tif.aux.xml", "confidence/a.tif", "probabilities/a.tif"} if "cog" in formats else set()
    assert {name for name in files_of(tmp_path) if not name.startswith("a.zarr/")} == cogs
    assert (tmp_path / "a.zarr").exists() == ("zarr" in formats)
    assert not (tmp_path / ".parts").exists()
    if "zarr" in formats:
        for name, pixels in ARRAYS.items():
            np.testing.assert_array_equal(read_window(tmp_path / "a.zarr", SCENE.grid.lattice.scene, name), pixels)


def test_cogs_say_what_their_pixels_are(tmp_path: Path) -> None:
    finish(write_all(tmp_path, ["cog"]))
    described = {
        "class_mask": ((None,), (1.0,)),
        "confidence": (("confidence",), (1 / 254,)),
        "probabilities": (CLASSES.names, (1 / 254, 1 / 254)),
    }
    for name, (descriptions, scales) in described.items():
        path = cog_path(tmp_path, "a", name)
        assert cog_validate(path, strict=True) == (True, [], [])
        with rasterio.open(path) as dataset:
            pixels = ARRAYS[name].reshape(-1, 96, 130)
            np.testing.assert_array_equal(dataset.read(), pixels)
            np.testing.assert_array_equal(dataset.read_masks() == 0, pixels == 255)
            assert dataset.nodatavals == (255,) * len(pixels)
            assert dataset.descriptions == descriptions
            assert dataset.scales == scales
            assert dataset.crs == CRS.from_wkt(UTM)
            assert dataset.transform == NORTH_UP
        assert read_cog_classes(path) == (CLASSES if name == "class_mask" else None)


@pytest.mark.parametrize("overviews", ["mode", "nearest"])
def test_overviews_of_class_masks_are_made_as_asked_and_those_of_products_are_means(
    tmp_path: Path, overviews: Any
) -> None:
    write_all(tmp_path, ["zarr"])
    assert finish(make_writer(tmp_path, ["cog"], overviews=overviews)) == ""
    for name, pixels in ARRAYS.items():
        with rasterio.open(cog_path(tmp_path, "a", name), overview_level=0) as dataset:
            expected = halved(pixels.reshape(-1, 96, 130), overviews if name == "class_mask" else "average")
            np.testing.assert_array_equal(dataset.read(), expected)


def test_finishing_twice_changes_nothing(tmp_path: Path) -> None:
    writer = write_all(tmp_path, ["cog", "zarr"])
    finish(writer)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert finish(writer) == ""
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_an_earlier_cog_is_no_obstacle(tmp_path: Path) -> None:
    finish(write_all(tmp_path, ["cog", "zarr"]))
    assert is_finished(MaskFiles(tmp_path, PRODUCTS), "a", ["zarr"], PRODUCTS)


def test_a_store_that_is_no_longer_wanted_goes(tmp_path: Path, cogs: dict[str, bytes]) -> None:
    finish(write_all(tmp_path, ["cog", "zarr"]))
    assert not is_finished(MaskFiles(tmp_path, PRODUCTS), "a", ["cog"], PRODUCTS)
    assert finish(make_writer(tmp_path, ["cog"])) == ""
    assert files_of(tmp_path) == cogs


def test_parts_that_are_no_longer_wanted_go(tmp_path: Path) -> None:
    write_all(tmp_path, ["cog"])
    assert not is_finished(MaskFiles(tmp_path, PRODUCTS), "a", ["zarr"], PRODUCTS)
    assert finish(make_writer(tmp_path, ["zarr"])) == ""
    assert names(tmp_path) == ["a.zarr"]
    assert is_finished(MaskFiles(tmp_path, PRODUCTS), "a", ["zarr"], PRODUCTS)


def test_a_product_that_is_missing_is_made(tmp_path: Path, cogs: dict[str, bytes]) -> None:
    finish(write_all(tmp_path, ["cog", "zarr"]))
    cog_path(tmp_path, "a", "confidence").unlink()
    assert is_finished(MaskFiles(tmp_path), "a", ["cog", "zarr"])
    assert not is_finished(MaskFiles(tmp_path, PRODUCTS), "a", ["cog", "zarr"], PRODUCTS)
    assert finish(make_writer(tmp_path, ["cog"])) == ""
    assert files_of(tmp_path) == cogs


def test_the_order_of_blocks_leaves_no_trace(tmp_path: Path, cogs: dict[str, bytes]) -> None:
    assert finish(write_all(tmp_path, ["cog"], order=(5, 4, 2, 0, 3, 1, 2))) == ""
    assert files_of(tmp_path) == cogs


@pytest.mark.parametrize("missing", [[0], [1, 5], [EMPTY], range(6)])
def test_parts_that_are_missing_are_made_from_shards(
    tmp_path: Path, missing: Sequence[int], cogs: dict[str, bytes]
) -> None:
    writer = write_all(tmp_path, ["cog"])
    for name in NAMES:
        for number in missing:
            block = SCENE.grid[number]
            part_path(parts_path(tmp_path, "a", name), block.row, block.col).unlink(missing_ok=number == EMPTY)
    assert finish(writer) == ""
    assert files_of(tmp_path) == cogs


def test_blocks_that_were_written_without_parts_give_the_same_cogs(tmp_path: Path, cogs: dict[str, bytes]) -> None:
    write_all(tmp_path, ["zarr"])
    assert not MaskFiles(tmp_path).has_parts("a")
    assert finish(make_writer(tmp_path, ["cog"])) == ""
    assert files_of(tmp_path) == cogs


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def emptied(_: bytes) -> bytes:
    return b""


def with_last_byte_flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def with_index_flipped(content: bytes) -> bytes:
    return content[:30] + bytes([content[30] ^ 1]) + content[31:]


@pytest.mark.parametrize("damage", [cut, emptied, with_last_byte_flipped, with_index_flipped])
@pytest.mark.parametrize("numbers", [[2], [0, 1, 3, 5]])
def test_parts_that_are_damaged_are_made_from_shards(
    tmp_path: Path, damage: Callable[[bytes], bytes], numbers: list[int], cogs: dict[str, bytes]
) -> None:
    writer = write_all(tmp_path, ["cog"])
    for name in NAMES:
        for number in numbers:
            block = SCENE.grid[number]
            file = part_path(parts_path(tmp_path, "a", name), block.row, block.col)
            file.write_bytes(damage(file.read_bytes()))
    assert finish(writer) == ""
    assert files_of(tmp_path) == cogs


def test_a_damaged_part_of_a_block_that_is_nodata_is_dropped(tmp_path: Path, cogs: dict[str, bytes]) -> None:
    writer = write_all(tmp_path, ["cog"])
    block = SCENE.grid[EMPTY]
    part_path(parts_path(tmp_path, "a"), block.row, block.col).write_bytes(b"no part")
    assert finish(writer) == ""
    assert files_of(tmp_path) == cogs


def test_parts_of_other_overviews_are_made_anew(tmp_path: Path) -> None:
    write_all(tmp_path / "a", ["cog"])
    write_all(tmp_path / "b", ["zarr"])
    for masks in (tmp_path / "a", tmp_path / "b"):
        assert finish(make_writer(masks, ["cog"], overviews="nearest")) == ""
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_a_part_that_cannot_be_made_whole_is_said_and_nothing_is_thrown_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = write_all(tmp_path, ["cog"])
    before = files_of(tmp_path)

    def damaged(*_: Any, **__: Any) -> None:
        raise PartError("0/1.part is damaged: its checksum differs", (0, 1))

    monkeypatch.setattr(finish_module, "write_cog", damaged)
    assert finish(writer) == "0/1.part is damaged: its checksum differs"
    assert files_of(tmp_path) == before


def test_a_damaged_shard_is_said_where_it_is_needed(tmp_path: Path, cogs: dict[str, bytes]) -> None:
    writer = write_all(tmp_path, ["cog"])
    shard = tmp_path / "a.zarr" / "class_mask" / "c" / "0" / "0"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-5] + b"wrong")
    part = part_path(parts_path(tmp_path, "a"), 0, 0)
    part.unlink()
    before = files_of(tmp_path)
    problem = finish(writer)
    assert "a.zarr is damaged" in problem
    assert "\n" not in problem
    assert files_of(tmp_path) == before
    writer.write(SCENE, 0, {"class_mask": ARRAYS["class_mask"][:64, :64]})
    assert finish(writer) == ""
    assert files_of(tmp_path) == cogs


def test_blocks_that_are_decoded_at_the_same_time_fit_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def ask(function: Any, things: Any, *, is_far: bool, at_once: int = 32) -> Any:
        asked.append(at_once)
        return map(function, things)

    writer = write_all(tmp_path, ["cog"], ())
    shutil.rmtree(parts_path(tmp_path, "a"))
    monkeypatch.setattr("segbatch.inference.finish.ask_ahead", ask)
    monkeypatch.setattr("segbatch.inference.finish._BYTES_AT_ONCE", 3 * math.prod(SCENE.shard))
    assert finish_scene(SCENE, writer) == ""
    assert asked == [3]


def test_a_full_disk_is_said_and_nothing_is_thrown_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = write_all(tmp_path, ["cog"])
    before = files_of(tmp_path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("segbatch.storage.staging.os.fsync", full)
    problem = finish(writer)
    assert "a.tif cannot be written: " in problem
    assert "No space left on device" in problem
    assert files_of(tmp_path) == before


def test_an_error_that_nobody_expected_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = write_all(tmp_path, ["cog"])

    def odd(*_: Any, **__: Any) -> None:
        raise ValueError("no such tile")

    monkeypatch.setattr(finish_module, "write_cog", odd)
    assert finish(writer) == "The files of a cannot be written: ValueError: no such tile"


def test_a_scene_that_has_cost_three_processes_is_given_up_and_tried_again_by_the_next_run(tmp_path: Path) -> None:
    writer = write_all(tmp_path, ["cog"])
    attempts = tmp_path / "attempts"
    attempts.mkdir()
    (attempts / "finish-a-0").write_bytes(b"...")
    problem = try_to_finish(SCENE, writer, str(attempts))
    assert problem.startswith("The files of a were not written: 3 processes that put them together were lost, for")
    assert try_to_finish(SCENE, writer, str(attempts)) == ""
    assert cog_path(writer.masks, "a").exists()
    assert list(attempts.iterdir()) == []


def test_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    writer = write_all(tmp_path, ["cog", "zarr"])
    for folder in ("a.zarr/class_mask/c/0", ".parts/a/class_mask/0"):
        (tmp_path / folder / f"1.{'0' * 32}.partial").write_bytes(b"half")
    finish(writer)
    assert not list(tmp_path.rglob("*.partial"))
    assert not (tmp_path / ".parts").exists()


class Killed(BaseException):
    """Stands for SIGKILL: from the given operation on, nothing happens to the file system any more."""


_OPERATIONS = ("replace", "rename", "unlink", "rmdir", "mkdir", "fsync")


class KillSwitch:
    """Counts what is done to the file system, and kills before an operation.

    Args:
        monkeypatch: pytest's.
        at: Number of the operation; None to only count.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int | None = None) -> None:
        self.at, self.count = at, 0
        for name in _OPERATIONS:
            monkeypatch.setattr(os, name, self._guarded(getattr(os, name)))

    def _guarded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*arguments: Any, **options: Any) -> Any:
            if self.at is not None and self.count >= self.at:
                raise Killed
            self.count += 1
            return function(*arguments, **options)

        return guarded


@pytest.mark.parametrize(
    ("formats", "parts", "products"),
    [
        (["cog"], "whole", ("confidence",)),
        (["cog"], "missing", ()),
        (["cog"], "damaged", ()),
        (["cog", "zarr"], "damaged", ("confidence",)),
        (["zarr"], "whole", ()),
    ],
)
def test_a_kill_at_any_step_is_made_good_by_the_next_call(
    tmp_path: Path, formats: list[Any], parts: str, products: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_all(tmp_path / "start", ["zarr"] if parts == "missing" else ["cog"], products)
    if parts == "damaged":
        file = part_path(parts_path(tmp_path / "start", "a"), 0, 1)
        file.write_bytes(with_last_byte_flipped(file.read_bytes()))

    def run(masks: Path, at: int | None) -> int:
        shutil.copytree(tmp_path / "start", masks)
        with monkeypatch.context() as patched:
            switch = KillSwitch(patched, at)
            if at is None:
                assert finish(make_writer(masks, formats), products) == ""
            else:
                with pytest.raises(Killed):
                    finish(make_writer(masks, formats), products)
        return switch.count

    steps = run(tmp_path / "clean", None)
    expected = files_of(tmp_path / "clean")
    assert steps > 5
    for at in range(steps):
        masks = tmp_path / str(at)
        run(masks, at)
        sound = whole_files_of(masks)
        if is_finished(MaskFiles(masks, products), "a", formats, products):
            assert sound == expected
        for name in sound.keys() & expected.keys():
            assert sound[name] == expected[name]  # what stands under its name is whole
        assert finish(make_writer(masks, formats), products) == ""
        assert whole_files_of(masks) == expected
        assert is_finished(MaskFiles(masks, products), "a", formats, products)
        shutil.rmtree(masks)
