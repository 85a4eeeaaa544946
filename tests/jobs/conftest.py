"""A Ray head on this machine that wants a token, and a run to submit to it."""

import json
import os
import secrets
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


@dataclass(frozen=True)
class Head:
    address: str
    environment: dict[str, str]
    """Of its clients: where the token is, not that it is wanted."""

    def submit(self, *entrypoint: str) -> subprocess.CompletedProcess[str]:
        """Ray's own command line, which has to be told of tokens."""
        command = [str(RAY), "job", "submit", "--address", self.address, "--working-dir", ".", "--", *entrypoint]
        return self._run(command, RAY_AUTH_MODE="token")

    def segbatch(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """A command line of segbatch, such as submit and its arguments."""
        return self._run([sys.executable, "-m", "segbatch", *words, "--address", self.address], **environment)

    def python(self, code: str, *words: str) -> subprocess.CompletedProcess[str]:
        """A script, with the words and the address as its arguments."""
        return self._run([sys.executable, "-c", code, *words, self.address])

    def _run(self, command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
        everything = {**self.environment, **environment}
        return subprocess.run(
            command, cwd=ROOT, env=everything, capture_output=True, text=True, timeout=300, check=False
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_dashboard(port: int, token: str) -> None:
    deadline = time.monotonic() + 90
    question = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/version", headers={"Authorization": f"Bearer {token}"}
    )
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(question, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail("the Ray head did not come up")


@pytest.fixture(scope="session")
def head() -> Iterator[Head]:
    """A Ray head of its own, beside the one of the other tests, on loopback."""
    dashboard = free_port()
    # A cluster's image has segbatch's dependencies; here it is this interpreter that has them.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    # Ray's sockets live in this folder, and their names may have 107 bytes at the most.
    temporary = tempfile.mkdtemp(prefix="ray-")
    token = secrets.token_hex(32)
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "PATH": path, "RAY_AUTH_TOKEN": token}
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
        environment.pop(name, None)
    # --block keeps the head's processes in one group, which can be ended without touching other Ray nodes.
    process = subprocess.Popen(
        [
            str(RAY), "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={free_port()}",
            "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--ray-client-server-port={free_port()}",
            f"--dashboard-agent-listen-port={free_port()}", "--num-cpus=4", "--object-store-memory=500000000",
            f"--temp-dir={temporary}",
        ],
        env={**environment, "RAY_AUTH_MODE": "token"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        wait_for_dashboard(dashboard, token)
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
