"""The steps of an epoch: batches in, gradients shared, state saved in time."""

import math
import time
from pathlib import Path

from segbatch.errors import TrainingError
from segbatch.training.checkpoint import TrainState, save
from segbatch.training.crew import Bell, Crew
from segbatch.training.feed import Batch, stream
from segbatch.training.job import TrainingJob
from segbatch.training.learner import Learner
from segbatch.training.tiles import TileSampler

_SECONDS_BETWEEN_EVENTS = 5.0
_MOST_TILES_NAMED = 3
_LONG_VALIDATION = 30.0
"""Seconds of validation before which the state is saved: it does not listen."""


def run_epoch(job: TrainingJob, learner: Learner, state: TrainState, crew: Crew, bell: Bell, scratch: Path) -> bool:
    """Take the steps that are left of an epoch.

    Returns:
        False where the driver asked to stop; the state is saved then.

    Raises:
        TrainingError: The loss is no number, or the state cannot be saved; all workers raise alike.
    """
    sums, settings = state.sums, job.settings
    first, end = learner.step, (len(state.history) + 1) * job.steps_per_epoch
    batches = stream(
        job.train,
        job.label_map,
        TileSampler(job.train, job.survey, settings.balance, settings.seed),
        batches=[job.tile_numbers(step, crew.rank, crew.world) for step in range(first, end)],
        side=settings.tile,
        augmentation=job.augmentation,
        # A GPU's worker has CPUs to spare; elsewhere they are the model's.
        threads=job.threads if crew.device.type == "cuda" else 1,
    )
    is_long = bool(state.history) and state.history[-1]["validate_seconds"] > _LONG_VALIDATION
    ticker = _Ticker(job, learner, crew)
    for batch in batches:
        started = time.perf_counter()
        own = learner.backward(batch)
        done = learner.step + 1
        wishes = bell.wishes(done, before_validation=is_long and done == end)
        total, due, stop, look = crew.summed([own.item(), *wishes])
        loss = total / crew.world
        if not math.isfinite(loss):
            raise TrainingError(_accuse(job, learner, batch, crew, loss))
        learner.apply()
        sums.steps += 1
        sums.loss += loss
        sums.waited += batch.waited
        sums.seconds += batch.waited + time.perf_counter() - started
        ticker.step(loss, batch.waited)
        if due or stop or (look and bell.hears_of_preemption()):
            save(learner, state, crew, scratch)
            bell.saved()
        if stop:
            return False
    return True


def _accuse(job: TrainingJob, learner: Learner, batch: Batch, crew: Crew, loss: float) -> str:
    """Say which tiles made the loss what it is."""
    guilty = [batch.places[index] for index in learner.culprits(batch)]
    named = [
        f"the tile at column {place.window.col_off}, row {place.window.row_off} of {job.train[place.scene].image}"
        for place in (guilty if len(guilty) < len(batch) else [])
    ]
    found = [text for text in crew.gathered("\n".join(named[:_MOST_TILES_NAMED])) if text]
    where = ", ".join("\n".join(found).split("\n")[:_MOST_TILES_NAMED]) if found else "every tile"
    return (
        f"The loss became {loss} at step {learner.step}, with {where}. Try a lower training.learning_rate or "
        "training.precision=float32, and look for extreme pixel values."
    )


class _Ticker:
    """Tells of steps every few seconds."""

    def __init__(self, job: TrainingJob, learner: Learner, crew: Crew) -> None:
        self._job, self._learner, self._crew = job, learner, crew
        self._restart()

    def step(self, loss: float, waited: float) -> None:
        """A step is over."""
        self._steps += 1
        self._loss += loss
        self._waited += waited
        elapsed = time.perf_counter() - self._since
        if elapsed < _SECONDS_BETWEEN_EVENTS:
            return
        job, done = self._job, self._learner.step
        self._crew.tell(
            kind="step",
            epoch=(done - 1) // job.steps_per_epoch + 1,
            epochs=job.settings.epochs,
            step=(done - 1) % job.steps_per_epoch + 1,
            steps=job.steps_per_epoch,
            global_step=done,
            global_steps=job.total_steps,
            loss=self._loss / self._steps,
            learning_rate=self._learner.learning_rate,
            tiles_per_second=self._steps * job.settings.batch_size / elapsed,
            waited=self._waited / elapsed,
        )
        self._restart()

    def _restart(self) -> None:
        self._since = time.perf_counter()
        self._steps, self._loss, self._waited = 0, 0.0, 0.0
