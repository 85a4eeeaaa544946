"""`segbatch tune` from the command line's words to the bundle, with Ray Tune and Ray Train in between."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml

import segbatch.commands.train as train_module
import segbatch.commands.tune as tune_module
from segbatch.cli import main
from segbatch.commands.trials import TrialLog
from segbatch.config import RunConfig
from segbatch.errors import InputError
from segbatch.models.bundle import load_bundle
from segbatch.storage import ObjectPath, place

WriteRaster = Callable[..., str]
HEIGHT, WIDTH = 128, 160
EPOCHS = 2
TOO_HIGH = 1e30


@dataclass(frozen=True)
class Said:
    """What a call of the command line left."""

    code: Any
    text: str


def segbatch(*words: str) -> Said:
    """Call the command line in this process."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said), pytest.raises(SystemExit) as ended:
        main(list(words))
    return Said(ended.value.code or 0, said.getvalue())


def write_scenes(folder: Path, write: WriteRaster) -> Path:
    """Two scenes of two classes that differ in colour, and a configuration: a good, a bad and an impossible trial."""
    for index in range(2):
        rng = np.random.default_rng(index)
        label = np.kron(rng.integers(0, 2, (HEIGHT // 16, WIDTH // 16)), np.ones((16, 16), int))
        image = np.stack([60 + 120 * label, 200 - 100 * label, 90 + 0 * label])
        image = image + rng.integers(-20, 20, (3, HEIGHT, WIDTH))
        write(folder / f"image{index}.tif", image.clip(0, 255).astype(np.uint8))
        write(folder / f"label{index}.tif", label.astype(np.uint8))
    entries = [{"image": f"image{index}.tif", "label": f"label{index}.tif"} for index in range(2)]
    path = folder / "run.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "name": "colours",
                "output": str(folder / "run"),
                "classes": [{"name": "dark"}, {"name": "bright"}],
                "scenes": {
                    "root": str(folder),
                    "train": entries[:1],
                    "validate": entries[1:],
                    "predict": entries[1:],
                },
                "model": {"encoder": "resnet18", "options": {"encoder_depth": 3, "decoder_channels": [16, 16, 8]}},
                "training": {
                    "epochs": EPOCHS,
                    "steps_per_epoch": 8,
                    "tile": 64,
                    "batch_size": 4,
                    "learning_rate": 0.005,
                    "precision": "float32",
                },
                "tune": {
                    "space": {"training.learning_rate": [0.005, 1e-9, TOO_HIGH]},
                    "grace_epochs": 1,
                    "reduction_factor": 2,
                },
                "inference": {"engine": "inline"},
            }
        )
    )
    return path


@pytest.fixture
def config(tmp_path: Path, make_raster: WriteRaster) -> Path:
    return write_scenes(tmp_path, make_raster)


@dataclass(frozen=True)
class Tuned:
    """A search that nothing disturbed."""

    config: Path
    run: Path
    said: Said

    @property
    def record(self) -> dict[str, Any]:
        return json.loads((self.run / "run.json").read_text())


@pytest.fixture(scope="module")
def tuned(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory, make_raster: WriteRaster) -> Tuned:
    path = write_scenes(tmp_path_factory.mktemp("tuned"), make_raster)
    return Tuned(path, path.parent / "run", segbatch("tune", str(path)))


def events(run: Path) -> list[dict[str, Any]]:
    path = run / "tune" / "trials.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def course(run: Path) -> list[tuple[Any, ...]]:
    """What of a search does not depend on the clock."""
    return [
        (event["kind"], event["trial"], event.get("epoch"), event.get("miou"), event.get("state"))
        for event in events(run)
    ]


def processes(kind: str) -> list[psutil.Process]:
    """The processes of this test run's Ray whose title begins so."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and " ".join(process.cmdline()).startswith(kind):
                found.append(process)
    return found


def wait_for(what: str, condition: Callable[[], Any], seconds: float = 240) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.02)
    raise AssertionError(f"{what} did not come within {seconds} s")


def no_ray(address: str) -> Any:
    raise AssertionError("this needs no Ray")


@pytest.mark.ray
def test_the_best_trial_is_kept_and_the_others_are_told_of(tuned: Tuned) -> None:
    assert tuned.said.code == 0, tuned.said.text
    record = tuned.record["tune"]
    assert record["state"] == "done"
    by_rate = {trial["settings"]["training.learning_rate"]: trial for trial in record["trials"]}
    assert by_rate.keys() == {0.005, 1e-9, TOO_HIGH}
    good, bad, impossible = by_rate[0.005], by_rate[1e-9], by_rate[TOO_HIGH]
    assert (good["trial"], good["state"], good["epochs"]) == (1, "done", EPOCHS)
    assert (bad["state"], bad["epochs"]) == ("stopped", 1)
    assert impossible["state"] == "failed"
    assert re.match(r"The loss became (nan|inf) at step \d+", impossible["reason"])
    assert record["best"] == {"trial": 1, "miou": good["miou"], "settings": good["settings"]}

    assert sorted(path.name for path in tuned.run.iterdir()) == [
        "bundle",
        "run.json",
        "split.csv",
        "tune",
        "usage.json",
    ]
    assert sorted(path.name for path in (tuned.run / "tune").iterdir()) == [
        "best.yaml",
        "trials.csv",
        "trials.html",
        "trials.jsonl",
    ]
    card = load_bundle(tuned.run / "bundle").card
    assert card.halo_curve is not None
    assert card.training["miou"] == good["miou"] > bad["miou"]
    assert [row["epoch"] for row in card.training["history"]] == [1, 2]
    assert card.training["history"] == tuned.record["training"]["history"]


@pytest.mark.ray
def test_what_is_said_fits_a_terminal_and_tells_what_to_do_next(tuned: Tuned) -> None:
    lines = tuned.said.text.splitlines()
    assert "Traceback" not in tuned.said.text
    assert any(re.match(r"  trial 1, epoch 1/2: loss [\d.]+, miou [\d.]+, the best so far$", line) for line in lines)
    assert any(re.match(r"  trial \d is stopped early", line) for line in lines)
    table = lines[next(index for index, line in enumerate(lines) if line.startswith(" Trial ")) :]
    assert table[2].split()[0] == "1"
    assert max(map(len, table[:5])) <= 80
    assert f"segbatch run {tuned.run / 'tune' / 'best.yaml'}" in tuned.said.text
    assert f"segbatch train {tuned.config} --set training.learning_rate=0.005 --set output=DIR" in tuned.said.text


@pytest.mark.ray
def test_searching_again_does_nothing_and_says_so(tuned: Tuned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune_module, "ray_session", no_ray)
    before = (tuned.run / "tune" / "trials.jsonl").read_bytes()
    said = segbatch("tune", str(tuned.config))
    assert said.code == 0, said.text
    assert "the search is done already" in said.text
    assert (tuned.run / "tune" / "trials.jsonl").read_bytes() == before


@pytest.mark.ray
def test_a_run_with_the_best_settings_maps_with_the_bundle_and_trains_nothing(
    tuned: Tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tuned.run, run)
    monkeypatch.setattr(train_module, "ray_session", no_ray)
    bundle = (run / "bundle" / "model.safetensors").read_bytes()
    said = segbatch("run", str(run / "tune" / "best.yaml"), "--set", f"output={run}")
    assert said.code == 0, said.text
    assert "is trained already" in said.text
    assert (run / "masks" / "image1.tif").exists()
    assert (run / "bundle" / "model.safetensors").read_bytes() == bundle


@pytest.mark.ray
def test_the_folder_of_a_search_is_not_mixed_with_anything_else(tuned: Tuned, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune_module, "ray_session", no_ray)
    monkeypatch.setattr(train_module, "ray_session", no_ray)
    other = segbatch("tune", str(tuned.config), "--set", "tune.seed=1")
    assert other.code == 2
    assert "holds a search with other scenes or settings" in other.text
    trained = segbatch("train", str(tuned.config), "--set", "training.epochs=1")
    assert trained.code == 2
    assert f"take {tuned.run / 'tune' / 'best.yaml'}" in trained.text


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_in_an_object_store_comes_to_the_same(tuned: Tuned, remote: str) -> None:
    """With a rule that chooses the scenes that the other search lists: the best trial's are the table's."""
    run = place(remote)
    scenes = yaml.safe_load(tuned.config.read_text())["scenes"]
    scenes["train"] += scenes.pop("validate")
    scenes["split"] = {"by": "scene", "validate": 0.5}
    words = ("tune", str(tuned.config), "--set", f"output={remote}", "--set", f"scenes={json.dumps(scenes)}")
    said = segbatch(*words)
    assert said.code == 0, said.text
    assert course(run) == course(tuned.run)
    for name in ("bundle/model.safetensors", "tune/trials.csv"):
        assert (run / name).exists()
    assert (run / "bundle" / "model.safetensors").read_bytes() == (
        tuned.run / "bundle" / "model.safetensors"
    ).read_bytes()
    names = {path.relative_to(run).as_posix() for path, _ in ObjectPath(remote).walk_objects()}
    assert {name.split("/")[0] for name in names} == {path.name for path in tuned.run.iterdir()}
    assert {name for name in names if name.startswith("tune/")} == {
        f"tune/{path.name}" for path in (tuned.run / "tune").iterdir()
    }
    said = segbatch(*words)
    assert "the search is done already" in said.text
    assert f"segbatch run {remote}/tune/best.yaml" in said.text
    listed = yaml.safe_load((run / "tune" / "best.yaml").read_text())["scenes"]
    assert listed["train"][0]["table"] == f"{remote}/split.csv"
    said = segbatch("run", f"{remote}/tune/best.yaml")
    assert said.code == 0, said.text
    assert "is trained already" in said.text
    assert (run / "masks" / "image1.tif").exists()


@pytest.mark.ray
@pytest.mark.slow
def test_a_killed_search_goes_on_where_it_was_and_comes_to_the_same(tuned: Tuned, tmp_path: Path) -> None:
    """The driver is lost in the middle of the first trial."""
    import ray

    run = tmp_path / "killed"
    words = ["tune", str(tuned.config), "--set", f"output={run}"]
    process = subprocess.Popen(
        [sys.executable, "-c", "from segbatch.cli import main; main()", *words],
        env={**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for("an epoch", lambda: any(e["kind"] == "epoch" for e in events(run)) or process.poll() is not None)
    finally:
        process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors
    assert json.loads((run / "run.json").read_text())["tune"]["state"] == "running"
    wait_for("the end of the killed search's worker", lambda: not processes("ray::RayTrainWorker"))
    before = course(run)
    # Half a line, as a kill may leave it.
    with open(run / "tune" / "trials.jsonl", "a") as file:
        file.write('{"kind": "epo')

    said = segbatch(*words)
    assert said.code == 0, said.text
    after = course(run)
    assert after[: len(before)] == before
    again = [event for event in after[len(before) :] if event != ("start", 1, None, None, None)]
    assert [*before, *again] == course(tuned.run)
    for name in ("model.safetensors", "config.json"):
        assert (run / "bundle" / name).read_bytes() == (tuned.run / "bundle" / name).read_bytes()
    assert not (run / ".training").exists()
    assert not processes("ray::RayTrainWorker")


@pytest.mark.ray
@pytest.mark.slow
def test_where_all_trials_fail_the_reason_is_told_and_nothing_is_kept(ray_cluster: None, config: Path) -> None:
    words = ("tune", str(config), "--set", f"tune.space={{training.learning_rate: [{TOO_HIGH}]}}")
    said = segbatch(*words)
    assert said.code == 1
    assert re.search(r"Error: No trial came to a model. Trial 1: The loss became", said.text)
    assert not (config.parent / "run" / "bundle").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("tune.space={training.tille: [64]}", "did you mean 'training.tile'"),
        ("tune.space={training.tile: [64, 100]}", "multiple of 32; the nearest are 96 and 128"),
        ("tune.space={model.encoder: [resnet18, resnet81]}", "resnet81"),
        ("tune.space={training.batch_size: [4, 5], training.accumulate: [1, 5]}", "too few for 5 parts"),
        ("tune.space={training.epochs: [2, 4]}", "nothing to search"),
        ("tune.trials=0", "tune.trials"),
    ],
)
def test_every_point_is_checked_before_work_begins(
    config: Path, setting: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune_module, "ray_session", no_ray)
    said = segbatch("tune", str(config), "--set", setting)
    assert said.code == 2
    assert message in said.text
    assert not (config.parent / "run").exists()


def test_tiles_that_fit_into_no_scene_are_not_tried_unless_they_are_asked_for(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[set[Any]] = []

    def draw(config: RunConfig) -> list[dict[str, Any]]:
        tried.append(set(config.tune.space))
        raise InputError("enough")

    monkeypatch.setattr(tune_module, "draw", draw)
    content = yaml.safe_load(config.read_text())
    del content["tune"]
    config.write_text(yaml.safe_dump(content))
    assert segbatch("tune", str(config)).code == 2
    assert tried == [{"training.learning_rate", "training.loss"}]  # of scenes of 160 x 128 pixels
    monkeypatch.undo()
    monkeypatch.setattr(tune_module, "ray_session", no_ray)
    said = segbatch("tune", str(config), "--set", "tune.space={training.tile: [64, 256]}")
    assert said.code == 2
    assert "training.tile 256 fits into none of the training scenes" in said.text


def test_a_training_is_not_searched_over(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = config.parent / "run"
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"training": {"fingerprint": "a", "state": "done"}}))
    monkeypatch.setattr(tune_module, "ray_session", no_ray)
    said = segbatch("tune", str(config))
    assert said.code == 2
    assert "holds a training" in said.text


def test_a_folder_of_somebody_else_is_left_alone(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = config.parent / "run" / "tune" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    monkeypatch.setattr(tune_module, "ray_session", no_ray)
    said = segbatch("tune", str(config), "--overwrite")
    assert said.code == 2
    assert "not of a search" in said.text
    assert mine.exists()


@pytest.mark.parametrize("where", ["tmp_path", "remote"])
def test_the_log_knows_what_was_tried_again_and_what_was_cut_off(where: str, request: pytest.FixtureRequest) -> None:
    points = [{"training.tile": 64}, {"training.tile": 96}, {"training.tile": 128}]
    row = {"epoch": 1, "miou": 0.5, "train_seconds": 2.0, "validate_seconds": 1.0}
    log = TrialLog(place(request.getfixturevalue(where)) / "trials.jsonl")
    for event in (
        {"kind": "start", "trial": 1},
        {"kind": "end", "trial": 1, "state": "failed", "reason": "lost"},
        {"kind": "start", "trial": 2},
        {"kind": "epoch", "trial": 2, **row},
        {"kind": "start", "trial": 1},
    ):
        log.add(event)
    clock = log.events[-1]["clock"]
    again = TrialLog(log.path)
    assert again.events == log.events
    assert again.clock >= clock
    first, second = again.results(points)
    assert (first.state, first.reason, first.history) == ("unfinished", None, [])
    assert (second.state, second.miou, second.seconds) == ("unfinished", 0.5, 3.0)
    again.add({"kind": "end", "trial": 1, "state": "failed", "reason": "lost"})
    assert again.results(points)[0].state == "failed"
    again.forget_failures()
    assert again.results(points)[0].state == "unfinished"
    assert [result.number for result in again.results(points[:1])] == [1]


def test_more_trials_of_a_search_have_the_same_scenes(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever tiles the first few have: what is kept apart goes by the largest of the space."""
    content = yaml.safe_load(config.read_text())
    content["scenes"]["train"] += content["scenes"].pop("validate")
    content["scenes"]["split"] = {"by": "block", "block": 64}
    content["training"] |= {"tile": 32, "augment": "flips"}
    content["tune"]["space"] = {"training.tile": [32, 64], "training.learning_rate": {"log_uniform": [1e-4, 1e-2]}}
    config.write_text(yaml.safe_dump(content))
    told: list[list[Any]] = []

    def enough(settings: RunConfig, scenes: Any) -> str:
        told.append([settings.tune.trials, [part.window for parts in scenes.values() for part in parts]])
        raise InputError("enough")

    monkeypatch.setattr(tune_module, "_identity", enough)
    for trials in (1, 2, 8):
        assert segbatch("tune", str(config), "--trials", str(trials)).code == 2
    assert [count for count, _ in told] == [1, 2, 8]
    assert all(windows == told[0][1] for _, windows in told)
    # Half of the largest tile lies between a block and what is trained on.
    assert min(window.width for window in told[0][1]) >= 32
