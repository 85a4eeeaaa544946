"""What the workers of a training do together, and what the first one does when the last epoch is over."""

import errno
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import segbatch.training.crew as crew_module
import segbatch.training.epoch as epoch
import segbatch.training.loop as loop
from segbatch.classes import ClassTable, LabelMap
from segbatch.config import Model, Training
from segbatch.models.card import read_card
from segbatch.training.augmentation import source_side
from segbatch.training.checkpoint import has_checkpoint, rescue
from segbatch.training.crew import Crew
from segbatch.training.job import TrainingJob
from segbatch.training.learner import Learner
from segbatch.training.loop import PROBLEM, train_loop
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

    monkeypatch.setattr(torch.distributed, "broadcast", broadcast)
    assert not torch.equal(own.running_mean, first.running_mean)
    Crew(1, 2, torch.device("cpu"), None).share_buffers(own)
    for name, buffer in first.named_buffers():
        assert torch.equal(buffer, own.state_dict()[name])


def test_a_single_worker_shares_with_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "broadcast", lambda *args, **named: pytest.fail("nobody is there"))
    model = torch.nn.BatchNorm2d(3)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    Crew(0, 1, torch.device("cpu"), None).share_buffers(model)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


class FakeRay:
    """Stands in for Ray Train and the driver's wire: keeps what is reported in a folder.

    Args:
        folder: Where checkpoints go.
        start: The checkpoint to go on from.
        stop_at: Number of the step at which the driver asks to stop.
        preempted: Whether a node is about to be taken away.
    """

    def __init__(
        self, folder: Path, start: Path | None = None, stop_at: int | None = None, preempted: bool = False
    ) -> None:
        self._folder, self._start = folder, start
        self._stop_at, self._asked, self._preempted = stop_at, 0, preempted
        self.reports: list[Path | None] = []
        self.events: list[dict[str, Any]] = []

    def tell(self, event: dict[str, Any]) -> None:
        self.events.append(json.loads(json.dumps(event)))

    def asks_to_stop(self) -> bool:
        self._asked += 1
        return self._asked == self._stop_at

    def get_preemption_info(self) -> Any:
        return object() if self._preempted else None

    def get_context(self) -> "FakeRay":
        return self

    def get_world_rank(self) -> int:
        return 0

    def get_world_size(self) -> int:
        return 1

    def get_checkpoint(self) -> Any:
        return None if self._start is None else crew_module.ray.train.Checkpoint.from_directory(str(self._start))

    def report(self, metrics: dict[str, Any], checkpoint: Any = None) -> None:
        kept = None
        if checkpoint is not None:
            kept = self._folder / f"report{len(self.reports)}"
            assert not kept.exists()
            shutil.copytree(checkpoint.path, kept)
        self.reports.append(kept)

    def run(self, job: TrainingJob, monkeypatch: pytest.MonkeyPatch, scratch: Path) -> list[dict[str, Any]]:
        """Train, and give the events."""
        with monkeypatch.context() as patched:
            for name in ("get_context", "get_checkpoint", "report", "get_preemption_info"):
                patched.setattr(crew_module.ray.train, name, getattr(self, name))
            patched.setattr(crew_module.ray.train.torch, "get_device", lambda: torch.device("cpu"))
            patched.setattr(loop, "keep_freed_memory", lambda: None)
            train_loop({"job": job, "wire": self, "scratch": scratch})
        return self.events


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


@pytest.fixture
def no_halo(monkeypatch: pytest.MonkeyPatch) -> None:
    """The halo is not measured, which takes longer than the training."""
    monkeypatch.setattr(loop, "calibrate_halo", lambda *args, **named: None)


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


def test_scenes_too_small_to_measure_leave_the_default(
    job: TrainingJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "calibrate_halo", lambda *args, **named: None)
    ray = FakeRay(tmp_path)
    events = ray.run(job, monkeypatch, tmp_path / "scratch")
    assert events[-1] == {"kind": "halo", "halo": 64, "curve": None}
    assert ray.reports[-1] is not None
    assert read_card(ray.reports[-1] / "bundle").halo_curve is None


def course(report: Path | None) -> tuple[Any, ...]:
    """What of a checkpoint does not depend on the clock."""
    assert report is not None
    state = torch.load(report / "state.pt", weights_only=True)
    kept = json.loads((report / "course.json").read_text())
    history = [{key: row[key] for key in ("epoch", "loss", "miou", "iou", "learning_rate")} for row in kept["history"]]
    tensors = {**state["model"], **{f"average.{name}": value for name, value in state["average"].items()}}
    return (
        state["step"],
        history,
        (kept["sums"]["steps"], kept["sums"]["loss"]),
        {name: hashlib.sha256(value.numpy().tobytes()).hexdigest() for name, value in tensors.items()},
    )


@pytest.mark.usefixtures("no_halo")
def test_a_torn_list_of_checkpoints_costs_no_step(
    job: TrainingJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Ray Train leaves it when it is killed while it writes; what the weights came from has gone meanwhile."""
    whole = FakeRay(tmp_path / "whole")
    whole.run(job, monkeypatch, tmp_path / "scratch")
    scratch = tmp_path / "torn"
    assert not has_checkpoint(scratch)
    for name, report in zip(("checkpoint_2", "checkpoint_1"), reversed(whole.reports[:2]), strict=True):
        shutil.copytree(report, scratch / name)  # type: ignore[arg-type]
    listed = scratch / "checkpoint_manager_snapshot.json"
    listed.write_text('{"checkpoint_results": []}')
    rescue(scratch)
    assert listed.exists()
    assert not (scratch / "rescued").exists()
    listed.write_text('{"checkpoint_res')
    (scratch / "rescued.partial").mkdir()  # of a rescue that was killed itself
    rescue(scratch)
    assert has_checkpoint(scratch)
    assert not listed.exists()
    gone = replace(job, model=job.model.model_copy(update={"init": str(tmp_path / "gone")}))
    resumed = FakeRay(tmp_path / "resumed")
    events = resumed.run(gone, monkeypatch, scratch)
    assert (events[0]["kind"], events[0]["global_step"]) == ("resume", 4)
    assert course(resumed.reports[-1]) == course(whole.reports[-1])


@pytest.mark.usefixtures("no_halo")
def test_the_state_is_saved_every_so_many_steps(
    job: TrainingJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = replace(job, settings=job.settings.model_copy(update={"checkpoint_steps": 3}), steps_per_epoch=4)
    ray = FakeRay(tmp_path)
    ray.run(job, monkeypatch, tmp_path / "scratch")
    # Steps 3 and 6, the ends of the epochs, and the halo.
    assert [course(report)[0] for report in ray.reports] == [3, 4, 6, 8, 8]
    assert not (ray.reports[0] / "bundle").exists()  # type: ignore[operator]
    assert not (tmp_path / "scratch" / "reported").exists()


@pytest.mark.usefixtures("no_halo")
@pytest.mark.parametrize("stop_at", [1, 3, 4, 6])
def test_a_training_stopped_at_any_step_goes_on_to_the_same_end(
    job: TrainingJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    """With noise, whose random numbers a resumed worker must draw as the first would have."""
    job = replace(job, settings=job.settings.model_copy(update={"noise": 0.2}), steps_per_epoch=3)
    whole = FakeRay(tmp_path / "whole")
    whole.run(job, monkeypatch, tmp_path / "scratch")

    first = FakeRay(tmp_path / "first", stop_at=stop_at)
    first.run(job, monkeypatch, tmp_path / "scratch")
    assert course(first.reports[-1])[0] == stop_at
    assert course(first.reports[-1])[2][0] == (stop_at - 1) % 3 + 1
    assert not any(event["kind"] == "halo" for event in first.events)

    second = FakeRay(tmp_path / "second", start=first.reports[-1])
    events = second.run(job, monkeypatch, tmp_path / "scratch")
    done = (stop_at - 1) // 3
    # What was saved is told again: who listened may have been killed before it heard of it.
    history = [row for event in whole.events if event["kind"] == "epoch" for row in event["history"][-1:]][:done]
    assert {key: events[0][key] for key in ("kind", "epoch", "step", "global_step")} == {
        "kind": "resume", "epoch": done, "step": stop_at - 3 * done, "global_step": stop_at,
    }  # fmt: skip
    assert [(row["epoch"], row["loss"], row["miou"]) for row in events[0]["history"]] == [
        (row["epoch"], row["loss"], row["miou"]) for row in history
    ]
    assert course(second.reports[-1]) == course(whole.reports[-1])
    ended, expected = (contents(reports[-1] / "bundle") for reports in (second.reports, whole.reports))  # type: ignore[operator]
    assert ended["model.safetensors"] == expected["model.safetensors"]


@pytest.mark.usefixtures("no_halo")
def test_a_notice_that_a_node_goes_away_saves_the_state_once(
    job: TrainingJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew_module, "_SECONDS_BETWEEN_LOOKS", 0.0)
    ray = FakeRay(tmp_path, preempted=True)
    ray.run(replace(job, steps_per_epoch=3), monkeypatch, tmp_path / "scratch")
    assert [course(report)[0] for report in ray.reports] == [1, 3, 6, 6]


@pytest.mark.usefixtures("no_halo")
def test_a_loss_that_is_no_number_ends_with_its_tile_and_the_last_state(
    job: TrainingJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Learner.backward

    def backward(self: Learner, batch: Any) -> torch.Tensor:
        if self.step == 3:
            batch.gain[1] = float("inf")
        return real(self, batch)

    monkeypatch.setattr(Learner, "backward", backward)
    ray = FakeRay(tmp_path / "kept")
    ray.run(job, monkeypatch, tmp_path / "scratch")
    assert course(ray.reports[-1])[0] == 2
    said = (tmp_path / "scratch" / PROBLEM).read_text()
    number = job.tile_numbers(3, 0, 1)[1]
    sampler = epoch.TileSampler(job.train, job.survey, job.settings.balance, job.settings.seed)
    rng = sampler.rng(number)
    window = sampler.place(number, source_side(job.settings.tile, job.augmentation, rng), rng).window
    assert said.startswith("The loss became ")
    assert f"at step 3, with the tile at column {window.col_off}, row {window.row_off} of {job.train[0].image}." in said


@pytest.mark.usefixtures("no_halo")
def test_a_full_disk_ends_with_a_reason_and_the_last_state(
    job: TrainingJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Learner.save

    def save(self: Learner, path: Path) -> None:
        if self.step == 4:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(self, path)

    monkeypatch.setattr(Learner, "save", save)
    ray = FakeRay(tmp_path / "kept")
    ray.run(job, monkeypatch, tmp_path / "scratch")
    assert [course(report)[0] for report in ray.reports] == [2]
    said = (tmp_path / "scratch" / PROBLEM).read_text()
    assert said.startswith(f"The checkpoint of step 4 cannot be written to {tmp_path / 'scratch'}: No space left")
    assert "run the same command again" in said


@pytest.mark.usefixtures("no_halo")
def test_a_disk_without_room_for_ray_trains_copy_is_found_before_it_is_made(
    job: TrainingJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=1_000_000))
    ray = FakeRay(tmp_path / "kept")
    ray.run(job, monkeypatch, tmp_path / "scratch")
    assert ray.reports == []
    said = (tmp_path / "scratch" / PROBLEM).read_text()
    assert "The checkpoint of step 2 cannot be written" in said
    assert "No space left on device (1 MB free)" in said


@given(st.integers(0, 1000), st.integers(1, 64), st.integers(1, 16))
def test_workers_share_a_steps_tiles_evenly(step: int, batch_size: int, world: int) -> None:
    settings = Training(batch_size=batch_size)
    job = TrainingJob(**{**dict.fromkeys(TrainingJob.__slots__), "settings": settings})
    shares = [job.tile_numbers(step, rank, world) for rank in range(world)]
    assert [number for share in shares for number in share] == list(range(step * batch_size, (step + 1) * batch_size))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
