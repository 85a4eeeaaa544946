"""The jobs, submitted for real to a Ray head on this machine."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from affine import Affine

from segbatch.classes import ClassTable, LabelMap
from segbatch.models.build import build_model
from segbatch.models.bundle import Bundle, save_bundle
from segbatch.models.card import Card

ROOT = Path(__file__).parents[2]
RAY = Path(sys.executable).with_name("ray")

pytestmark = pytest.mark.ray


@dataclass(frozen=True)
class Head:
    address: str
    environment: dict[str, str]

    def submit(self, *entrypoint: str) -> subprocess.CompletedProcess[str]:
        command = [str(RAY), "job", "submit", "--address", self.address, "--working-dir", ".", "--", *entrypoint]
        return subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=300, check=False
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_dashboard(port: int) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/version", timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail("the Ray head did not come up")


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A Ray head of its own, beside the one of the other tests, on loopback."""
    dashboard = free_port()
    # A cluster's image has segbatch's dependencies; here it is this interpreter that has them.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "PATH": path}
    environment.pop("RAY_ADDRESS", None)
    # Ray's sockets live in this folder, and their names may have 107 bytes at the most.
    temporary = tempfile.mkdtemp(prefix="ray-")
    # --block keeps the head's processes in one group, which can be ended without touching other Ray nodes.
    process = subprocess.Popen(
        [
            str(RAY), "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={free_port()}",
            "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--ray-client-server-port={free_port()}",
            f"--dashboard-agent-listen-port={free_port()}", "--num-cpus=4", "--object-store-memory=500000000",
            f"--temp-dir={temporary}",
        ],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        wait_for_dashboard(dashboard)
        yield Head(f"http://127.0.0.1:{dashboard}", environment)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        shutil.rmtree(temporary, ignore_errors=True)


@pytest.fixture
def configuration(tmp_path: Path, make_raster) -> Path:
    """A run whose model is there already: one labelled scene to map."""
    torch.manual_seed(0)
    classes = ClassTable(("dark", "bright"), ("#000000", "#ffffff"))
    model = build_model(
        "unet", "resnet18", in_channels=3, num_classes=2,
        options={"encoder_depth": 3, "decoder_channels": [16, 16, 8]},
    )  # fmt: skip
    card = Card(classes, ("red", "green", "blue"), "uint8", (100.0,) * 3, (50.0,) * 3, 8, 16, LabelMap(2))
    save_bundle(tmp_path / "run" / "bundle", Bundle(model, card))
    rng = np.random.default_rng(0)
    bands = ("red", "green", "blue")
    entries = {}
    for name, left in (("image", 5e5), ("elsewhere", 6e5)):
        grid = {"crs": "EPSG:32632", "transform": Affine(1, 0, left, 0, -1, 5e6)}
        entries[name] = {"image": str(tmp_path / f"{name}.tif"), "label": str(tmp_path / f"{name}_label.tif")}
        make_raster(tmp_path / f"{name}.tif", rng.integers(0, 255, (3, 250, 330), np.uint8), names=bands, **grid)
        make_raster(tmp_path / f"{name}_label.tif", rng.integers(0, 2, (1, 250, 330), np.uint8), **grid)
    path = tmp_path / "run.yaml"
    path.write_text(
        json.dumps(
            {
                "name": "job",
                "output": str(tmp_path / "run"),
                "classes": classes.to_json(),
                "scenes": {
                    "train": [entries["elsewhere"]],
                    "validate": [entries["image"]],
                    "predict": [entries["image"]],
                },
                "model": {
                    "encoder": "resnet18",
                    "options": {"encoder_depth": 3, "decoder_channels": [16, 16, 8]},
                },
                "training": {"epochs": 1, "steps_per_epoch": 2, "tile": 64, "batch_size": 2},
                "inference": {"core": 128, "halo": 16},
            }
        )
    )
    return path


def test_predict_report_and_evaluate_run_as_jobs(head: Head, configuration: Path) -> None:
    run = configuration.parent / "run"
    done = head.submit("python", "jobs/predict.py", "--config", str(configuration))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout
    metrics = json.loads((run / "report" / "metrics.json").read_text())
    assert metrics["scenes"][0]["status"] == "done"

    (run / "report" / "metrics.json").unlink()
    done = head.submit("python", "jobs/report.py", str(run))
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((run / "report" / "metrics.json").read_text()) == metrics

    out = configuration.parent / "evaluation"
    done = head.submit(
        "python", "jobs/evaluate.py", "--prediction", str(run / "masks" / "image.tif"),
        "--label", str(configuration.parent / "image_label.tif"), "--out", str(out),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    evaluated = json.loads((out / "report" / "metrics.json").read_text())
    assert evaluated["confusion"] == metrics["confusion"]


def test_train_and_the_whole_pipeline_run_as_jobs(head: Head, configuration: Path) -> None:
    fresh = configuration.parent / "fresh"
    done = head.submit("python", "jobs/train.py", str(configuration), "--set", f"output={fresh}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (fresh / "bundle" / "segbatch.json").is_file()
    done = head.submit("python", "jobs/pipeline.py", str(configuration), "--set", f"output={fresh}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trained already" in done.stdout
    assert (fresh / "report" / "report.html").is_file()


def test_a_job_does_not_write_where_its_files_would_be_lost(head: Head, configuration: Path) -> None:
    done = head.submit("python", "jobs/train.py", str(configuration), "--set", "output=runs/lost")
    assert done.returncode != 0
    assert "runs/lost is relative" in done.stdout


def test_a_job_that_fails_says_why_and_ends_with_an_error(head: Head, configuration: Path) -> None:
    done = head.submit("python", "jobs/predict.py", "--config", str(configuration), "--set", "scenes.predict=[]")
    assert done.returncode != 0
    assert "scenes.predict is empty" in done.stdout
