"""Many trainings with Ray Tune: which run at the same time, and which are stopped for being worse than others.

Ray Tune schedules the trials and its ASHA decides; what is found is told to a listener, epoch by epoch. Who keeps that
can go on with the search later: nothing of Ray Tune's own is read again. Each trial is a training with a folder of its
own that goes on from its last checkpoint.
"""

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray.tune
from ray.tune.execution import class_cache
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from segbatch.errors import root_message
from segbatch.training.checkpoint import clear
from segbatch.training.job import Listener
from segbatch.training.trainer import Workers, fit
from segbatch.training.trial import Trial, TrialRun

_WAITING = {"memory": 1.0}
"""What a trial itself claims: it only waits for its workers, and a part of a CPU would be missing for them. Ray Tune
refuses to claim nothing, so it is a byte."""

_SWITCHES = {
    # Ctrl-C ends the command, as it does all others.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}
"""Ray Tune reads them from the environment."""


@dataclass(frozen=True, slots=True)
class Halving:
    """When a trial is stopped (ASHA).

    Args:
        epochs: Of a whole training.
        grace: Epochs that every trial gets.
        factor: One in so many goes on.
    """

    epochs: int
    grace: int
    factor: int


def run_trials(
    trials: Sequence[Trial],
    past: Sequence[Mapping[str, Any]],
    halving: Halving,
    workers: Workers,
    concurrent: int,
    storage: Path,
    listener: Listener,
    seconds: float,
) -> None:
    """Run trials until all have ended or the time is up; a trial that fails is told of and ends nothing else.

    Args:
        trials: To run, or to go on with.
        past: What earlier searches told of epochs, of all trials and in that order.
        halving: When a trial is stopped.
        workers: Who trains, of each trial.
        concurrent: Trials at the same time.
        storage: Folder that all nodes share, for checkpoints.
        listener: Takes events in this process: ``{"kind": "start", "trial"}``; ``{"kind": "epoch", "trial", ...}`` with
            the row of the training's history; ``{"kind": "end", "trial", "state": done|stopped|failed, "reason"}``.
        seconds: After which no epoch begins; infinite for no limit.
    """
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    # Ray would give the trials this process's credentials as settings, which it logs; nodes have their own.
    class_cache.ENV_VARS_TO_PROPAGATE -= {name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")}
    scheduler = _Scheduler(halving, time.monotonic() + seconds)
    stopped = {event["trial"] for event in past if scheduler.decide(event) == TrialScheduler.STOP}
    pending = {trial.number: trial for trial in trials}
    for number in stopped & set(pending):  # the search was killed before it could tell
        listener({"kind": "end", "trial": number, "state": "stopped", "reason": None})
        del pending[number]
    if not pending:
        return
    scratch = storage / ".ray-tune"
    clear(scratch)
    watch = _Watch(scheduler, listener, {number: trial.reported for number, trial in pending.items()})

    def name(trial: Any) -> str:
        return pending[trial.config["trial"]].name

    trainable = ray.tune.with_parameters(TrialRun, trials=pending, workers=workers, storage=storage)
    try:
        with _environment(_SWITCHES):
            ray.tune.Tuner(
                ray.tune.with_resources(trainable, _WAITING),
                param_space={"trial": ray.tune.grid_search(list(pending))},
                tune_config=ray.tune.TuneConfig(
                    scheduler=scheduler,
                    max_concurrent_trials=concurrent,
                    trial_name_creator=name,
                    trial_dirname_creator=name,
                ),
                run_config=ray.tune.RunConfig(
                    name=scratch.name,
                    storage_path=os.fspath(storage),
                    verbose=0,
                    # A trial's state is in its training's own checkpoints.
                    checkpoint_config=ray.tune.CheckpointConfig(checkpoint_at_end=False),
                    failure_config=ray.tune.FailureConfig(max_failures=workers.max_failures),
                    callbacks=[watch],
                    stop=_Deadline(scheduler, watch, halving.epochs),
                ),
            ).fit()
    finally:
        clear(scratch)


def finish(trial: Trial, epochs: int, workers: Workers, storage: Path, bundle: Path, listener: Listener) -> None:
    """Leave a trial's best model in ``bundle``, with its halo measured.

    Args:
        trial: One that has ended.
        epochs: That it had.
        workers: Who measures.
        storage: As for the search.
        bundle: Folder to write.
        listener: Takes progress events, as of a training.
    """
    # A training that has had all of its epochs has nothing left to do but that.
    settings = trial.job.settings.model_copy(update={"epochs": epochs})
    fit(replace(trial.job, settings=settings), workers, storage, trial.name, bundle, listener)


class _Scheduler(FIFOScheduler):
    """Ray Tune's ASHA, which knows trials by their number, so that what earlier searches found counts.

    Args:
        halving: When a trial is stopped.
        deadline: When the time is up, by the monotonic clock.
    """

    def __init__(self, halving: Halving, deadline: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.stopped: set[int] = set()
        self._deadline = deadline
        self._best: dict[int, float] = {}
        last = halving.epochs - 1  # after the last epoch there is nothing to stop
        self._asha = (
            ASHAScheduler(
                time_attr="epoch",
                metric="miou",
                mode="max",
                max_t=last,
                grace_period=halving.grace,
                reduction_factor=halving.factor,
                stop_last_trials=False,
            )
            if halving.grace <= last
            else None
        )

    @property
    def is_late(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self._deadline

    def decide(self, event: Mapping[str, Any]) -> str:
        """Whether a trial may go on after an epoch."""
        if self._asha is None:
            return TrialScheduler.CONTINUE
        nobody: Any = None
        trial: Any = SimpleNamespace(trial_id=event["trial"])  # all that ASHA looks at
        if event["trial"] not in self._best:
            self._asha.on_trial_add(nobody, trial)
        # The model that a trial keeps is that of its best epoch, so that one counts.
        best = max(self._best.get(event["trial"], 0.0), event["miou"] or 0.0)
        self._best[event["trial"]] = best
        return self._asha.on_trial_result(nobody, trial, {"epoch": event["epoch"], "miou": best})

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Ray Tune asks whether to go on."""
        if "end" in result:
            return TrialScheduler.CONTINUE
        number = trial.config["trial"]
        decision = self.decide({**result, "trial": number})
        if decision == TrialScheduler.STOP:
            self.stopped.add(number)
        return decision

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Ray Tune asks what to start next."""
        return None if self.is_late else super().choose_trial_to_run(tune_controller)


class _Watch(ray.tune.Callback):
    """Tells the listener what Ray Tune has heard and decided; each epoch once, whatever is lost.

    Args:
        scheduler: Knows what was stopped.
        listener: Takes events.
        told: By trial, the epochs that it knows of.
    """

    def __init__(self, scheduler: _Scheduler, listener: Listener, told: dict[int, int]) -> None:
        self.running: set[int] = set()
        self._scheduler, self._listener, self._told = scheduler, listener, told
        self._ended: set[int] = set()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = trial.config["trial"]
        if number not in self.running:
            self._listener({"kind": "start", "trial": number})
        self.running.add(number)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "end" in result:
            self._end(trial, result["end"], result["reason"])
        elif result["epoch"] > self._told[trial.config["trial"]]:
            self._told[trial.config["trial"]] = result["epoch"]
            self._listener({"kind": "epoch", "trial": trial.config["trial"], **result["row"]})

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.running.discard(trial.config["trial"])
        if trial.config["trial"] in self._scheduler.stopped:
            self._end(trial, "stopped", None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.running.discard(trial.config["trial"])
        self._end(trial, "failed", root_message(trial.get_error() or RuntimeError("its process was lost")))

    def _end(self, trial: Any, state: str, reason: str | None) -> None:
        if trial.config["trial"] not in self._ended:
            self._ended.add(trial.config["trial"])
            self._listener({"kind": "end", "trial": trial.config["trial"], "state": state, "reason": reason})


class _Deadline(ray.tune.Stopper):
    """Ends the search when the time is up and the epochs that are under way are over."""

    def __init__(self, scheduler: _Scheduler, watch: _Watch, epochs: int) -> None:
        self._scheduler, self._watch, self._epochs = scheduler, watch, epochs

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self._scheduler.is_late and "end" not in result and result["epoch"] < self._epochs

    def stop_all(self) -> bool:
        return self._scheduler.is_late and not self._watch.running


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for a while."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
