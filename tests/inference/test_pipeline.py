"""The engine on Ray gives what the stages give by themselves, and says in a line what went wrong."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import ray
import ray.data
from numpy.typing import NDArray

from segbatch.classes import LabelMap
from segbatch.errors import SegbatchError
from segbatch.inference.inline import run_inline
from segbatch.inference.ledger import LedgerRow, read_ledger
from segbatch.inference.pipeline import Pool, map_items, run_ray
from segbatch.inference.plan import ScenePlan, plan_scene
from segbatch.inference.work import Work
from segbatch.masks import create_store
from segbatch.models.card import read_card
from segbatch.scenes import SceneRef, open_scene

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

POOL = Pool(min=1, max=1, cpus=0.5, use_gpu=False, threads=1)


@pytest.fixture
def scenes(
    tmp_path: Path, make_raster: Callable[..., str], paint: Callable[..., NDArray[np.uint8]]
) -> tuple[ScenePlan, ...]:
    """A scene with an empty corner and a label, and one that is damaged in its last tiles."""
    images = {"good": paint(150, 200, 1), "cut": paint(140, 140, 2)}
    images["good"][:, :70, :70] = 0
    label = make_raster(tmp_path / "label.tif", np.random.default_rng(0).integers(0, 4, (150, 200), np.uint8))
    plans = []
    for name, values in images.items():
        path = make_raster(tmp_path / f"{name}.tif", values, nodata=0, tiled=True, blockxsize=32, blockysize=32)
        if name == "cut":
            content = Path(path).read_bytes()
            Path(path).write_bytes(content[: len(content) * 9 // 10])
        with open_scene(path) as reader:
            info = reader.info
        ref = SceneRef(name, path, label=label if name == "good" else None)
        plans.append(plan_scene(ref, info, (1, 2, 3), stride=8, core=64, halo=16, block_bytes=64 * 64 * 3))
    return tuple(plans)


def work_for(folder: Path, scenes: tuple[ScenePlan, ...], bundle: Path) -> Work:
    (folder / "ledger").mkdir(parents=True)
    classes = read_card(bundle).classes
    for plan in scenes:
        create_store(
            folder / f"{plan.id}.zarr",
            width=plan.info.width,
            height=plan.info.height,
            shard=plan.shard,
            chunk=plan.chunk,
            classes=classes,
            crs=None,
            transform=plan.info.transform,
            pixel_size_um=None,
        )
    pending = np.array([(i, b) for i, plan in enumerate(scenes) for b in range(len(plan.grid))], np.int64)
    return Work(scenes, pending, str(bundle), str(folder), str(folder / "ledger"), LabelMap(4), 2)


def files(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.endswith(".jsonl")}


def what(row: LedgerRow) -> tuple[object, ...]:
    return row.checksum, row.class_pixels, row.nodata_pixels, row.ignored_pixels, row.confusion, row.windows, row.error


def test_ray_and_inline_give_the_same_bytes_and_rows(
    tmp_path: Path, scenes: tuple[ScenePlan, ...], tiny_bundle: Path
) -> None:
    work = {name: work_for(tmp_path / name, scenes, tiny_bundle) for name in ("inline", "ray")}
    rows = {
        "inline": list(run_inline(work["inline"], "cpu")),
        "ray": list(run_ray(work["ray"], Pool(min=1, max=2, cpus=0.5, use_gpu=False, threads=1))),
    }
    assert files(tmp_path / "inline") == files(tmp_path / "ray")
    by_block = {name: {(row.scene, row.block): row for row in found} for name, found in rows.items()}
    assert {key: what(row) for key, row in by_block["inline"].items()} == {
        key: what(row) for key, row in by_block["ray"].items()
    }
    assert read_ledger(tmp_path / "ray" / "ledger") == by_block["ray"]
    assert len(rows["ray"]) == len(work["ray"].pending)
    assert by_block["ray"]["good", 0].windows == 0
    failed = [key for key, row in by_block["ray"].items() if row.error]
    assert failed
    assert {scene for scene, _ in failed} == {"cut"}
    for row in rows["ray"]:
        assert set(row.seconds) == {"read", "wait", "predict", "forward", "write"}


def test_a_bundle_that_cannot_be_loaded_is_said_in_a_line(
    tmp_path: Path, scenes: tuple[ScenePlan, ...], tiny_bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    work = work_for(tmp_path / "run", scenes, tiny_bundle)
    damaged = Work(
        work.scenes, work.pending, str(tmp_path / "nowhere"), work.masks, work.ledger, work.label_map, work.batch_size
    )
    with pytest.raises(SegbatchError, match=r"The bundle .*nowhere does not exist\.$"):
        list(run_ray(damaged, POOL))
    assert "Traceback" not in "".join(capfd.readouterr())
    assert read_ledger(tmp_path / "run" / "ledger") == {}


def test_a_file_that_cannot_be_written_ends_the_run_in_a_line(
    tmp_path: Path, scenes: tuple[ScenePlan, ...], tiny_bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    work = work_for(tmp_path / "run", scenes, tiny_bundle)
    (tmp_path / "run" / "good.zarr" / "class_mask" / "c").write_bytes(b"in the way")
    with pytest.raises(SegbatchError, match=r"good\.zarr\S* cannot be written"):
        list(run_ray(work, POOL))
    assert "Traceback" not in "".join(capfd.readouterr())


def test_items_are_mapped_once_each() -> None:
    before = ray.data.DataContext.get_current().enable_progress_bars
    assert sorted(map_items(lambda item: f"<{item}>", [3, 1, 2])) == ["<1>", "<2>", "<3>"]
    assert ray.data.DataContext.get_current().enable_progress_bars == before


def test_an_unexpected_error_is_told_by_its_last_line() -> None:
    def fail(item: int) -> str:
        raise ZeroDivisionError(f"item {item}")

    with pytest.raises(SegbatchError, match=r"The work failed on Ray: ZeroDivisionError: item 5$"):
        list(map_items(fail, [5]))
