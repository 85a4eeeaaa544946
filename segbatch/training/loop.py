"""What each of Ray Train's workers runs."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import ray.train.torch
import torch
from numpy.typing import NDArray

from segbatch.classes import ClassTable, LabelMap
from segbatch.config import Model, Training
from segbatch.evaluation import compute_metrics
from segbatch.inference.calibration import calibrate_halo
from segbatch.inference.predictor import Predictor
from segbatch.inference.samples import Source
from segbatch.models.allocator import keep_freed_memory
from segbatch.models.backends.forward import Forward
from segbatch.models.build import build_model, model_stride
from segbatch.models.bundle import Bundle, load_bundle, save_bundle
from segbatch.models.card import Card, default_halo
from segbatch.models.pretrained import load_from_bundle
from segbatch.training.feed import stream
from segbatch.training.learner import Learner
from segbatch.training.losses import weigh_classes
from segbatch.training.survey import Survey, TrainingScene
from segbatch.training.tiles import TileSampler
from segbatch.training.validation import validate

_STATE = "state.pt"
HISTORY = "history.json"
"""In a checkpoint: a row for each epoch."""

_BUNDLE = "bundle"
_SECONDS_BETWEEN_EVENTS = 5.0

_CALIBRATION_PIXELS = 5_000_000
"""Of validation scenes that measure the halo; about twice as many are run, some seconds on two cores."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingJob:
    """All that a worker needs to know.

    Args:
        classes: The class table.
        label_map: From label values to class ids.
        train: Scenes to learn from.
        validate: Scenes that choose the best epoch.
        survey: Statistics of the training scenes.
        band_names: Of the model's channels.
        bands: 1-based band numbers where the user chose them, else None.
        dtype: numpy's name of the scenes' pixel type.
        model: The network.
        settings: How it is fitted.
        steps_per_epoch: Optimizer steps an epoch.
        threads: Torch threads a worker.
        calibrate: Whether to measure the halo when the last epoch is over.
    """

    classes: ClassTable
    label_map: LabelMap
    train: tuple[TrainingScene, ...]
    validate: tuple[TrainingScene, ...]
    survey: Survey
    band_names: tuple[str, ...]
    bands: tuple[int, ...] | None
    dtype: str
    model: Model
    settings: Training
    steps_per_epoch: int
    threads: int
    calibrate: bool = True


def train_loop(config: dict[str, Any]) -> None:
    """Fit a model: Ray Train calls this in each worker.

    Args:
        config: ``job``, a `TrainingJob`; ``tell``, a function that takes progress events (dicts); and ``scratch``, a
            folder of this training alone.
    """
    job: TrainingJob = config["job"]
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    tell: Callable[[dict[str, Any]], None] = config["tell"] if rank == 0 else lambda event: None
    keep_freed_memory()
    torch.set_num_threads(job.threads)
    torch.manual_seed(job.settings.seed)
    device = ray.train.torch.get_device()
    bare = build_model(
        job.model.architecture,
        job.model.encoder,
        in_channels=len(job.band_names),
        num_classes=len(job.classes),
        # Rank 0's weights reach the others when the model is wrapped, so one download is enough.
        weights=job.model.weights if rank == 0 else None,
        options=job.model.options,
    )
    if job.model.init is not None and rank == 0:
        load_from_bundle(bare, job.classes, job.model.init)
    bare = bare.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if job.settings.sync_batch_norm and device.type == "cuda":
        bare = torch.nn.SyncBatchNorm.convert_sync_batchnorm(bare)
    learner = Learner(
        bare if world == 1 else torch.nn.parallel.DistributedDataParallel(bare, find_unused_parameters=True),
        bare,
        job.settings,
        job.settings.epochs * job.steps_per_epoch,
        weigh_classes(job.settings.class_weights, job.survey.class_pixels, job.survey.shared_pixels),
        job.survey.mean,
        job.survey.std,
        device,
    )
    stride = model_stride(bare)
    halo = default_halo(stride)
    history: list[dict[str, Any]] = []
    bundle: Bundle | None = None
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            learner.load(Path(folder) / _STATE)
            history = json.loads((Path(folder) / HISTORY).read_text())
            bundle = load_bundle(Path(folder) / _BUNDLE)
        tell({"kind": "resume", "epoch": len(history)})
    for epoch in range(len(history), job.settings.epochs):
        if _is_stale(history, job.settings.patience):
            tell({"kind": "stale", "epoch": epoch, "patience": job.settings.patience})
            break
        started = time.perf_counter()
        mean_loss, waited = _run_epoch(job, learner, epoch, rank, world, tell)
        trained = time.perf_counter()
        _share_buffers(learner.kept)
        predictor = Predictor(Forward(learner.snapshot(), job.survey.mean, job.survey.std, device=device))
        confusion = _summed(
            validate(predictor, job.validate, job.label_map, stride=stride, halo=halo, part=(rank, world)), device
        )
        metrics = compute_metrics(confusion)
        row = {
            "epoch": epoch + 1,
            "loss": mean_loss,
            "miou": metrics.miou,
            "pixel_accuracy": metrics.pixel_accuracy,
            "iou": [figures.iou for figures in metrics.classes],
            "learning_rate": learner.learning_rate,
            "tiles_per_second": job.steps_per_epoch * job.settings.batch_size / (trained - started),
            "waited": waited / (trained - started),
            "train_seconds": trained - started,
            "validate_seconds": time.perf_counter() - trained,
        }
        if bundle is None or (metrics.miou or 0) > max(past["miou"] or 0 for past in history):
            best = learner.snapshot()
        else:
            best = bundle.model
        history.append(row)
        bundle = Bundle(best, _card(job, stride, halo, history))
        _report(learner, bundle, history, rank, config["scratch"])
        tell({"kind": "epoch", "history": history, "epochs": job.settings.epochs})
    assert bundle is not None  # there is at least one epoch
    # What a resumed worker finds decides for all of them alike: each that reports waits for the others.
    if job.calibrate and bundle.card.halo_curve is None:
        if rank == 0:
            bundle = _calibrated(bundle, job, device)
        _report(learner, bundle, history, rank, config["scratch"])
        tell(_halo_event(bundle.card))


def _is_stale(history: list[dict[str, Any]], patience: int | None) -> bool:
    """Whether no epoch of the last few was better than those before."""
    if patience is None or len(history) <= patience:
        return False
    scores = [past["miou"] or 0 for past in history]
    return max(scores[-patience:]) <= max(scores[:-patience])


def _card(job: TrainingJob, stride: int, halo: int, history: list[dict[str, Any]]) -> Card:
    """The card of the best epoch's model."""
    return Card(
        classes=job.classes,
        band_names=job.band_names,
        bands=job.bands,
        dtype=job.dtype,
        mean=job.survey.mean,
        std=job.survey.std,
        stride=stride,
        halo=halo,
        label_map=job.label_map,
        training={**max(history, key=lambda past: past["miou"] or 0), "history": history},
    )


def _calibrated(bundle: Bundle, job: TrainingJob, device: torch.device) -> Bundle:
    """The bundle with what halos are worth to its model, as far as the validation scenes can tell."""
    card = bundle.card
    curve = calibrate_halo(
        Forward(bundle.model, card.mean, card.std, device=device),
        [Source(scene.image, scene.nodata, scene.bands, scene.window) for scene in job.validate],
        stride=card.stride,
        pixels=_CALIBRATION_PIXELS,
    )
    return Bundle(bundle.model, replace(card, halo_curve=curve))


def _halo_event(card: Card) -> dict[str, Any]:
    curve = card.halo_curve
    return {"kind": "halo", "halo": card.halo, "curve": None if curve is None else curve.to_json()}


def _run_epoch(
    job: TrainingJob, learner: Learner, epoch: int, rank: int, world: int, tell: Callable[[dict[str, Any]], None]
) -> tuple[float, float]:
    """Take an epoch's steps.

    Returns:
        Mean loss of this worker's tiles, and seconds spent waiting for tiles.
    """
    settings = job.settings
    share = settings.batch_size // world
    first_step = epoch * job.steps_per_epoch

    def numbers() -> Iterator[range]:
        for step in range(first_step, first_step + job.steps_per_epoch):
            first = step * settings.batch_size + rank * share
            yield range(first, first + share)

    sampler = TileSampler(job.train, job.survey, settings.balance, settings.seed)
    batches = stream(
        job.train,
        job.label_map,
        sampler,
        batches=list(numbers()),
        side=settings.tile,
        augment=settings.augment,
        scale=settings.scale,
    )
    total, waited = 0.0, 0.0
    told = started = time.perf_counter()
    for step, batch in enumerate(batches, start=1):
        total += learner.learn(batch).item()
        waited += batch.waited
        now = time.perf_counter()
        if now - told > _SECONDS_BETWEEN_EVENTS:
            told = now
            tell(
                {
                    "kind": "step",
                    "epoch": epoch + 1,
                    "epochs": settings.epochs,
                    "step": step,
                    "steps": job.steps_per_epoch,
                    "loss": total / step,
                    "learning_rate": learner.learning_rate,
                    "tiles_per_second": step * settings.batch_size / (now - started),
                    "waited": waited / (now - started),
                }
            )
    return total / job.steps_per_epoch, waited


def _share_buffers(model: torch.nn.Module) -> None:
    """Give all workers rank 0's batch normalisation statistics, so that they validate the model that is kept."""
    if torch.distributed.is_initialized():
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, src=0)


def _summed(confusion: NDArray[np.int64], device: torch.device) -> NDArray[np.int64]:
    """The matrix added up over all workers."""
    if not torch.distributed.is_initialized():
        return confusion
    total = torch.from_numpy(confusion).to(device)
    torch.distributed.all_reduce(total)
    return total.cpu().numpy()


def _report(learner: Learner, bundle: Bundle, history: list[dict[str, Any]], rank: int, scratch: Path) -> None:
    """Hand the state to Ray Train, which stores it; every worker must call, rank 0 brings the files.

    They are written beside Ray Train's own, so that what a killed worker leaves goes when the training is done.
    """
    metrics = {key: value for key, value in history[-1].items() if key != "iou"}
    if rank != 0:
        ray.train.report(metrics)
        return
    folder = scratch / "reported"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        learner.save(folder / _STATE)
        (folder / HISTORY).write_text(json.dumps(history))
        save_bundle(folder / _BUNDLE, bundle)
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(os.fspath(folder)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
