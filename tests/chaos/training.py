"""Trainings whose driver or worker die, at any moment or before an operation on a file."""

import json
import signal
import time
from functools import cache
from pathlib import Path

import numpy as np
import psutil
import rasterio

from tests.chaos.fault import RAYS_OWN_SECONDS, Fault
from tests.chaos.ground import Ground, operations
from tests.chaos.job import SEGBATCH
from tests.chaos.kills import what_was_killed
from tests.chaos.process import Command, environment
from tests.chaos.verdict import State, begun, checksums, differences, names_in

_EPOCHS, _STEPS = 3, 3
_SIZE = 128
_WORKER = "ray::RayTrainWorker"


class Training(Fault):
    """A tiny training: by the seed its driver dies, its worker, or whoever does an operation on a file of the run."""

    kind = "training"
    seconds = 300.0
    end_seconds = RAYS_OWN_SECONDS
    codes = frozenset({-signal.SIGKILL, 1})
    """1 where what died was Ray Train's own process, which nobody starts again."""
    on_their_way = _STEPS + 1
    """Steps since the last checkpoint, which there is one of after each epoch, and the one at work."""

    def begin(self) -> None:
        """See `Fault.begin`."""
        self._target = ("driver", "worker", "files")[self.seed % 3]
        counts = operations(_clean_folder(self.ground))
        part = sorted(counts)[self.seed // 3 % len(counts)]
        self._kill = f"{part} {self.rng.randint(1, counts[part])}"

    def words(self) -> list[str]:
        """See `Fault.words`."""
        return _command(self.ground, self.out)

    def environment(self, number: int) -> dict[str, str]:
        """See `Fault.environment`."""
        known = environment(self.notes, self.out)
        return known | ({"SEGBATCH_CHAOS_KILL": self._kill} if number == 0 and self._target == "files" else {})

    def strike(self, command: Command, number: int) -> None:
        """See `Fault.strike`."""
        if number > 0:
            return
        if self._target == "files":
            command.wait(self.seconds)
            if killed := what_was_killed(self.notes, self.out):
                self.hit(f"SIGKILL of {self._kill}: {killed}")
            return
        epochs, delay = self.rng.randint(0, _EPOCHS), self.rng.uniform(0, 3)
        deadline = time.monotonic() + self.seconds
        while command.runs and time.monotonic() < deadline and _epochs(self.out) < epochs:
            time.sleep(0.02)
        time.sleep(delay)
        if self._target == "driver" and command.runs:
            command.process.kill()
            self.hit(f"SIGKILL of the driver after {epochs} epochs")
        while self._target == "worker" and command.runs and time.monotonic() < deadline:
            if workers := [process for process in command.family() if _is_worker(process)]:
                workers[0].kill()
                self.hit(f"SIGKILL of the worker after {epochs} epochs")
                break
            time.sleep(0.02)

    def clean(self) -> State:
        """See `Fault.clean`."""
        return _clean(self.ground)

    def state(self) -> State:
        """See `Fault.state`."""
        return _state(self.out)

    def wrong(self) -> list[str]:
        """See `Fault.wrong`."""
        return differences(self.state(), self.clean())

    def again(self) -> int | None:
        """See `Fault.again`; in steps."""
        return max(0, begun(self.notes).get("step", 0) - _EPOCHS * _STEPS)

    def bound(self) -> float:
        """See `Fault.bound`; in steps."""
        return 0.05 * _EPOCHS * _STEPS + self.hits * self.on_their_way


def _state(out: Path) -> State:
    history = json.loads((out / "run.json").read_text())["training"]["history"]
    known = [[row[name] for name in ("epoch", "loss", "miou", "iou", "learning_rate")] for row in history]
    sums = checksums(out, out / "bundle")
    del sums["bundle/segbatch.json"]  # it tells how long epochs took
    return State(sums, {"history": known}, names_in(out))


def _epochs(out: Path) -> int:
    path = out / "metrics.jsonl"
    return path.read_text().count('"kind": "epoch"') if path.exists() else 0


def _is_worker(process: psutil.Process) -> bool:
    try:
        return " ".join(process.cmdline()).startswith(_WORKER)
    except psutil.Error:
        return False


def _clean_folder(ground: Ground) -> Path:
    return ground.folder / "clean-training"


@cache
def _clean(ground: Ground) -> State:
    _make(ground.folder / "training-job")
    out = _clean_folder(ground)
    ground.run_clean(_command(ground, out), out)
    return _state(out)


def _command(ground: Ground, out: Path) -> list[str]:
    entries = [{"image": f"image{number}.tif", "label": f"label{number}.tif"} for number in range(3)]
    config = {
        "name": "chaos",
        "output": str(out),
        "classes": [{"name": "dark"}, {"name": "bright"}],
        "scenes": {"root": str(ground.folder / "training-job"), "train": entries[:2], "validate": entries[2:]},
        "model": {"encoder": "resnet18", "options": {"encoder_depth": 3, "decoder_channels": [16, 16, 8]}},
        "training": {
            "epochs": _EPOCHS, "steps_per_epoch": _STEPS, "tile": 64, "batch_size": 4, "precision": "float32",
        },
        "cluster": {"address": "local"},
    }  # fmt: skip
    path = out.with_name(f"{out.name}.yaml")
    path.write_text(json.dumps(config))
    return [*SEGBATCH, "train", str(path)]


def _make(folder: Path) -> None:
    """Three scenes of two classes that differ in colour."""
    folder.mkdir()
    for number in range(3):
        rng = np.random.default_rng(number)
        label = np.kron(rng.integers(0, 2, (_SIZE // 16, _SIZE // 16)), np.ones((16, 16), int))
        noise = rng.integers(-20, 20, (3, _SIZE, _SIZE))
        image = np.stack([60 + 120 * label, 200 - 100 * label, 90 + 0 * label]) + noise
        for name, array in (("image", image.clip(0, 255)), ("label", label[None])):
            with rasterio.open(
                folder / f"{name}{number}.tif", "w", driver="GTiff", width=_SIZE, height=_SIZE, count=len(array),
                dtype="uint8",
            ) as dataset:  # fmt: skip
                dataset.write(array.astype(np.uint8))
