"""What each of Ray Train's workers runs."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from segbatch.errors import SegbatchError, TrainingError
from segbatch.evaluation import compute_metrics, one_class_miou
from segbatch.inference.calibration import calibrate_halo
from segbatch.inference.predictor import Predictor
from segbatch.inference.samples import Source
from segbatch.models.allocator import keep_freed_memory
from segbatch.models.backends.forward import Forward
from segbatch.models.build import build_model, model_stride
from segbatch.models.bundle import Bundle
from segbatch.models.card import Card, default_halo
from segbatch.models.pretrained import load_from_bundle
from segbatch.redaction import redact
from segbatch.storage import write_whole
from segbatch.training.checkpoint import EpochSums, TrainState, last, load, save
from segbatch.training.crew import Bell, Crew
from segbatch.training.epoch import run_epoch
from segbatch.training.job import TrainingJob
from segbatch.training.learner import Learner
from segbatch.training.losses import weigh_classes
from segbatch.training.validation import validate

PROBLEM = "problem"
"""Name of the file in a training's scratch folder that says why it ended."""

_SECONDS_BETWEEN_SAVES = 300.0

_CALIBRATION_PIXELS = 5_000_000
"""Of validation scenes that measure the halo; about twice as many are run, some seconds on two cores."""


def train_loop(config: dict[str, Any]) -> None:
    """Fit a model: Ray Train calls this in each worker.

    A worker that raises is started again from the last checkpoint. What would end the same way again is written to
    `PROBLEM` instead.

    Args:
        config: ``job``, a `TrainingJob`; ``wire``, a `Wire`; and ``scratch``, a folder of this training alone.
    """
    crew = Crew.join(config["wire"])
    try:
        _train(config["job"], crew, config["scratch"])
    except SegbatchError as error:
        # All workers know of a `TrainingError`; those beside one that found a damaged scene wait for it forever.
        if crew.world > 1 and not isinstance(error, TrainingError):
            raise
        if crew.rank == 0:
            try:
                write_whole(config["scratch"] / PROBLEM, redact(str(error)).encode())
            except OSError:
                raise error from None


def _train(job: TrainingJob, crew: Crew, scratch: Path) -> None:
    settings = job.settings
    keep_freed_memory()
    torch.set_num_threads(job.threads)
    torch.get_num_threads()  # from now on it is this thread's own number, whatever others set for theirs
    torch.manual_seed(settings.seed)
    checkpoint = last(crew, scratch)
    model = _network(job, crew, fresh=checkpoint is None)
    learner = Learner(
        model if crew.world == 1 else torch.nn.parallel.DistributedDataParallel(model, find_unused_parameters=True),
        model,
        settings,
        job.total_steps,
        weigh_classes(settings.class_weights, job.survey.class_pixels, job.survey.shared_pixels),
        job.survey,
        crew.device,
        (crew.rank, crew.world),
    )
    stride = model_stride(model)
    bell = Bell(crew, settings.checkpoint_steps, _SECONDS_BETWEEN_SAVES)
    state = TrainState()
    if checkpoint is not None:
        state = load(learner, checkpoint)
        crew.tell(
            kind="resume",
            epoch=len(state.history),
            step=state.sums.steps,
            global_step=learner.step,
            history=state.history,
        )
    while len(state.history) < settings.epochs:
        if _is_stale(state.history, settings.patience):
            crew.tell(kind="stale", epoch=len(state.history), patience=settings.patience)
            break
        if not run_epoch(job, learner, state, crew, bell, scratch):
            return
        _end_epoch(job, learner, state, crew, stride)
        save(learner, state, crew, scratch)
        bell.saved()
        crew.tell(kind="epoch", history=state.history, epochs=settings.epochs, global_step=learner.step)
    best = state.best
    assert best is not None  # there is at least one epoch
    # What a resumed worker finds decides for all of them alike: each that saves waits for the others.
    if job.calibrate and best.card.halo_curve is None:
        if crew.rank == 0:
            state.best = best = _calibrated(best, job, crew.device)
        save(learner, state, crew, scratch)
        curve = best.card.halo_curve
        crew.tell(kind="halo", halo=best.card.halo, curve=None if curve is None else curve.to_json())


def _network(job: TrainingJob, crew: Crew, fresh: bool) -> torch.nn.Module:
    # The first worker's weights reach the others when the model is wrapped, so one download is enough. A training that
    # goes on has them all, and the files that it once started from may have gone.
    first = fresh and crew.rank == 0
    model = build_model(
        job.model.architecture,
        job.model.encoder,
        in_channels=len(job.band_names),
        num_classes=len(job.classes),
        weights=job.model.weights if first else None,
        options=job.model.options,
    )
    if job.model.init is not None and first:
        load_from_bundle(model, job.classes, job.model.init)
    model = model.to(device=crew.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if job.settings.sync_batch_norm and crew.device.type == "cuda":
        return torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return model


def _is_stale(history: list[dict[str, Any]], patience: int | None) -> bool:
    """Whether no epoch of the last few was better than those before."""
    if patience is None or len(history) <= patience:
        return False
    scores = [past["miou"] or 0 for past in history]
    return max(scores[-patience:]) <= max(scores[:-patience])


def _end_epoch(job: TrainingJob, learner: Learner, state: TrainState, crew: Crew, stride: int) -> None:
    """Validate, and keep the model if it is the best so far."""
    started = time.perf_counter()
    halo = default_halo(stride)
    crew.share_buffers(learner.kept)
    predictor = Predictor(Forward(learner.snapshot(), job.survey.mean, job.survey.std, device=crew.device))
    confusion = crew.summed_matrix(
        validate(predictor, job.validate, job.label_map, stride=stride, halo=halo, part=(crew.rank, crew.world))
    )
    metrics, sums = compute_metrics(confusion), state.sums
    if state.best is None or (metrics.miou or 0) > max(past["miou"] or 0 for past in state.history):
        best = learner.snapshot()
    else:
        best = state.best.model
    state.history.append(
        {
            "epoch": len(state.history) + 1,
            "loss": sums.loss / sums.steps,
            "miou": metrics.miou,
            "one_class_miou": one_class_miou(confusion),
            "pixel_accuracy": metrics.pixel_accuracy,
            "iou": [figures.iou for figures in metrics.classes],
            "learning_rate": learner.learning_rate,
            "tiles_per_second": sums.steps * job.settings.batch_size / sums.seconds,
            "waited": sums.waited / sums.seconds,
            "train_seconds": sums.seconds,
            "validate_seconds": time.perf_counter() - started,
        }
    )
    state.sums = EpochSums()
    state.best = Bundle(best, _card(job, stride, halo, state.history))


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
        percentiles=job.survey.percentiles,
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
