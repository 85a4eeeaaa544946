"""How much of a bare PyTorch loop's speed training keeps, and how its tiles had best be brought to the model."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segbatch.bench.material import cores
from segbatch.bench.processes import alone
from segbatch.bench.show import figure, percent, print_table
from segbatch.commands.split import open_labelled
from segbatch.commands.train import make_job, training_scenes
from segbatch.config import RunConfig
from segbatch.geometry import Window
from segbatch.models.allocator import keep_freed_memory
from segbatch.models.build import build_model
from segbatch.runtime import ray_session
from segbatch.training.feed import Batch, load_batch, stream
from segbatch.training.job import TrainingJob
from segbatch.training.learner import Learner
from segbatch.training.losses import build_loss
from segbatch.training.survey import TrainingScene
from segbatch.training.tiles import TileReader, TileSampler
from segbatch.training.trainer import Workers, fit, survey_scenes

_WARM_UP = 3
_VALIDATION_SIDE = 256
"""Validation is no part of what is measured: as little of it as can be."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a way of training is.

    Args:
        way: What was measured.
        tiles_per_second: In the steps after the first few.
        waited: Share of that time in which the model waited for tiles; None where there is nothing to wait for.
    """

    way: str
    tiles_per_second: float
    waited: float | None = None


@dataclass(frozen=True, slots=True)
class TrainingSpeed:
    """What was measured.

    Args:
        bare: A PyTorch loop over tensors in memory, before and after the others.
        trainer: `segbatch train` with one worker that has all cores.
        shared: The same with two workers that share them; None where there is one core only.
        ingest: The same steps outside Ray Train, with tiles from readers in the process and from Ray Data.
    """

    bare: tuple[Pace, Pace]
    trainer: Pace
    shared: Pace | None
    ingest: tuple[Pace, Pace]


def measure_training(config: RunConfig, folder: Path, steps: int) -> TrainingSpeed:
    """Measure all ways one after the other.

    Args:
        config: What to train; its number of workers, epochs and steps are not used.
        folder: For files that are made.
        steps: Optimizer steps of each way.
    """
    scenes = open_labelled(config)
    with ray_session("local"):
        train_scenes = training_scenes(config, scenes["train"])
        survey = survey_scenes(train_scenes, config.training.tile // 2, config.label_map(), folder)
    job = make_job(config, scenes, survey, cores())
    settings = job.settings.model_copy(update={"epochs": 2, "patience": None, "checkpoint_steps": None})
    job = replace(job, settings=settings, steps_per_epoch=steps, validate=(_little(job.validate[0]),))
    before = alone(bare_loop, job, steps)
    trainer = alone(trainer_loop, job, folder, 1)
    shared = alone(trainer_loop, replace(job, threads=cores() // 2), folder, 2) if cores() > 1 else None
    ingest = alone(ingest_loop, job, steps, False), alone(ingest_loop, job, steps, True)
    return TrainingSpeed((before, alone(bare_loop, job, steps)), trainer, shared, ingest)


def bare_loop(job: TrainingJob, steps: int) -> Pace:
    """Steps of a plain loop over one batch of normalised tiles in memory; compiled where there is a GPU.

    Its optimizer is PyTorch's AdamW as it comes.
    """
    learner, model, device = _learner(job)
    with TileReader(job.train, job.label_map) as reader:
        batch = load_batch(reader, _sampler(job), job.tile_numbers(0, 0, 1), job.settings.tile, job.augmentation)
    pixels = learner.pixels(batch).contiguous(memory_format=torch.channels_last)
    label = batch.label.to(device)
    loss_of = build_loss(job.settings.loss)
    optimizer = torch.optim.AdamW(model.parameters(), lr=job.settings.learning_rate)
    forward: Any = torch.compile(model) if device.type == "cuda" else model
    model.train()

    def step() -> None:
        with learner.autocast:
            logits = forward(pixels)
        loss = loss_of(logits.float(), label)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss.item()

    for _ in range(_WARM_UP):
        step()
    started = time.perf_counter()
    for _ in range(steps):
        step()
    return Pace("bare PyTorch loop", steps * len(batch) / (time.perf_counter() - started))


def trainer_loop(job: TrainingJob, folder: Path, count: int) -> Pace:
    """The second epoch of a training as `segbatch train` does it."""
    rows: list[dict[str, Any]] = []

    def listen(event: dict[str, Any]) -> None:
        if event["kind"] == "epoch":
            rows[:] = event["history"]

    with ray_session("local") as resources:
        use_gpu = resources.wants_gpu(job.settings.use_gpu, count)
        storage = folder / "storage"
        workers = Workers(count, count, job.threads, use_gpu, 0, local=True)
        fit(job, workers, storage, f"train{count}", folder / f"bundle{count}", listen)
    shutil.rmtree(storage)
    way = f"segbatch, {count} worker{'s' if count > 1 else ''} of {job.threads} thread{'s' if job.threads > 1 else ''}"
    return Pace(way, rows[-1]["tiles_per_second"], rows[-1]["waited"])


def ingest_loop(job: TrainingJob, steps: int, ray_data: bool) -> Pace:
    """Steps of the trainer's in this process, with tiles from threads of its own or from a Ray Data pipeline."""
    learner, _, _ = _learner(job)
    numbers = [job.tile_numbers(step, 0, 1) for step in range(steps + _WARM_UP)]
    with ray_session("local"):
        batches = _from_ray_data(job, numbers) if ray_data else _from_readers(job, numbers)
        waited, tiles, started, asked = 0.0, 0, 0.0, time.perf_counter()
        for number, batch in enumerate(batches):
            if number == _WARM_UP:
                started, waited, tiles = asked, 0.0, 0
            waited += time.perf_counter() - asked
            learner.backward(batch)
            learner.apply()
            tiles += len(batch)
            asked = time.perf_counter()
    elapsed = asked - started
    return Pace("no Ray Train, Ray Data" if ray_data else "no Ray Train, readers", tiles / elapsed, waited / elapsed)


def print_training(speed: TrainingSpeed) -> None:
    """Print the figures as a table."""
    bare = float(np.mean([pace.tiles_per_second for pace in speed.bare]))
    paces = [speed.bare[0], speed.trainer, *([speed.shared] if speed.shared else []), *speed.ingest, speed.bare[1]]
    print_table(
        "Training: tiles a second, after the first steps",
        ("way", "tiles/s", "of bare", "waiting"),
        [
            (
                pace.way,
                figure(pace.tiles_per_second),
                figure(pace.tiles_per_second / bare),
                "-" if pace.waited is None else percent(pace.waited),
            )
            for pace in paces
        ],
    )
    if speed.shared:
        ratio = speed.shared.tiles_per_second / speed.trainer.tiles_per_second
        print_table("", ("two workers over one", ""), [("", figure(ratio))])


def _learner(job: TrainingJob) -> tuple[Learner, torch.nn.Module, torch.device]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    keep_freed_memory()
    torch.set_num_threads(job.threads)
    torch.manual_seed(job.settings.seed)
    model = build_model(
        job.model.architecture,
        job.model.encoder,
        in_channels=len(job.band_names),
        num_classes=len(job.classes),
        options=job.model.options,
    ).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    weights = [1.0] * len(job.classes)
    return Learner(model, model, job.settings, job.total_steps, weights, job.survey, device), model, device


def _from_readers(job: TrainingJob, numbers: list[range]) -> Iterator[Batch]:
    return stream(
        job.train,
        job.label_map,
        _sampler(job),
        batches=numbers,
        side=job.settings.tile,
        augmentation=job.augmentation,
    )


def _from_ray_data(job: TrainingJob, numbers: list[range]) -> Iterator[Batch]:
    """The same batches from an actor that reads, through the object store."""
    import ray.data

    class Read:
        def __init__(self) -> None:
            torch.set_num_threads(1)
            self._reader = TileReader(job.train, job.label_map)
            self._sampler = _sampler(job)

        def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
            (number,) = rows["id"]
            batch = load_batch(self._reader, self._sampler, numbers[number], job.settings.tile, job.augmentation)
            return {name: getattr(batch, name).numpy() for name in _TENSORS} | {"number": [number] * len(batch)}

    ray.data.DataContext.get_current().execution_options.preserve_order = True
    dataset = ray.data.range(len(numbers), override_num_blocks=len(numbers)).map_batches(
        Read, batch_size=1, compute=ray.data.ActorPoolStrategy(size=1), num_cpus=0.25
    )
    for rows in dataset.iter_batches(batch_size=job.settings.batch_size, prefetch_batches=2):
        found = numbers[int(rows["number"][0])]
        tensors: dict[str, Any] = {name: torch.from_numpy(np.array(rows[name])) for name in _TENSORS}
        # Noise and places, which are a few numbers, are left out.
        yield Batch(**tensors, noise=(0.0,) * len(found), numbers=tuple(found), places=())


_TENSORS = ("values", "valid", "label", "gamma", "gain", "offset")


def _sampler(job: TrainingJob) -> TileSampler:
    return TileSampler(job.train, job.survey, job.settings.balance, job.settings.seed)


def _little(scene: TrainingScene) -> TrainingScene:
    window = scene.window
    side = min(_VALIDATION_SIDE, window.width, window.height)
    return replace(scene, window=Window(window.col_off, window.row_off, side, side))
