"""`segbatch train` from the command line's words to the bundle, with Ray Train in between."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import yaml
from numpy.typing import NDArray
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import segbatch.commands.train as train_module
from segbatch.classes import LabelMap
from segbatch.cli import main
from segbatch.commands.course import read_course
from segbatch.commands.folder import RunFolder
from segbatch.commands.train import closing_lines
from segbatch.errors import InputError
from segbatch.geometry import Window
from segbatch.inference.predictor import Predictor
from segbatch.models.backends.forward import Forward
from segbatch.models.bundle import load_bundle
from segbatch.storage import place
from segbatch.training.survey import TrainingScene
from segbatch.training.validation import validate

WriteRaster = Callable[..., str]
HEIGHT, WIDTH = 128, 160
EPOCHS, STEPS = 3, 3
FILES = ["bundle", "metrics.jsonl", "run.json", "sample_predictions", "split.csv", "tensorboard", "usage.json"]


@dataclass(frozen=True)
class Said:
    """What a call of the command line left."""

    code: Any
    text: str


def segbatch(*words: str) -> Said:
    """Call the command line in this process."""
    said = io.StringIO()
    with (
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(said),
        pytest.raises(SystemExit) as ended,
    ):
        main(list(words))
    return Said(ended.value.code or 0, said.getvalue())


def write_scenes(folder: Path, write: WriteRaster) -> Path:
    """Three scenes of two classes that differ in colour, and a configuration for them."""
    for index in range(3):
        rng = np.random.default_rng(index)
        label = np.kron(rng.integers(0, 2, (HEIGHT // 16, WIDTH // 16)), np.ones((16, 16), int))
        image = np.stack([60 + 120 * label, 200 - 100 * label, 90 + 0 * label]) + rng.integers(
            -20, 20, (3, HEIGHT, WIDTH)
        )
        write(folder / f"image{index}.tif", image.clip(0, 255).astype(np.uint8))
        write(folder / f"label{index}.tif", label.astype(np.uint8))
    entries = [{"image": f"image{index}.tif", "label": f"label{index}.tif"} for index in range(3)]
    path = folder / "run.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "name": "colours",
                "output": str(folder / "run"),
                "classes": [{"name": "dark"}, {"name": "bright"}],
                "scenes": {"root": str(folder), "train": entries[:2], "validate": entries[2:]},
                "model": {"encoder": "resnet18", "options": {"encoder_depth": 3, "decoder_channels": [16, 16, 8]}},
                "training": {
                    "epochs": EPOCHS,
                    "steps_per_epoch": STEPS,
                    "tile": 64,
                    "batch_size": 4,
                    "precision": "float32",
                },
            }
        )
    )
    return path


@pytest.fixture
def config(tmp_path: Path, make_raster: WriteRaster) -> Path:
    return write_scenes(tmp_path, make_raster)


@dataclass(frozen=True)
class Trained:
    """A training that nothing disturbed."""

    config: Path
    run: Path
    said: Said

    @property
    def record(self) -> dict[str, Any]:
        return json.loads((self.run / "run.json").read_text())

    @property
    def history(self) -> list[dict[str, Any]]:
        return self.record["training"]["history"]


@pytest.fixture(scope="module")
def trained(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory, make_raster: WriteRaster) -> Trained:
    path = write_scenes(tmp_path_factory.mktemp("trained"), make_raster)
    return Trained(path, path.parent / "run", segbatch("train", str(path)))


def event_points(run: Path, tag: str) -> list[tuple[int, float]]:
    """A curve as TensorBoard reads it."""
    reader = EventAccumulator(str(run / "tensorboard"))
    reader.Reload()
    return [(event.step, event.value) for event in reader.Scalars(tag)]


def figures(history: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What of a history does not depend on the clock."""
    return [(row["epoch"], row["loss"], row["miou"], row["iou"], row["learning_rate"]) for row in history]


def processes(kind: str) -> list[psutil.Process]:
    """The processes of this test run's Ray whose title begins so."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and " ".join(process.cmdline()).startswith(kind):
                found.append(process)
    return found


def wait_for(what: str, condition: Callable[[], Any], seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.02)
    raise AssertionError(f"{what} did not come within {seconds} s")


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints that Ray Train has taken down as whole."""
    return [
        folder
        for record in RunFolder(run).training.glob("*/checkpoint_manager_snapshot.json")
        for folder in record.parent.glob("checkpoint_*")
        if folder.name in record.read_text()
    ]


@pytest.mark.ray
def test_training_leaves_a_bundle_that_has_learned(trained: Trained) -> None:
    assert trained.said.code == 0, trained.said.text
    assert sorted(path.name for path in (trained.run / "bundle").iterdir()) == [
        "config.json",
        "model.safetensors",
        "segbatch.json",
    ]
    card = load_bundle(trained.run / "bundle").card
    assert card.classes.names == ("dark", "bright")
    assert (card.dtype, card.stride) == ("uint8", 8)
    assert card.halo_curve is not None
    assert card.halo_curve.points[0][1] > card.halo_curve.points[-1][1]
    images = [np.asarray(_read(trained.config.parent / f"image{index}.tif"), np.float64) for index in range(2)]
    together = np.concatenate([image.reshape(3, -1) for image in images], axis=1)
    assert card.mean == pytest.approx(together.mean(axis=1))
    assert card.std == pytest.approx(together.std(axis=1))
    assert card.training["history"] == trained.history
    best = max(trained.history, key=lambda row: row["miou"])
    assert card.training["epoch"] == best["epoch"]
    assert best["miou"] > 0.6


@pytest.mark.ray
def test_metrics_tell_the_course_line_by_line(trained: Trained) -> None:
    lines = [json.loads(line) for line in (trained.run / "metrics.jsonl").read_text().splitlines()]
    epochs = [line for line in lines if line["kind"] == "epoch"]
    assert figures(epochs) == figures(trained.history)
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)
    assert {"kind", "time", "halo", "curve"} <= set(lines[-1])


@pytest.mark.ray
def test_what_training_leaves_is_there_to_look_at(trained: Trained, tmp_path: Path) -> None:
    assert event_points(trained.run, "epoch/miou") == [
        (row["epoch"] * STEPS, pytest.approx(row["miou"], abs=1e-6)) for row in trained.history
    ]
    samples = json.loads((trained.run / "sample_predictions" / "samples.json").read_text())["samples"]
    assert [sample["window"] for sample in samples] == [[0, 0, WIDTH, HEIGHT]]
    assert samples[0]["pixel_accuracy"] > 0.6
    run = tmp_path / "run"
    shutil.copytree(trained.run, run)
    said = segbatch("report", str(run))
    assert said.code == 0
    assert "Report of the training" in said.text
    page = (run / "report" / "report.html").read_text()
    assert "Sample predictions" in page
    assert "Learning rate" in page
    assert [path.name for path in (run / "report").iterdir()] == ["report.html"]


@pytest.mark.ray
def test_training_goes_on_from_a_bundle_with_other_classes_and_ends_when_nothing_gets_better(
    trained: Trained, tmp_path: Path
) -> None:
    content = yaml.safe_load(trained.config.read_text())
    content["output"] = str(tmp_path / "run")
    content["classes"] = [{"name": "bright"}, {"name": "dark"}]
    content["label_values"] = {0: "dark", 1: "bright"}
    content["model"]["init"] = os.path.relpath(trained.run / "bundle")
    content["training"] |= {
        "epochs": 40,
        "patience": 1,
        "learning_rate": 1e-9,
        "freeze_encoder": 40,
        "class_weights": "median",
        "loss": "ce+lovasz",
        "accumulate": 2,
        "ema": 0,
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(content))
    said = segbatch("train", str(path))
    assert said.code == 0, said.text
    assert "no better epoch in the last 1: training ends after epoch" in said.text
    history = json.loads((tmp_path / "run" / "run.json").read_text())["training"]["history"]
    assert 2 <= len(history) < 40
    # Hardly moved: what the bundle knew is there from the first epoch on, by the classes' names.
    known = max(row["miou"] for row in trained.history)
    assert history[0]["miou"] == pytest.approx(known, abs=0.1)
    iou = max(trained.history, key=lambda row: row["miou"])["iou"]
    assert history[0]["iou"] == pytest.approx(iou[::-1], abs=0.15)


@pytest.mark.ray
def test_weights_to_start_from_are_checked_before_work_begins(config: Path, tmp_path: Path) -> None:
    for setting, message in (
        (f"model.weights={tmp_path}/none.pth", "none.pth does not exist"),
        (f"model.init={tmp_path}/none", "The bundle .*none does not exist"),
        ("training.accumulate=5", "a batch_size of 4 gives each of 1 workers 4 tiles a step, too few for 5 parts"),
    ):
        said = segbatch("train", str(config), "--set", setting)
        assert said.code == 2
        assert re.search(message, said.text)
    both = segbatch("train", str(config), "--set", "model.init=a", "--set", "model.weights=imagenet")
    assert both.code == 2
    assert "cannot both be given" in both.text


@pytest.mark.ray
def test_what_a_training_starts_from_is_not_thrown_away(trained: Trained) -> None:
    setting = f"model.init={trained.run / 'bundle'}"
    said = segbatch("train", str(trained.config), "--set", setting, "--overwrite")
    assert said.code == 2
    assert "would throw" in said.text
    assert (trained.run / "bundle" / "segbatch.json").exists()
    # What is done stays done.
    assert "is trained already" in segbatch("train", str(trained.config)).text


def _read(path: Path) -> NDArray[Any]:
    import rasterio

    with rasterio.open(path) as dataset:
        return dataset.read()


@pytest.mark.ray
def test_run_json_tells_how_training_went(trained: Trained) -> None:
    record = trained.record
    assert record["name"] == "colours"
    assert record["config"]["training"]["epochs"] == EPOCHS
    assert torch.__version__.startswith(record["versions"]["torch"])
    training = record["training"]
    assert training["state"] == "done"
    assert training["seconds"] > 0
    assert [row["epoch"] for row in training["history"]] == [1, 2, 3]
    for row in training["history"]:
        assert 0 < row["loss"] < 10
        assert 0 <= row["miou"] <= 1
        assert len(row["iou"]) == 2
        assert 0 <= row["waited"] <= 1
    assert training["history"][-1]["loss"] < training["history"][0]["loss"]
    assert not (trained.run / ".training").exists()
    assert sorted(path.name for path in trained.run.iterdir()) == FILES


def test_a_split_is_written_and_can_be_given_back(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training with it, listed by hand as a table, is the same training."""

    def enough(address: str) -> Any:
        raise InputError("enough")

    monkeypatch.setattr(train_module, "ray_session", enough)
    content = yaml.safe_load(config.read_text())
    content["training"] |= {"tile": 32}
    content["scenes"]["train"] += content["scenes"].pop("validate")
    folder, trainings = config.parent, []
    for name in ("rule", "table"):
        content["output"] = str(folder / name)
        if name == "rule":
            content["scenes"]["split"] = {"by": "block", "block": 64}
        else:
            del content["scenes"]["split"]
            for role in ("train", "validate"):
                content["scenes"][role] = [{"table": str(folder / "rule" / "split.csv"), "where": {"role": role}}]
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content))
        assert "enough" in segbatch("train", str(path)).text
        trainings.append(json.loads((folder / name / "run.json").read_text())["training"])
    assert (folder / "rule" / "split.csv").read_bytes() == (folder / "table" / "split.csv").read_bytes()
    assert trainings[0] == trainings[1]
    other = segbatch("train", str(folder / "rule.yaml"), "--set", "scenes.split.seed=1")
    assert other.code == 2
    assert "holds a training with other scenes or settings" in other.text


@pytest.mark.parametrize(
    ("miou", "one_class", "said"), [(0.5, 0.25, 1), (0.25, 0.25, 2), (0.0, 0.25, 2), (1.0, 1.0, 1), (None, None, 1)]
)
def test_a_model_that_has_learnt_nothing_is_called_so(miou: float | None, one_class: float | None, said: int) -> None:
    worse = {"epoch": 2, "miou": 0.0, "one_class_miou": one_class}
    lines = list(closing_lines([{**worse, "epoch": 1, "miou": miou}, worse], 61, Path("run/bundle")))
    first = f"Trained in 1 min 01 s: best validation miou {miou or 0:.3f} in epoch 1, kept in run/bundle"
    second = "One class for every pixel would get 0.250: train longer, or look at the labels."
    assert lines == [first, second][:said]


@pytest.mark.ray
def test_progress_is_said_epoch_by_epoch(trained: Trained) -> None:
    lines = [line.strip() for line in trained.said.text.splitlines()]
    assert [line.split(":")[0] for line in lines if line.startswith("epoch ") and "%:" not in line] == [
        "epoch 1/3",
        "epoch 2/3",
        "epoch 3/3",
    ]
    assert sum(line.startswith("miou 0.") and "dark 0." in line for line in lines) == EPOCHS
    assert lines[-3].startswith("share of pixels that differ from the whole image's with a halo of 8 px: ")
    assert lines[-1] == f"Map scenes with it: segbatch predict {trained.run / 'bundle'} SCENE... --out DIR"
    assert "going on after" not in trained.said.text
    assert "Traceback" not in trained.said.text


@pytest.mark.ray
def test_training_again_does_nothing_and_says_so(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_module, "ray_session", no_ray)
    before = {path: path.stat().st_mtime_ns for path in trained.run.rglob("*")}
    said = segbatch("train", str(trained.config))
    assert said.code == 0
    assert "is trained already" in said.text
    # What does not decide the bundle may differ.
    assert segbatch("train", str(trained.config), "--set", "training.max_failures=1").code == 0
    assert {path: path.stat().st_mtime_ns for path in trained.run.rglob("*")} == before


@pytest.mark.ray
@pytest.mark.parametrize(
    "other",
    [
        "training.epochs=4",
        "training.seed=1",
        "model.encoder=resnet34",
        "scenes.train.0.window.height=64",
        "scenes.nodata=0",
    ],
)
def test_another_training_is_refused_in_the_same_folder(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    monkeypatch.setattr(train_module, "ray_session", no_ray)
    said = segbatch("train", str(trained.config), "--set", other)
    assert said.code == 2
    assert "holds a training with other scenes or settings" in said.text
    assert "--overwrite" in said.text


@pytest.mark.ray
@pytest.mark.slow
def test_two_workers_train_one_model_and_overwrite_an_older_run(trained: Trained, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained.run, run)
    for folder in ("masks", "ledger", "report"):
        (run / folder).mkdir()
    (run / "run.json").write_text(json.dumps({**trained.record, "mapping": {"state": "done"}}))
    older = (run / "bundle" / "model.safetensors").read_bytes()
    said = segbatch(
        "train", str(trained.config), "--set", f"output={run}", "--set", "training.workers=2",
        "--set", "training.epochs=2", "--overwrite",
    )  # fmt: skip
    assert said.code == 0, said.text
    assert "2 workers" in said.text
    assert (run / "bundle" / "model.safetensors").read_bytes() != older
    assert sorted(path.name for path in run.iterdir()) == FILES
    record = json.loads((run / "run.json").read_text())
    assert record["mapping"] is None
    assert [row["epoch"] for row in record["training"]["history"]] == [1, 2]
    assert all(np.isfinite(row["loss"]) for row in record["training"]["history"])
    # Each worker validates a part: what they add up to is what the bundle does.
    bundle = load_bundle(run / "bundle")
    assert bundle.card.halo_curve is not None
    folder = trained.config.parent
    scene = TrainingScene(
        "v", str(folder / "image2.tif"), str(folder / "label2.tif"), (1, 2, 3), Window(0, 0, WIDTH, HEIGHT), None
    )
    confusion = validate(
        Predictor(Forward(bundle.model, bundle.card.mean, bundle.card.std)), [scene], LabelMap(2), stride=8, halo=64
    )
    assert confusion.sum() == HEIGHT * WIDTH
    accuracy = np.trace(confusion) / confusion.sum()
    assert bundle.card.training["pixel_accuracy"] == pytest.approx(accuracy, abs=1e-3)


@pytest.mark.ray
def test_a_killed_driver_and_a_killed_worker_cost_nothing(trained: Trained, tmp_path: Path) -> None:
    """The driver is lost after the first epoch; in the training that goes on, the worker after the second."""
    import ray

    run = tmp_path / "killed"
    words = ["train", str(trained.config), "--set", f"output={run}"]
    process = subprocess.Popen(
        [sys.executable, "-c", "from segbatch.cli import main; main()", *words],
        env={**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for("a checkpoint", lambda: checkpoints(run) or process.poll() is not None)
    finally:
        process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors
    assert json.loads((run / "run.json").read_text())["training"]["state"] == "running"
    wait_for("the end of the killed driver's worker", lambda: not processes("ray::RayTrainWorker"))
    first = {folder.name for folder in checkpoints(run)}

    killed: list[int] = []

    def kill() -> None:
        wait_for("another checkpoint", lambda: {folder.name for folder in checkpoints(run)} - first)
        for worker in processes("ray::RayTrainWorker"):
            killed.append(worker.pid)
            worker.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    said = segbatch(*words)
    killer.join()
    assert said.code == 0, said.text
    assert len(killed) == 1
    assert said.text.count("going on after epoch") == 2
    assert [at for at, _ in event_points(run, "epoch/miou")] == [STEPS, 2 * STEPS, 3 * STEPS]
    assert [row["epoch"] for row in read_course(run / "metrics.jsonl").epochs] == [1, 2, 3]
    history = json.loads((run / "run.json").read_text())["training"]["history"]
    assert figures(history) == figures(trained.history)
    assert sorted(path.name for path in run.iterdir()) == FILES


@pytest.mark.ray
@pytest.mark.slow
def test_a_driver_stopped_before_the_bundle_is_in_place_trains_no_epoch_again(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "stopped"
    words = ("train", str(trained.config), "--set", f"output={run}")
    with monkeypatch.context() as patched:

        def stop(*paths: Path) -> None:
            raise KeyboardInterrupt

        patched.setattr("segbatch.training.trainer.move_over", stop)
        said = segbatch(*words)
    assert said.code == 130, said.text
    assert not (run / "bundle").exists()
    said = segbatch(*words)
    assert said.code == 0, said.text
    assert f"going on after epoch {EPOCHS}" in said.text
    history = json.loads((run / "run.json").read_text())["training"]["history"]
    assert figures(history) == figures(trained.history)
    assert sorted(path.name for path in run.iterdir()) == FILES


@pytest.mark.ray
@pytest.mark.slow
def test_a_training_in_an_object_store_goes_on_from_there(
    trained: Trained, remote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers keep checkpoints there; the bundle is that of a training in a folder, byte for byte."""
    words = ("train", str(trained.config), "--set", f"output={remote}")
    run = place(remote)
    with monkeypatch.context() as patched:

        def stop(*paths: object, **named: object) -> None:
            raise KeyboardInterrupt

        patched.setattr("segbatch.training.trainer.move_over", stop)
        said = segbatch(*words)
    assert said.code == 130, said.text
    assert not (run / "bundle").exists()
    assert any(path.name.startswith("checkpoint_") for path in run.glob(".training/*/*"))
    said = segbatch(*words)
    assert said.code == 0, said.text
    assert f"going on after epoch {EPOCHS}" in said.text
    history = json.loads((run / "run.json").read_text())["training"]["history"]
    assert figures(history) == figures(trained.history)
    for name in ("model.safetensors", "config.json"):
        assert (run / "bundle" / name).read_bytes() == (trained.run / "bundle" / name).read_bytes()
    assert sorted({path.name for path in run.iterdir()}) == sorted(set(FILES))
    assert len(read_course(run / "metrics.jsonl").epochs) == EPOCHS
    # The one of before stays for those who look at it.
    assert [path.name.startswith("events.out.tfevents.") for path in (run / "tensorboard").iterdir()] == [True] * 2
    # Nothing but the account has changed when it is asked for again.
    assert "is trained already" in segbatch(*words).text


@pytest.mark.ray
def test_a_loss_that_is_no_number_ends_training_with_its_reason(trained: Trained, tmp_path: Path) -> None:
    """At once: it would become one again however often the worker is started."""
    said = segbatch(
        "train", str(trained.config), "--set", f"output={tmp_path / 'run'}", "--set", "training.learning_rate=1e30"
    )
    assert said.code == 1
    assert "The loss became" in said.text
    assert "with every tile" in said.text
    assert "training.learning_rate" in said.text
    assert "Traceback" not in said.text
    assert "going on" not in said.text
    assert not (tmp_path / "run" / "bundle").exists()


@pytest.mark.ray
def test_a_training_asked_to_stop_saves_its_step_and_goes_on_from_it(trained: Trained, tmp_path: Path) -> None:
    """With two workers, which must stop at the same step."""
    import ray

    run = tmp_path / "stopped"
    words = ["train", str(trained.config), "--set", "training.workers=2", "--set", "training.steps_per_epoch=20"]
    words += ["--set", "training.epochs=2", "--set", "training.batch_size=5"]
    process = subprocess.Popen(
        [sys.executable, "-c", "from segbatch.cli import main; main()", *words, "--set", f"output={run}"],
        env={**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for("a worker", lambda: len(processes("ray::RayTrainWorker")) == 2 or process.poll() is not None)
        # Whether they have begun or not: they find the wish in one of their first steps.
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert "Run the same command again" in errors
    (kept,) = checkpoints(run)
    steps = json.loads((kept / "course.json").read_text())
    taken = torch.load(kept / "state.pt", weights_only=True)["step"]
    assert 0 < taken == len(steps["history"]) * 20 + steps["sums"]["steps"]
    assert not processes("ray::RayTrainWorker")

    said = segbatch(*words, "--set", f"output={run}")
    assert said.code == 0, said.text
    assert "going on" in said.text
    history = json.loads((run / "run.json").read_text())["training"]["history"]
    assert [row["epoch"] for row in history] == [1, 2]
    assert all(np.isfinite(row["loss"]) for row in history)


@pytest.mark.ray
def test_a_damaged_scene_is_named(config: Path, make_raster: WriteRaster, ray_cluster: None) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (3, HEIGHT, WIDTH)).astype(np.uint8)
    make_raster(config.parent / "image1.tif", noise, tiled=True, blockxsize=32, blockysize=32)
    with open(config.parent / "image1.tif", "r+b") as file:
        file.truncate(30_000)
    said = segbatch("train", str(config))
    assert said.code == 1
    assert "image1.tif is damaged" in said.text
    assert "Traceback" not in said.text


def no_ray(address: str) -> Any:
    raise AssertionError("Ray was started")


@pytest.fixture
def before_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting Ray fails the test."""
    monkeypatch.setattr(train_module, "ray_session", no_ray)


def rewrite(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    data = yaml.safe_load(path.read_text())
    change(data)
    path.write_text(yaml.safe_dump(data))


@pytest.mark.usefixtures("before_ray")
@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("scenes.train=[]", "scenes.train is empty"),
        ("scenes.validate=[]", "scenes.validate is empty"),
        ("scenes.validate.0={image: image1.tif, label: label1.tif}", "image1.tif is trained on and validates"),
        ("scenes.split={by: block}", "'validate' and 'split' cannot both be given"),
        ("scenes.train.0.label=null", "image0.tif is listed in scenes.train without a label"),
        ("scenes.train.0.label=gone.tif", "gone.tif does not exist"),
        ("scenes.train.1.image=gone.tif", "gone.tif does not exist"),
        ("scenes.train.1.image=gone*.tif", "No image matches"),
        ("scenes.train.0.window={col_off: 100, width: 100}", "160 x 128 pixels; the window of 100 x 128 at column 100"),
        ("scenes.bands=[1, 7]", "band 7 asked for, but bands are 1 to 3"),
        ("scenes.bands=[red]", "no single band is named 'red'"),
        ("training.tile=100", "multiple of 32; the nearest are 96 and 128"),
        ("training.loss=hinge", "unknown loss 'hinge'"),
        ("training.workers=5", "a batch_size of 4 gives each of 5 workers 0 tiles a step, too few"),
        ("training.min_workers=2", "min_workers 2 is more than the 1 workers"),
        (
            "training.tile=160",
            "training.tile 160 fits into none of the training scenes; the largest is 160 x 128 pixels. ",
        ),
        ("training.tile=160", "Set training.tile to 128."),
        ("training.epoch=3", "did you mean 'epochs'"),
        ("model.encoder=resnet81", "Unknown encoder 'resnet81'; did you mean resnet18"),
        ("model.architecture=unett", "Unknown architecture 'unett'; did you mean unet"),
        ("model.weights=imagenett", "resnet18 has no weights 'imagenett'; there are imagenet"),
        ("model.options.encoder_depth=7", "unet with resnet18 cannot be built"),
        ("model.options={decoder_chanels: [8]}", "unet has no option 'decoder_chanels'"),
        ("label_values={0: dark, 1: birght}", "birght"),
    ],
)
def test_bad_input_is_found_before_ray_starts(config: Path, override: str, said: str) -> None:
    found = segbatch("train", str(config), "--set", override)
    assert found.code == 2, found.text
    assert said in found.text
    assert "Traceback" not in found.text
    assert not (config.parent / "run" / "run.json").exists()


@pytest.mark.usefixtures("before_ray")
@pytest.mark.parametrize(
    ("name", "shape", "dtype", "value", "said"),
    [
        ("image1", (5, HEIGHT, WIDTH), "uint8", 1, r"image1.tif has 5 bands, but .*image0.tif has 3"),
        ("image2", (2, HEIGHT, WIDTH), "uint8", 1, r"image2.tif has 2 bands"),
        ("image1", (3, HEIGHT, WIDTH), "uint16", 1, r"image1.tif holds uint16"),
        ("label0", (1, HEIGHT, WIDTH + 1), "uint8", 1, r"label0.tif is 161 x 128 pixels, but its scene"),
        ("label0", (3, HEIGHT, WIDTH), "uint8", 1, r"label0.tif has colours without a class: #010101"),
        ("label0", (2, HEIGHT, WIDTH), "uint8", 1, r"label0.tif has 2 bands"),
        ("label0", (1, HEIGHT, WIDTH), "float32", 1, r"label0.tif holds float32"),
        ("label2", (1, HEIGHT, WIDTH), "uint8", 7, r"label2.tif has values without a class: 7"),
    ],
)
def test_files_that_do_not_fit_are_found_before_ray_starts(
    config: Path, make_raster: WriteRaster, name: str, shape: tuple[int, ...], dtype: str, value: int, said: str
) -> None:
    make_raster(config.parent / f"{name}.tif", np.full(shape, value, dtype))
    found = segbatch("train", str(config))
    assert found.code == 2, found.text
    assert re.search(said, found.text), found.text


@pytest.mark.usefixtures("before_ray")
def test_all_scenes_that_do_not_fit_are_listed_at_once(config: Path) -> None:
    for index in (0, 2):
        (config.parent / f"label{index}.tif").unlink()
    found = segbatch("train", str(config), "--set", "scenes.train.1.window={row_off: 200}")
    assert found.code == 2
    assert "label0.tif does not exist" in found.text
    assert "row 200 is not inside" in found.text


@pytest.mark.usefixtures("before_ray")
def test_weights_that_cannot_be_downloaded_are_found_before_ray_starts(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import segmentation_models_pytorch as smp

    def offline(*names: str, **settings: Any) -> Any:
        assert settings["encoder_weights"] == "imagenet"
        raise OSError("Name or service not known")

    monkeypatch.setattr(smp, "create_model", offline)
    found = segbatch("train", str(config), "--set", "model.weights=imagenet")
    assert found.code == 2
    assert "The weights 'imagenet' of resnet18 cannot be downloaded" in found.text


@pytest.mark.usefixtures("before_ray")
def test_a_mistake_does_not_cost_the_bundle_that_was_to_be_overwritten(config: Path) -> None:
    run = config.parent / "run"
    (run / "bundle").mkdir(parents=True)
    (run / "bundle" / "model.safetensors").write_bytes(b"months of work")
    (run / "run.json").write_text(json.dumps({"training": {"fingerprint": "another", "state": "done"}}))
    found = segbatch("train", str(config), "--overwrite", "--set", "model.encoder=resnet81")
    assert found.code == 2
    assert (run / "bundle" / "model.safetensors").read_bytes() == b"months of work"
    assert json.loads((run / "run.json").read_text())["training"]["state"] == "done"


@pytest.mark.usefixtures("before_ray")
def test_a_bundle_of_unknown_origin_is_not_replaced(config: Path) -> None:
    (config.parent / "run" / "bundle").mkdir(parents=True)
    found = segbatch("train", str(config))
    assert found.code == 2
    assert "is there already" in found.text


@pytest.mark.usefixtures("before_ray")
def test_a_folder_that_cannot_be_written_is_bad_input(config: Path) -> None:
    (config.parent / "file").touch()
    found = segbatch("train", str(config), "--set", f"output={config.parent / 'file' / 'run'}")
    assert found.code == 2
    assert "cannot be written to" in found.text
