"""The driver's side of training: survey the scenes, run the workers, keep the best bundle."""

import json
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch

from segbatch.classes import LabelMap
from segbatch.errors import SegbatchError, TrainingError, root_message
from segbatch.models.bundle import replace_folder
from segbatch.training.loop import TrainingJob, train_loop
from segbatch.training.survey import Strip, Survey, TrainingScene, merge, strips, survey_strip

Listener = Callable[[dict[str, Any]], None]


def survey_scenes(scenes: tuple[TrainingScene, ...], cell: int, label_map: LabelMap) -> Survey:
    """Count classes and band values of the scenes, a strip a Ray task.

    Raises:
        SegbatchError: A scene is damaged or there is nothing to learn from.
    """

    @ray.remote(num_cpus=1, max_retries=3)
    def task(index: int, row: int) -> Strip:
        return survey_strip(scenes[index], index, row, cell, label_map)

    pending = [task.remote(index, row) for index, row in strips(scenes, cell)]
    try:
        return merge(ray.get(pending), cell)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, SegbatchError):
            raise error.cause from error
        raise


@dataclass(frozen=True, slots=True)
class Workers:
    """Who trains.

    Args:
        count: Ray Train workers.
        cpus: CPUs each.
        use_gpu: Whether each has a GPU.
        max_failures: How often to start again from the last checkpoint.
    """

    count: int
    cpus: int
    use_gpu: bool
    max_failures: int


def fit(
    job: TrainingJob,
    workers: Workers,
    storage: Path,
    name: str,
    bundle: Path,
    listener: Listener,
    callbacks: Sequence[ray.train.UserCallback] = (),
) -> None:
    """Train and leave the best model in ``bundle``.

    Running it again with the same ``storage`` and ``name`` goes on from the last checkpoint.

    Args:
        job: What to train.
        workers: Who trains.
        storage: Folder that all nodes share, for checkpoints.
        name: Of the training inside ``storage``.
        bundle: Folder to write.
        listener: Takes progress events.
        callbacks: Called by Ray Train's controller, in its process; what they raise ends the training.

    Raises:
        TrainingError: Training failed and is not worth trying again.
    """
    # It would tell what the listener is told.
    logging.getLogger("ray.train").setLevel(logging.CRITICAL)
    with _relay(listener) as tell:
        trainer = ray.train.torch.TorchTrainer(
            train_loop,
            train_loop_config={"job": job, "tell": tell, "scratch": storage / name},
            scaling_config=ray.train.ScalingConfig(
                num_workers=workers.count,
                use_gpu=workers.use_gpu,
                resources_per_worker={"CPU": workers.cpus, **({"GPU": 1} if workers.use_gpu else {})},
            ),
            run_config=ray.train.RunConfig(
                name=name,
                storage_path=os.fspath(storage),
                failure_config=ray.train.FailureConfig(max_failures=workers.max_failures),
                checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
                callbacks=list[Any](callbacks),
            ),
        )
        try:
            result = trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise TrainingError(f"Training failed. {root_message(error)}") from error
    assert result.checkpoint is not None  # an epoch without one would have raised
    with result.checkpoint.as_directory() as folder:
        temporary = bundle.with_name(f".{bundle.name}.partial")
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.copytree(Path(folder) / "bundle", temporary)
        replace_folder(temporary, bundle)


@contextmanager
def _relay(listener: Listener) -> Iterator[Listener]:
    """A function that workers anywhere on the cluster call, and whose events reach ``listener`` here."""

    # Its node may be lost as any other; events are for people, so losing some is no failure.
    @ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
    class Relay:
        def __init__(self) -> None:
            self._events: list[str] = []

        def put(self, event: str) -> None:
            self._events.append(event)

        def take(self) -> list[str]:
            events, self._events = self._events, []
            return events

    relay = Relay.remote()  # type: ignore[attr-defined]
    stop = threading.Event()

    def drain() -> None:
        for event in ray.get(relay.take.remote()):
            listener(json.loads(event))

    def poll() -> None:
        while not stop.wait(0.5):
            drain()

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield lambda event: relay.put.remote(json.dumps(event))
    finally:
        stop.set()
        thread.join()
        drain()
        ray.kill(relay)
