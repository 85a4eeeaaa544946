"""A training as a trial of Ray Tune: after each epoch Ray Tune says whether it may go on.

Ray Train's controller asks through a gate and waits for the answer. A trial that is stopped so ends in good order:
killing it would leave its workers' reservation behind, and the next trial without room.
"""

import asyncio
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.tune

from segbatch.errors import SegbatchError, TrainingError, root_message
from segbatch.models.card import read_card
from segbatch.storage import remove_folder
from segbatch.training.checkpoint import read_history
from segbatch.training.job import TrainingJob
from segbatch.training.trainer import Workers, fit

_BUNDLE = "bundle"
_SECONDS_TO_END = 120


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """A training of a search.

    Args:
        number: From 1.
        name: Unique, and safe as a file name.
        job: What to train.
        reported: Epochs that earlier searches know of.
    """

    number: int
    name: str
    job: TrainingJob
    reported: int = 0


class TrialRun(ray.tune.Trainable):
    """What Ray Tune runs, in a process of its own: a step is an epoch."""

    def setup(  # type: ignore[override]  # with_parameters adds what follows config
        self, config: dict[str, Any], trials: Mapping[int, Trial], workers: Workers, storage: Path
    ) -> None:
        """Begin, or go on from the last checkpoint."""
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        self._trial = trials[config["trial"]]
        self._workers, self._checkpoints = workers, storage
        self._gate = _Gate.options(num_cpus=0).remote()  # type: ignore[attr-defined]
        self._reported = self._trial.reported
        self._rows: list[dict[str, Any]] = []
        self._end: dict[str, Any] | None = None
        self._asked = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._train, daemon=True)
        self._thread.start()

    def step(self) -> dict[str, Any]:
        """The next epoch: ``{"epoch", "miou", "row"}``; or the end: ``{"end": done|failed, "reason"}``."""
        while not self._rows and self._end is None:
            if self._asked:
                self._gate.answer.remote(True)
            history, self._end = ray.get(self._gate.take.remote())
            self._asked = self._end is None
            self._rows = history[self._reported :]
        if self._rows:
            row = self._rows.pop(0)
            self._reported += 1
            return {"epoch": row["epoch"], "miou": row["miou"], "row": row}
        return {**(self._end or {}), ray.tune.result.DONE: True}

    def cleanup(self) -> None:
        """Ray Tune has heard enough: end the training, if it has not ended."""
        self._stopped.set()
        self._gate.answer.remote(False)
        self._thread.join(_SECONDS_TO_END)
        ray.kill(self._gate)

    def _train(self) -> None:
        trial = self._trial
        bundle = self._checkpoints / trial.name / _BUNDLE
        history: Sequence[dict[str, Any]] = []
        end = {"end": "done", "reason": None}
        try:
            self._persist(replace(trial.job, calibrate=False), bundle)
            history = read_card(bundle).training["history"]
            remove_folder(bundle)  # the last checkpoint has it
        except Exception as error:  # a trial that fails is a finding, and no failure of the search
            reason = str(error) if isinstance(error, SegbatchError) else root_message(error)
            end = {"end": "failed", "reason": reason.removeprefix("Training failed. ")}
        self._gate.put.remote(history, end)

    def _persist(self, job: TrainingJob, bundle: Path) -> None:
        """Fit, again after losses; but what the training itself has found wrong is wrong the next time too."""
        once = replace(self._workers, max_failures=0)
        for left in range(self._workers.max_failures, -1, -1):
            try:
                fit(job, once, self._checkpoints, self._trial.name, bundle, _ignore, [_Ask(self._gate)])
                return
            except TrainingError as error:
                own = error.__cause__ is None or f"{TrainingError.__module__}." in str(error.__cause__)
                if self._stopped.is_set() or not left or own:
                    raise


class _StoppedError(SegbatchError):
    """Ray Tune does not want more of a trial."""


class _Ask(ray.train.UserCallback):
    """Ray Train's controller asks after each epoch whether to go on."""

    def __init__(self, gate: Any) -> None:
        self._gate = gate
        self._epochs = 0

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """A checkpoint is stored; it has the history."""
        if checkpoint is None:
            return
        with checkpoint.as_directory() as folder:
            history = read_history(Path(folder))
        if len(history) > self._epochs:
            self._epochs = len(history)
            if not ray.get(self._gate.ask.remote(history)):
                raise _StoppedError("Others are better.")


@ray.remote
class _Gate:
    """Between Ray Train's controller, which asks, and Ray Tune's trial, which answers."""

    def __init__(self) -> None:
        self._told: asyncio.Queue[tuple[Any, Any]] = asyncio.Queue()
        self._answers: asyncio.Queue[bool] = asyncio.Queue()

    async def ask(self, history: list[dict[str, Any]]) -> bool:
        await self._told.put((history, None))
        return await self._answers.get()

    async def put(self, history: list[dict[str, Any]], end: dict[str, Any]) -> None:
        await self._told.put((history, end))

    async def take(self) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
        return await self._told.get()

    async def answer(self, go_on: bool) -> None:
        await self._answers.put(go_on)


def _ignore(event: dict[str, Any]) -> None:
    """Epochs come through the gate, and steps of many trainings at once are nothing to watch."""
