"""The driver's side of training: survey the scenes, run the workers, keep the best bundle."""

import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch

from segbatch.classes import LabelMap
from segbatch.errors import TrainingError, root_message
from segbatch.inference.attempts import ATTEMPTS
from segbatch.inference.pipeline import map_items
from segbatch.inference.watch import Tell, at_work, unheard
from segbatch.models.card import CARD
from segbatch.storage import move_over, remove_tree, scratch_folder, staging_folder
from segbatch.training.checkpoint import BUNDLE, rescue
from segbatch.training.crew import Wire
from segbatch.training.interrupt import GRACE_SECONDS, wait_gracefully
from segbatch.training.job import Listener, TrainingJob
from segbatch.training.loop import PROBLEM, train_loop
from segbatch.training.loopback import LoopbackConfig, loopback_environment
from segbatch.training.survey import (
    Survey,
    Tally,
    TrainingScene,
    load_survey,
    save_survey,
    strips,
    strips_under_way,
    try_to_survey,
)

_PIXELS_TOGETHER = 2**22
"""A task of Ray's takes some 20 ms itself, and to read so many pixels some 300."""

_MOST_STRIPS = 32
"""That a task takes, however small they are: each opens its files anew."""

_LONGEST_STRIP_SECONDS = 1800
"""Booting a node, or reading strips from far away, must fit in."""

_MOST_MINUTES = 60
"""How long workers may be waited for. Ray Train tries to start them for a minute, and would try again for ever."""

_WORKER_ENVIRONMENT = {"MALLOC_ARENA_MAX": "1"}
"""Ray Train trains in a second thread. By default glibc gives it heaps that are too small for tensors, whose memory is
then got from the system in every step."""

_SECONDS_BETWEEN_QUESTIONS = 1.0


def survey_scenes(
    scenes: tuple[TrainingScene, ...],
    cell: int,
    label_map: LabelMap,
    storage: Path,
    kept: Path | None = None,
    tell: Tell = unheard,
) -> Survey:
    """Count classes and band values of the scenes in one pass of Ray Data.

    Args:
        scenes: The scenes.
        cell: Side of a cell in pixels.
        label_map: From label values to class ids.
        storage: Folder that all nodes share, for what is needed meanwhile.
        kept: File that holds the survey once it is made, for when the training goes on; None for none.
        tell: Says a line where nothing is read for a long time.

    Raises:
        SegbatchError: A scene is damaged, there is nothing to learn from, or nothing has moved for too long.
    """
    if kept is not None and kept.exists():
        return load_survey(kept)
    attempts = storage / ATTEMPTS
    remove_tree(attempts)  # of a survey that was killed
    attempts.mkdir(parents=True, exist_ok=True)
    tally = Tally(scenes, cell, label_map.num_classes)
    todo = tuple(strips(scenes, cell))
    pixels = sum(scene.window.area for scene in scenes) / len(todo)
    found = map_items(
        partial(try_to_survey, scenes=scenes, cell=cell, label_map=label_map, attempts=str(attempts)),
        todo,
        nothing="no strip of a training scene was counted",
        tell=tell,
        cpus=1,
        together=max(1, min(_MOST_STRIPS, round(_PIXELS_TOGETHER / pixels))),
        longest=_LONGEST_STRIP_SECONDS,
        doing=lambda: at_work(strips_under_way(attempts)),
    )
    try:
        for strip in found:
            tally.add(strip)
    finally:
        remove_tree(attempts)
    survey = tally.survey()
    if kept is not None:
        save_survey(survey, kept)
    return survey


@dataclass(frozen=True, slots=True)
class Workers:
    """Who trains.

    Args:
        count: Ray Train workers.
        least: Fewest to go on with while nodes are away.
        cpus: CPUs each.
        use_gpu: Whether each has a GPU.
        max_failures: How often to start again from the last checkpoint.
        local: Whether all of them are on this machine.
    """

    count: int
    least: int
    cpus: int
    use_gpu: bool
    max_failures: int
    local: bool = False


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

    Running it again with the same ``storage`` and ``name`` goes on from the last checkpoint. Ctrl-C saves the state
    before it ends the training; a second one ends it at once.

    Args:
        job: What to train.
        workers: Who trains.
        storage: Folder that all nodes share, for checkpoints.
        name: Of the training inside ``storage``.
        bundle: Folder to write.
        listener: Takes progress events.
        callbacks: Called by Ray Train's controller, in its process; what they raise ends the training.

    Raises:
        TrainingError: Training failed. Where it has found the reason itself, so that it is not worth trying again, the
            best model so far is in ``bundle``.
        KeyboardInterrupt: It was asked to stop, and running it again goes on.
    """
    # It would tell what the listener is told.
    logging.getLogger("ray.train").setLevel(logging.CRITICAL)
    scratch = storage / name
    problem = scratch / PROBLEM
    problem.unlink(missing_ok=True)
    rescue(scratch)
    count: Any = workers.count if workers.least == workers.count else (workers.least, workers.count)
    with _relay(listener) as (wire, stop), scratch_folder() as meeting:

        def ask_to_stop() -> None:
            stop.set()
            with suppress(Exception):  # as a terminal that was closed
                listener({"kind": "stopping"})

        trainer = ray.train.torch.TorchTrainer(
            train_loop,
            train_loop_config={"job": job, "wire": wire, "scratch": scratch},
            torch_config=LoopbackConfig(folder=str(meeting)) if workers.local else None,
            scaling_config=ray.train.ScalingConfig(
                num_workers=count,
                use_gpu=workers.use_gpu,
                resources_per_worker={"CPU": workers.cpus, **({"GPU": 1} if workers.use_gpu else {})},
            ),
            run_config=ray.train.RunConfig(
                name=name,
                storage_path=os.fspath(storage),
                failure_config=ray.train.FailureConfig(  # type: ignore[call-arg]  # of Ray Train V1
                    max_failures=workers.max_failures,
                    controller_failure_limit=_MOST_MINUTES,
                ),
                checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
                callbacks=list[Any](callbacks),
                worker_runtime_env={
                    "env_vars": _WORKER_ENVIRONMENT | (loopback_environment() if workers.local else {})
                },
            ),
        )
        try:
            result, stopped = wait_gracefully(trainer.fit, ask_to_stop)
        except ray.train.TrainingFailedError as error:
            raise TrainingError(f"Training failed. {root_message(error)}") from error
    said = problem.read_text() if problem.exists() else ""
    if result is not None and result.checkpoint is not None and (said or not stopped):
        with result.checkpoint.as_directory() as folder:
            _keep(Path(folder) / BUNDLE, bundle)
    if said:
        kept = f" The best model so far is kept in {bundle}." if bundle.exists() else ""
        raise TrainingError(f"Training failed. {said}{kept}")
    if stopped:
        if result is None:
            listener({"kind": "late", "seconds": GRACE_SECONDS})
        raise KeyboardInterrupt


def _keep(best: Path, bundle: Path) -> None:
    if best.exists():
        with staging_folder(bundle) as folder:
            shutil.copytree(best, folder / bundle.name)
            move_over(folder / bundle.name, bundle, last=CARD)


class _RelayWire:
    """A `Wire` through an actor, for workers anywhere on the cluster."""

    def __init__(self, relay: Any) -> None:
        self._relay = relay
        self._answer: Any = None
        self._asked = 0.0

    def tell(self, event: dict[str, Any]) -> None:
        """See `Wire.tell`."""
        self._relay.put.remote(json.dumps(event))

    def asks_to_stop(self) -> bool:
        """See `Wire.asks_to_stop`."""
        now = time.monotonic()
        if self._answer is None and now - self._asked > _SECONDS_BETWEEN_QUESTIONS:
            self._asked, self._answer = now, self._relay.stopping.remote()
        if self._answer is None or not ray.wait([self._answer], timeout=0)[0]:
            return False
        answer, self._answer = self._answer, None
        try:
            return bool(ray.get(answer))
        except ray.exceptions.RayError:
            return False


@contextmanager
def _relay(listener: Listener) -> Iterator[tuple[Wire, threading.Event]]:
    """A wire for workers whose events reach ``listener`` here, and what tells them to stop when it is set."""

    # Its node may be lost as any other; events are for people, so losing some is no failure.
    @ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
    class Relay:
        def __init__(self) -> None:
            self._events: list[str] = []
            self._stopping = False

        def put(self, event: str) -> None:
            self._events.append(event)

        def take(self, stopping: bool) -> list[str]:
            self._stopping = stopping
            events, self._events = self._events, []
            return events

        def stopping(self) -> bool:
            return self._stopping

    relay = Relay.remote()  # type: ignore[attr-defined]
    end, stop = threading.Event(), threading.Event()

    def drain() -> None:
        # Events are for people: what goes wrong in telling them, as a closed terminal, is no reason to lose a training.
        with suppress(Exception):
            for event in ray.get(relay.take.remote(stop.is_set())):
                with suppress(Exception):
                    listener(json.loads(event))

    def poll() -> None:
        while not end.wait(0.5):
            drain()

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield _RelayWire(relay), stop
    finally:
        end.set()
        thread.join()
        drain()
        ray.kill(relay)
