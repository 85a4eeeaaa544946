"""The engine in one process: what blocks are made of leaves no trace, and errors come through."""

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segbatch.classes import ClassTable, LabelMap
from segbatch.errors import SegbatchError
from segbatch.geometry import BlockGrid
from segbatch.inference import watch
from segbatch.inference.files import BlockWriter
from segbatch.inference.finish import finish_scene
from segbatch.inference.inline import run_inline
from segbatch.inference.ledger import LedgerRow, read_ledger
from segbatch.inference.plan import ScenePlan, plan_scene
from segbatch.inference.settings import Settings
from segbatch.inference.stages import ReadStage
from segbatch.inference.work import Work
from segbatch.masks import read_window
from segbatch.models.bundle import Bundle
from segbatch.models.card import Card
from segbatch.scenes import SceneRef, open_scene

CLASSES = ClassTable.from_items([(f"class {index}", None) for index in range(5)])


@pytest.fixture(autouse=True)
def bundle(monkeypatch: pytest.MonkeyPatch, exact_net: torch.nn.Module) -> None:
    """Any bundle is the network whose logits are exact."""
    card = Card(CLASSES, ("", ""), "uint8", (0.0, 0.0), (1.0, 1.0), 8, 8, LabelMap(5))
    monkeypatch.setattr("segbatch.inference.load.load_bundle", lambda folder: Bundle(exact_net, card))


def make_plan(image: str, core: int, block: int, settings: Settings) -> ScenePlan:
    """A scene by blocks of ``block`` x ``block`` cores."""
    with open_scene(image) as reader:
        info = reader.info
    plan = plan_scene(
        SceneRef("a", image), info, (1, 2), stride=8, core=core, halo=8, window_pixels=1, block_bytes=1,
        settings=settings, num_classes=5,
    )  # fmt: skip
    return replace(plan, grid=BlockGrid(plan.grid.lattice, block, block, plan.grid.overlapping))


def work_for(folder: Path, plan: ScenePlan, settings: Settings) -> Work:
    (folder / "ledger").mkdir(parents=True)
    pending = np.array([(0, block) for block in range(len(plan.grid))], np.int64)
    files = BlockWriter(folder, ("cog", "zarr"), "mode", CLASSES, settings.products)
    return Work((plan,), pending, "unused", files, str(folder / "ledger"), LabelMap(5), settings)


@pytest.mark.parametrize("settings", [Settings(), Settings(blend="gaussian", products=("confidence",), batch_size=2)])
def test_the_size_of_blocks_changes_no_byte(
    tmp_path: Path, make_raster: Callable[..., str], settings: Settings
) -> None:
    """Neither of the pixels in the stores nor of the COGs: blocks of 1, 2 x 2 and 4 x 4 cores of 1024."""
    values = np.random.default_rng(0).integers(0, 16, (2, 1300, 2200), dtype=np.uint8)
    values[:, 200:1100, 900:1500] = 0
    image = make_raster(tmp_path / "a.tif", values, nodata=0, tiled=True, blockxsize=256, blockysize=256)

    def outcome(block: int) -> dict[str, Any]:
        folder = tmp_path / str(block)
        plan = make_plan(image, 1024, block, settings)
        work = work_for(folder, plan, settings)
        rows = list(run_inline(work, "cpu"))
        assert len(rows) == len(plan.grid) == {1: 6, 2: 2, 4: 1}[block]
        assert read_ledger(folder / "ledger") == {("a", row.block): row for row in rows}
        arrays = {
            name: read_window(folder / "a.zarr", plan.info.window, name).tobytes()
            for name in ("class_mask", *settings.products)
        }
        assert finish_scene(plan, work.files) == ""
        cogs = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.tif")}
        assert len(cogs) == len(arrays)
        return {"pixels": np.sum([row.class_pixels for row in rows], axis=0).tolist(), **arrays, **cogs}

    single = outcome(1)
    assert sum(count > 1000 for count in single["pixels"]) == 4
    for block in (2, 4):
        found = outcome(block)
        assert found.keys() == single.keys()
        assert [name for name in single if found[name] != single[name]] == []


def run(work: Work) -> list[LedgerRow]:
    return list(run_inline(work, "cpu"))


def test_rows_come_in_the_order_of_the_blocks(tmp_path: Path, make_raster: Callable[..., str]) -> None:
    image = make_raster(tmp_path / "a.tif", np.ones((2, 100, 100), np.uint8))
    work = work_for(tmp_path, make_plan(image, 32, 1, Settings()), Settings())
    shuffled = np.random.default_rng(0).permutation(work.pending)[:9]
    assert [row.block for row in run(replace(work, pending=shuffled))] == shuffled[:, 1].tolist()


@pytest.mark.parametrize("block", [0, 7, 15])
def test_a_file_that_cannot_be_written_ends_the_run(
    tmp_path: Path, make_raster: Callable[..., str], monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    """Blocks that were written before it are in the ledger."""
    image = make_raster(tmp_path / "a.tif", np.ones((2, 100, 100), np.uint8))
    work = work_for(tmp_path, make_plan(image, 32, 1, Settings()), Settings())
    write = BlockWriter.write

    def full(self: BlockWriter, scene: ScenePlan, number: int, arrays: Any) -> None:
        if number == block:
            raise SegbatchError("The disk is full.")
        write(self, scene, number, arrays)

    monkeypatch.setattr(BlockWriter, "write", full)
    with pytest.raises(SegbatchError, match="The disk is full"):
        run(work)
    done = {number for _, number in read_ledger(tmp_path / "ledger")}
    assert set(range(block)) <= done
    assert block not in done


def test_a_read_that_hangs_is_told_of_and_waited_for(
    tmp_path: Path, make_raster: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of an image on a server that does not answer."""
    image = make_raster(tmp_path / "a.tif", np.ones((2, 100, 100), np.uint8))
    work = work_for(tmp_path, make_plan(image, 32, 1, Settings()), Settings())
    told, lines = threading.Event(), []
    read = ReadStage.__call__

    def hang(self: ReadStage, scene: int, block: int) -> Any:
        assert block != 5 or told.wait(60)
        return read(self, scene, block)

    def tell(line: str) -> None:
        lines.append(line)
        if "reading block 5 of a for " in line:
            told.set()

    monkeypatch.setattr(ReadStage, "__call__", hang)
    monkeypatch.setattr(watch, "QUIET_SECONDS", 0.3)
    assert len(list(run_inline(work, "cpu", tell))) == 16
    assert lines[-1].startswith("  No block was done for ")


@pytest.fixture
def work(tmp_path: Path, make_raster: Callable[..., str]) -> Work:
    """A scene of 16 blocks."""
    image = make_raster(tmp_path / "a.tif", np.ones((2, 100, 100), np.uint8))
    work = work_for(tmp_path, make_plan(image, 32, 1, Settings()), Settings())
    work.attempts.mkdir()
    return work


def test_blocks_at_which_a_process_was_lost_come_last_and_each_alone(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    for block, attempts in ((3, "."), (7, "..."), (11, "..")):
        (work.attempts / f"map-a-{block}").write_text(attempts)
        os.utime(work.attempts / f"map-a-{block}", (block, block))
    together: dict[int, set[str]] = {}
    read = ReadStage.__call__

    def observe(self: ReadStage, scene: int, block: int) -> Any:
        together[block] = {path.name for path in work.attempts.glob("map-*")}
        return read(self, scene, block)

    monkeypatch.setattr(ReadStage, "__call__", observe)
    rows = run(work)
    sure = [block for block in range(16) if block not in (3, 7, 11)]
    assert [row.block for row in rows] == [*sure, 3, 7, 11]
    assert [row.block for row in rows if row.error] == [7]
    assert "block 7 was given up: 3 processes that were to map it were lost" in (rows[-2].error or "")
    assert list(together) == [*sure, 3, 11]
    assert together[3] == {"map-a-3", "map-a-7", "map-a-11"}
    # What was given up stays so until the command ends well.
    assert together[11] == {"map-a-7", "map-a-11"}
    assert [path.name for path in work.attempts.iterdir()] == ["map-a-7"]


@pytest.mark.parametrize("attempts", [2, 3])
def test_a_scene_of_which_nothing_is_ever_done_is_given_up(work: Work, attempts: int) -> None:
    for name in ("map-a-0", "map-a-1"):
        (work.attempts / name).write_text(".")
    (work.attempts / "begin-a-0").write_text("." * attempts)
    rows = run(work)
    assert {row.block for row in rows} == set(range(16))
    given_up = [row.block for row in rows if row.error and "3 processes that were to begin its scene" in row.error]
    assert len(given_up) == (16 if attempts == 3 else 0)
    # What was given up stays so until the command ends well.
    left = {"begin-a-0", "map-a-0", "map-a-1"} if attempts == 3 else set()
    assert {path.name for path in work.attempts.iterdir()} == left


def test_what_is_being_done_is_told_to_those_who_come_after_a_loss(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    known: list[set[str]] = []
    write = BlockWriter.write

    def observe(self: BlockWriter, scene: ScenePlan, number: int, arrays: Any) -> None:
        known.append({path.name for path in work.attempts.iterdir()})
        write(self, scene, number, arrays)

    monkeypatch.setattr(BlockWriter, "write", observe)
    run(work)
    for block, names in enumerate(known):
        assert f"map-a-{block}" in names
        assert len(names) <= 4
    assert list(work.attempts.iterdir()) == []
