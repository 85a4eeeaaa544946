"""What the workers of a training do together, and what the first one does when the last epoch is over."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import segbatch.training.loop as loop
from segbatch.classes import ClassTable, LabelMap
from segbatch.config import Model, Training
from segbatch.models.card import read_card
from segbatch.training.loop import TrainingJob, _share_buffers, train_loop
from segbatch.training.survey import Survey, TrainingScene

EPOCHS = 2


def test_all_workers_validate_with_the_first_ones_batch_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for a second worker: what is broadcast from rank 0 takes the place of its own."""
    own, first = torch.nn.BatchNorm2d(3), torch.nn.BatchNorm2d(3)
    own.train()(torch.rand(2, 3, 4, 4))
    first.train()(torch.rand(2, 3, 4, 4) + 5)
    sent = iter(first.buffers())

    def broadcast(tensor: torch.Tensor, src: int) -> None:
        assert src == 0
        tensor.copy_(next(sent))

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "broadcast", broadcast)
    assert not torch.equal(own.running_mean, first.running_mean)
    _share_buffers(own)
    for name, buffer in first.named_buffers():
        assert torch.equal(buffer, own.state_dict()[name])


def test_a_single_worker_shares_with_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "broadcast", lambda *args, **named: pytest.fail("nobody is there"))
    model = torch.nn.BatchNorm2d(3)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    _share_buffers(model)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


class FakeRay:
    """Stands in for Ray Train: keeps what is reported in a folder.

    Args:
        folder: Where checkpoints go.
        rank: Of the worker.
        start: The checkpoint to go on from.
    """

    def __init__(self, folder: Path, rank: int = 0, start: Path | None = None) -> None:
        self._folder, self._rank, self._start = folder, rank, start
        self.reports: list[Path | None] = []

    def get_context(self) -> "FakeRay":
        return self

    def get_world_rank(self) -> int:
        return self._rank

    def get_world_size(self) -> int:
        return 1

    def get_checkpoint(self) -> Any:
        return None if self._start is None else loop.ray.train.Checkpoint.from_directory(str(self._start))

    def report(self, metrics: dict[str, Any], checkpoint: Any = None) -> None:
        kept = None
        if checkpoint is not None:
            kept = self._folder / f"report{len(self.reports)}"
            shutil.copytree(checkpoint.path, kept)
        self.reports.append(kept)

    def run(self, job: TrainingJob, monkeypatch: pytest.MonkeyPatch, scratch: Path) -> list[dict[str, Any]]:
        """Train, and give the events."""
        events: list[dict[str, Any]] = []
        with monkeypatch.context() as patched:
            for name in ("get_context", "get_checkpoint", "report"):
                patched.setattr(loop.ray.train, name, getattr(self, name))
            patched.setattr(loop.ray.train.torch, "get_device", lambda: torch.device("cpu"))
            patched.setattr(loop, "keep_freed_memory", lambda: None)
            train_loop({"job": job, "tell": events.append, "scratch": scratch})
        return events


@pytest.fixture
def job(
    make_scene: Callable[..., TrainingScene],
    paint: Callable[..., NDArray[np.uint8]],
    take_survey: Callable[..., Survey],
) -> TrainingJob:
    """Two epochs on a scene that is large enough to measure the halo of a small U-Net."""
    image = paint(128, 160)
    scene = make_scene("scene", image, (image[0] > 120).astype(np.uint8))
    return TrainingJob(
        classes=ClassTable.from_items([("dark", None), ("bright", None)]),
        label_map=LabelMap(2),
        train=(scene,),
        validate=(scene,),
        survey=take_survey((scene,), 32, LabelMap(2)),
        band_names=("", "", ""),
        bands=None,
        dtype="uint8",
        model=Model(encoder="resnet18", weights=None, options={"encoder_depth": 3, "decoder_channels": [16, 16, 8]}),
        settings=Training(epochs=EPOCHS, tile=64, batch_size=2, precision="float32"),
        steps_per_epoch=2,
        threads=1,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_halo_is_measured_when_the_last_epoch_is_over(
    job: TrainingJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = FakeRay(tmp_path)
    events = ray.run(job, monkeypatch, tmp_path / "scratch")
    assert [event["kind"] for event in events if event["kind"] != "step"] == ["epoch", "epoch", "halo"]
    before, after = ray.reports[-2:]
    assert len(ray.reports) == EPOCHS + 1
    assert before is not None
    assert after is not None
    assert read_card(before / "bundle").halo_curve is None
    card = read_card(after / "bundle")
    assert card.halo_curve is not None
    assert events[-1] == {"kind": "halo", "halo": card.halo, "curve": card.halo_curve.to_json()}
    assert card.halo_curve.points[0][1] > 0
    # The model is that of the best epoch still.
    assert (before / "bundle" / "model.safetensors").read_bytes() == (
        after / "bundle" / "model.safetensors"
    ).read_bytes()
    assert card.training == read_card(before / "bundle").training

    resumed = FakeRay(tmp_path / "again", start=after)
    assert [event["kind"] for event in resumed.run(job, monkeypatch, tmp_path / "scratch")] == ["resume"]
    assert resumed.reports == []


def test_a_worker_killed_while_it_measured_ends_with_the_same_bytes(
    job: TrainingJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = FakeRay(tmp_path / "whole")
    whole.run(job, monkeypatch, tmp_path / "scratch")
    before, after = whole.reports[-2:]
    assert before is not None
    assert after is not None
    # What a worker finds that is started again after the kill: the last epoch's checkpoint.
    resumed = FakeRay(tmp_path / "resumed", start=before)
    events = resumed.run(job, monkeypatch, tmp_path / "scratch")
    assert [event["kind"] for event in events] == ["resume", "halo"]
    assert len(resumed.reports) == 1
    assert resumed.reports[0] is not None
    assert contents(resumed.reports[0] / "bundle") == contents(after / "bundle")


def test_other_workers_report_as_often_as_the_first_and_do_not_measure(
    job: TrainingJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = FakeRay(tmp_path / "first")
    first.run(job, monkeypatch, tmp_path / "scratch")
    monkeypatch.setattr(loop, "calibrate_halo", lambda *args, **named: pytest.fail("this is the first worker's"))
    second = FakeRay(tmp_path / "second", rank=1)
    assert second.run(job, monkeypatch, tmp_path / "scratch") == []
    assert second.reports == [None] * len(first.reports)
    for start in first.reports[-2:]:
        resumed = FakeRay(tmp_path / "resumed", rank=1, start=start)
        resumed.run(job, monkeypatch, tmp_path / "scratch")
        assert len(resumed.reports) == (1 if start == first.reports[-2] else 0)


def test_scenes_too_small_to_measure_leave_the_default(
    job: TrainingJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "calibrate_halo", lambda *args, **named: None)
    ray = FakeRay(tmp_path)
    events = ray.run(job, monkeypatch, tmp_path / "scratch")
    assert events[-1] == {"kind": "halo", "halo": 64, "curve": None}
    assert ray.reports[-1] is not None
    assert read_card(ray.reports[-1] / "bundle").halo_curve is None
