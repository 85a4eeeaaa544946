"""The engine on Ray gives what the stages give by themselves, and says in a line what went wrong."""

import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import ray.data
import shapely
from numpy.typing import NDArray

from segbatch.classes import LabelMap
from segbatch.errors import InputError, SegbatchError
from segbatch.inference import pipeline, watch
from segbatch.inference.files import BlockWriter
from segbatch.inference.finish import finish_scene, try_to_finish
from segbatch.inference.inline import run_inline
from segbatch.inference.ledger import LedgerRow, read_ledger
from segbatch.inference.pipeline import call_once, map_items, run_ray
from segbatch.inference.plan import ScenePlan, plan_scene
from segbatch.inference.pool import Bounds, Pool
from segbatch.inference.settings import Settings
from segbatch.inference.work import Work
from segbatch.masks import read_window
from segbatch.models.card import read_card
from segbatch.scenes import SceneRef, open_scene
from segbatch.scenes.area import SceneArea

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

POOL = Pool(min=1, max=1, cpus=0.5, use_gpu=False, threads=1)
BOUNDS = Bounds(reads=2, bytes_in_flight=64 << 20)
ALL = Settings(blend="hann", tta="flips", products=("confidence", "probabilities"), batch_size=2)
"""Of everything something."""

MakeScenes = Callable[..., tuple[ScenePlan, ...]]


@pytest.fixture
def scenes(make_scenes: MakeScenes) -> tuple[ScenePlan, ...]:
    return make_scenes(Settings())


@pytest.fixture
def make_scenes(tmp_path: Path, make_raster: Callable[..., str], paint: Callable[..., NDArray[np.uint8]]) -> MakeScenes:
    """A function that plans a scene with an empty corner and a label, and one that is damaged in its last tiles."""
    return lambda settings, area=None: plan_scenes(tmp_path, make_raster, paint, settings, area)


def plan_scenes(
    tmp_path: Path,
    make_raster: Callable[..., str],
    paint: Callable[..., NDArray[np.uint8]],
    settings: Settings,
    area: SceneArea | None,
) -> tuple[ScenePlan, ...]:
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
        plan = plan_scene(
            ref, info, (1, 2, 3), stride=8, core=64, halo=16, window_pixels=96 * 96, block_bytes=64 * 64 * 3,
            settings=settings, num_classes=4, area=area,
        )  # fmt: skip
        plans.append(plan)
    return tuple(plans)


def work_for(folder: Path, scenes: tuple[ScenePlan, ...], bundle: Path, settings: Settings | None = None) -> Work:
    settings = settings or Settings()
    (folder / "ledger").mkdir(parents=True)
    classes = read_card(bundle).classes
    files = BlockWriter(folder, ("cog", "zarr"), "mode", classes, settings.products)
    pending = np.array([(i, b) for i, plan in enumerate(scenes) for b in range(len(plan.grid))], np.int64)
    return Work(scenes, pending, str(bundle), files, str(folder / "ledger"), LabelMap(4), settings)


def files_of(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.endswith(".jsonl")}


def what(row: LedgerRow) -> tuple[object, ...]:
    return row.checksum, row.class_pixels, row.nodata_pixels, row.ignored_pixels, row.confusion, row.windows, row.error


@pytest.mark.parametrize(
    ("settings", "area", "actors"),
    [(Settings(batch_size=2), None, 1), (ALL, SceneArea(shapely.to_wkb(shapely.box(50, 5, 139, 139))), 2)],
)
def test_ray_and_inline_give_the_same_bytes_and_rows(
    tmp_path: Path, make_scenes: MakeScenes, tiny_bundle: Path, settings: Settings, area: SceneArea | None, actors: int
) -> None:
    scenes = make_scenes(settings, area)
    work = {name: work_for(tmp_path / name, scenes, tiny_bundle, settings) for name in ("inline", "ray")}
    rows = {
        "inline": list(run_inline(work["inline"], "cpu")),
        "ray": list(run_ray(work["ray"], replace(POOL, min=actors, max=actors), BOUNDS)),
    }
    assert files_of(tmp_path / "inline") == files_of(tmp_path / "ray")
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
        assert set(row.seconds) == {"read", "wait", "idle", "predict", "upload", "forward", "download", "write"}
        assert row.memory > 0 or row.error is not None


def test_a_bundle_that_cannot_be_loaded_is_said_in_a_line(
    tmp_path: Path, scenes: tuple[ScenePlan, ...], tiny_bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    work = work_for(tmp_path / "run", scenes, tiny_bundle)
    damaged = replace(work, bundle=str(tmp_path / "nowhere"))
    with pytest.raises(SegbatchError, match=r"The bundle .*nowhere does not exist\.$"):
        list(run_ray(damaged, POOL, BOUNDS))
    assert "Traceback" not in "".join(capfd.readouterr())
    assert read_ledger(tmp_path / "run" / "ledger") == {}


def test_a_file_that_cannot_be_written_ends_the_run_in_a_line(
    tmp_path: Path, scenes: tuple[ScenePlan, ...], tiny_bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    work = work_for(tmp_path / "run", scenes, tiny_bundle)
    work.files.create(scenes[0])
    (tmp_path / "run" / "good.zarr" / "class_mask" / "c").write_bytes(b"in the way")
    with pytest.raises(SegbatchError, match=r"good\.zarr\S* cannot be written"):
        list(run_ray(work, POOL, BOUNDS))
    assert "Traceback" not in "".join(capfd.readouterr())


def test_small_blocks_that_travel_together_change_no_byte(
    tmp_path: Path, scenes: tuple[ScenePlan, ...], tiny_bundle: Path
) -> None:
    """Of two scenes, one damaged; blocks of all sizes and empty ones; the last group is not full."""
    work = {name: work_for(tmp_path / name, scenes, tiny_bundle) for name in ("inline", "ray")}
    assert len(work["ray"].pending) % 5
    expected = {(row.scene, row.block): what(row) for row in run_inline(work["inline"], "cpu")}
    found = [((row.scene, row.block), what(row)) for row in run_ray(work["ray"], POOL, replace(BOUNDS, group=5))]
    assert len(found) == len(expected)
    assert dict(found) == expected
    assert files_of(tmp_path / "inline") == files_of(tmp_path / "ray")


def test_four_actors_another_order_and_more_than_one_dataset_change_no_byte(
    tmp_path: Path, make_scenes: MakeScenes, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "_MOST_BLOCKS", 5)
    scenes = make_scenes(ALL)[:1]
    (scene,) = scenes
    names = "class_mask", *ALL.products

    def outcome(name: str, run: Callable[[Work], Any], seed: int | None) -> dict[str, Any]:
        work = work_for(tmp_path / name, scenes, tiny_bundle, ALL)
        assert len(work.pending) > 5
        pending = work.pending if seed is None else np.random.default_rng(seed).permutation(work.pending)
        rows = sorted(run(replace(work, pending=pending)), key=lambda row: row.block)
        everywhere = scene.info.window
        arrays = {n: read_window(tmp_path / name / "good.zarr", everywhere, n).tobytes() for n in names}
        assert finish_scene(scene, work.files) == ""
        cogs = {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in (tmp_path / name).rglob("*.tif")}
        assert len(cogs) == 3
        return {"rows": [what(row) for row in rows], **arrays, **cogs}

    expected = outcome("inline", lambda work: run_inline(work, "cpu"), None)
    found = outcome("ray", lambda work: run_ray(work, replace(POOL, min=4, max=4), BOUNDS), 3)
    assert found == expected


@pytest.mark.parametrize(
    "stage",
    [pytest.param("reader", marks=pytest.mark.slow), "predictor", pytest.param("writer", marks=pytest.mark.slow)],
)
def test_a_block_that_ends_each_process_is_given_up_and_the_others_are_done(
    scenes: tuple[ScenePlan, ...], tiny_bundle: Path, tmp_path: Path, stage: str
) -> None:
    """As a decoder does that crashes."""

    class Poisoned(Work):
        def reader(self) -> Any:
            return self._poison("reader", Work.reader(self))

        def predictor(self, threads: int | None, device: str) -> Any:
            return self._poison("predictor", Work.predictor(self, threads, device))

        def writer(self) -> Any:
            return self._poison("writer", Work.writer(self))

        def _poison(self, name: str, function: Any) -> Any:
            def call(*args: Any) -> Any:
                place = args if len(args) == 2 else (args[0].scene, args[0].block)
                # Given up, it goes through the later stages as a block with an error.
                if name == stage and place == (0, 5) and getattr(args[0], "error", None) is None:
                    with open(tmp_path / "lost", "a") as file:
                        file.write(".")
                    os.kill(os.getpid(), signal.SIGSEGV)
                return function(*args)

            return call

    clean = {
        (row.scene, row.block): what(row) for row in run_inline(work_for(tmp_path / "a", scenes, tiny_bundle), "cpu")
    }
    work = work_for(tmp_path / "b", scenes, tiny_bundle)
    poisoned = Poisoned(*(getattr(work, field.name) for field in fields(work)))
    rows = {(row.scene, row.block): row for row in run_ray(poisoned, POOL, BOUNDS)}
    assert rows.keys() == clean.keys()
    bad = rows.pop(("good", 5))
    assert re.search(r"block 5 was given up: 3 processes that were to \w+ it were lost", bad.error or "")
    assert (tmp_path / "lost").read_text() == "." * 3
    assert {key: what(row) for key, row in rows.items()} == {key: row for key, row in clean.items() if key in rows}
    assert read_ledger(work.ledger)["good", 5].error == bad.error
    assert not (Path(work.ledger) / "attempts").exists()


@pytest.mark.slow
def test_a_run_in_which_nothing_moves_says_why_and_ends(
    scenes: tuple[ScenePlan, ...], tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where an image's server does not answer."""

    class Hanging(Work):
        def reader(self) -> Any:
            read = Work.reader(self)

            def call(scene: int, block: int) -> Any:
                if (scene, block) == (0, 5):
                    time.sleep(90)
                return read(scene, block)

            return call

    monkeypatch.setattr(watch, "QUIET_SECONDS", 3.0)
    monkeypatch.setattr(pipeline, "_NO_PROGRESS_SECONDS", 15)
    work = work_for(tmp_path / "run", scenes, tiny_bundle)
    hanging, told = Hanging(*(getattr(work, field.name) for field in fields(work))), list[str]()
    with pytest.raises(SegbatchError) as caught:
        list(run_ray(hanging, POOL, BOUNDS, told.append))
    message = str(caught.value)
    assert "\n" not in message
    assert re.match(r"The run was given up: no block was done for \d+ s: reading block 5 of good for \d+ s", message)
    assert "the cluster has 1 node with 4 CPUs" in message
    assert message.endswith("run the same command again, without --overwrite, to go on.")
    assert any(re.match(r"  No block was done for \d+ s: reading block 5 of good for", line) for line in told)
    # What was done is kept.
    assert len(read_ledger(work.ledger)) == len(work.pending) - 1


@pytest.mark.slow
def test_a_run_that_waits_for_a_gpu_says_so(
    scenes: tuple[ScenePlan, ...], tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if ray.cluster_resources().get("GPU"):
        pytest.skip("there is a GPU")
    monkeypatch.setattr(watch, "QUIET_SECONDS", 3.0)
    monkeypatch.setattr(pipeline, "_NO_PROGRESS_SECONDS", 10)
    work, told = work_for(tmp_path / "run", scenes, tiny_bundle), list[str]()
    with pytest.raises(SegbatchError, match="The run was given up: no block was done for"):
        list(run_ray(work, replace(POOL, use_gpu=True), BOUNDS, told.append))
    assert "nothing is being read, predicted or written" in told[-1]
    assert "with 4 CPUs and 0 GPUs, and 1 predicting actor with 0.5 CPUs and a GPU each are wanted" in told[-1]


def test_items_are_mapped_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    before = ray.data.DataContext.get_current().enable_progress_bars
    assert sorted(map_items(lambda item: f"<{item}>", [3, 1, 2], nothing="")) == ["<1>", "<2>", "<3>"]
    assert sorted(map_items(str, range(100, 111), nothing="", together=4)) == list(map(str, range(100, 111)))
    monkeypatch.setattr(pipeline, "_ITEM_TASKS", 3)
    assert sorted(map_items(lambda item: {item}, range(100, 111), nothing=""), key=min) == [
        {item} for item in range(100, 111)
    ]
    assert ray.data.DataContext.get_current().enable_progress_bars == before


def test_what_a_function_says_of_an_item_is_said() -> None:
    def refuse(item: int) -> int:
        if item == 2:
            raise InputError(f"{item} is not a scene.")
        return item

    found = map_items(refuse, [1, 2], nothing="", together=2)
    assert next(found) == 1
    with pytest.raises(InputError, match=r"^2 is not a scene\.$"):
        next(found)


def test_items_that_take_long_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "QUIET_SECONDS", 1.0)
    told: list[str] = []

    def wait(item: int) -> str:
        time.sleep(4)
        return str(item)

    assert list(map_items(wait, [7], nothing="no GeoTIFF was finished", tell=told.append)) == ["7"]
    assert re.match(r"  No GeoTIFF was finished for \d+ s: the cluster has 1 node with 4 CPUs", told[0])


@pytest.mark.slow
def test_a_scene_whose_finish_step_ends_each_process_is_given_up(
    scenes: tuple[ScenePlan, ...], tiny_bundle: Path, tmp_path: Path
) -> None:
    """As where a machine has too little memory for it; Ray alone would try for ever."""
    work = work_for(tmp_path / "run", scenes[:1], tiny_bundle)
    attempts = tmp_path / "attempts"
    attempts.mkdir()

    class Deadly(BlockWriter):
        def __getattribute__(self, name: str) -> Any:
            if name == "masks":
                os._exit(9)
            return super().__getattribute__(name)

    files = {field.name: getattr(work.files, field.name) for field in fields(work.files)}

    def finish(scene: ScenePlan) -> str:
        return try_to_finish(scene, writer=Deadly(**files), attempts=str(attempts))

    (problem,) = map_items(finish, scenes[:1], nothing="")
    assert problem.startswith("The files of good were not written: 3 processes that put them together were lost, for")
    assert list(attempts.iterdir()) == []


def test_an_unexpected_error_is_told_by_its_last_line() -> None:
    def fail(item: int) -> str:
        raise ZeroDivisionError(f"item {item}")

    with pytest.raises(SegbatchError, match=r"The work failed on Ray: ZeroDivisionError: item 5$"):
        list(map_items(fail, [5], nothing=""))


def test_a_function_is_called_once_in_a_worker() -> None:
    assert call_once(lambda item: item + 1, 41, cpus=0.25, use_gpu=False) == 42


def test_a_call_for_which_no_node_has_room_says_so_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "QUIET_SECONDS", 0.5)
    monkeypatch.setattr(pipeline, "_LONGEST_CALL_SECONDS", 2)
    told: list[str] = []
    with pytest.raises(SegbatchError, match=r"^The run was given up: what the model is to run with was not found for"):
        call_once(lambda item: item, 1, cpus=64, use_gpu=False, tell=told.append)
    assert told[0].endswith("the cluster has 1 node with 4 CPUs and 0 GPUs, and 64 CPUs on one node are wanted.")


def test_actors_may_share_a_gpu_of_one_kind(
    scenes: tuple[ScenePlan, ...], tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked of Ray: GPUs that this machine does not have would leave the run waiting."""
    asked: list[dict[str, Any]] = []

    def note(dataset: ray.data.Dataset, function: Any, **options: Any) -> ray.data.Dataset:
        asked.append(options)
        if len(asked) == 2:
            raise SegbatchError("asked")
        return dataset

    shared = replace(POOL, use_gpu=True, gpus=0.5, accelerator="A100")
    monkeypatch.setattr(ray.data.Dataset, "map_batches", note)
    with pytest.raises(SegbatchError, match="^asked$"):
        list(run_ray(work_for(tmp_path / "run", scenes, tiny_bundle), shared, BOUNDS))
    _, predict = asked
    assert (predict["num_gpus"], predict["accelerator_type"]) == (0.5, "A100")


def test_what_a_called_function_says_is_said() -> None:
    def refuse(item: str) -> str:
        raise InputError(f"{item} is not a bundle.")

    with pytest.raises(InputError, match="^a is not a bundle.$"):
        call_once(refuse, "a", cpus=0.25, use_gpu=False)


def test_what_else_a_called_function_raises_is_told_in_a_line() -> None:
    def fail(item: int) -> str:
        raise ZeroDivisionError(f"item {item}")

    with pytest.raises(SegbatchError, match=r"^The work failed on Ray: ZeroDivisionError: item 5$"):
        call_once(fail, 5, cpus=0.25, use_gpu=False)
