"""What is saved of a training, so that it can go on at the step it was at."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pyarrow.fs import FileSystem

from segbatch.errors import TrainingError
from segbatch.models.bundle import Bundle, load_bundle, save_bundle
from segbatch.storage import is_remote, scratch_folder
from segbatch.training.crew import Crew
from segbatch.training.learner import Learner

_STATE = "state.pt"
_COURSE = "course.json"
_RECORD = "checkpoint_manager_snapshot.json"
_RESCUED = "rescued"
BUNDLE = "bundle"
"""Name of the best model's folder in a checkpoint; absent before the first epoch is over."""


@dataclass(slots=True)
class EpochSums:
    """Of the steps of an unfinished epoch.

    Args:
        steps: Steps taken.
        loss: Sum of their losses.
        waited: Seconds that the first worker waited for tiles.
        seconds: Seconds that it took.
    """

    steps: int = 0
    loss: float = 0.0
    waited: float = 0.0
    seconds: float = 0.0


@dataclass(slots=True)
class TrainState:
    """Where a training stands, but for what the learner knows.

    Args:
        history: A row an epoch.
        sums: Of the epoch that is not over.
        best: The best epoch's model; None before the first is over.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    sums: EpochSums = field(default_factory=EpochSums)
    best: Bundle | None = None


def save(learner: Learner, state: TrainState, crew: Crew, scratch: Path) -> None:
    """Store the state; every worker must call, the first one brings the files.

    They are written beside Ray Train's own, so that what a killed worker leaves goes when the training is done.

    Raises:
        TrainingError: The files cannot be written; all workers are told.
    """
    # The first worker's alone: another one that is quicker must not remove what is still being copied.
    with _workplace(scratch) if crew.rank == 0 else nullcontext() as folder:
        problem = "" if folder is None else _write(folder, learner, state)
        problem = crew.gathered(problem)[0]
        if problem:
            raise TrainingError(problem)
        crew.store({"step": learner.step}, folder)


def last(crew: Crew, scratch: Path) -> AbstractContextManager[str] | None:
    """The folder of the last checkpoint; None where there is none."""
    rescued = scratch / _RESCUED
    return crew.stored() or (nullcontext(os.fspath(rescued)) if rescued.exists() else None)


def load(learner: Learner, checkpoint: AbstractContextManager[str]) -> TrainState:
    """Go on from a checkpoint."""
    with checkpoint as name:
        folder = Path(name)
        learner.load(folder / _STATE)
        told = json.loads((folder / _COURSE).read_text())
        best = load_bundle(folder / BUNDLE) if (folder / BUNDLE).exists() else None
    return TrainState(told["history"], EpochSums(**told["sums"]), best)


def rescue(scratch: Path) -> None:
    """Save the last checkpoint where Ray Train's list of them was torn.

    Ray Train writes the list in place when a checkpoint is whole, and does not start where it cannot read it.

    Args:
        scratch: Folder of the training, which nobody works on.
    """
    record = scratch / _RECORD
    if is_remote(scratch) or not record.exists():  # objects are never torn
        return
    try:
        json.loads(record.read_text())
    except ValueError:
        if checkpoints := sorted(scratch.glob("checkpoint_*/")):
            shutil.rmtree(scratch / _RESCUED, ignore_errors=True)
            shutil.copytree(checkpoints[-1], scratch / f"{_RESCUED}.partial", dirs_exist_ok=True)
            os.replace(scratch / f"{_RESCUED}.partial", scratch / _RESCUED)
        record.unlink()


def has_checkpoint(scratch: Path) -> bool:
    """Whether a training can go on from what is in its folder."""
    return (scratch / _RESCUED).exists() or any(scratch.glob("checkpoint_*/"))


def read_history(folder: Path) -> list[dict[str, Any]]:
    """The epochs' rows of a checkpoint."""
    return list(json.loads((folder / _COURSE).read_text())["history"])


def clear(storage: Path) -> None:
    """Remove all checkpoints of trainings that are done, or a folder of them."""
    if is_remote(storage):
        filesystem, path = FileSystem.from_uri(str(storage))
        with suppress(OSError):  # it is not there
            filesystem.delete_dir(path)  # knows Ray Train's empty objects that stand for folders
    else:
        shutil.rmtree(storage, ignore_errors=True)


@contextmanager
def _workplace(scratch: Path) -> Iterator[Path]:
    """Where the files are written that Ray Train copies; the folder need not be there and goes afterwards."""
    if is_remote(scratch):
        with scratch_folder() as folder:
            yield folder / "reported"
        return
    folder = scratch / "reported"
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(folder: Path, learner: Learner, state: TrainState) -> str:
    """Write the files.

    Returns:
        What went wrong; empty if nothing did.
    """
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
        learner.save(folder / _STATE)
        (folder / _COURSE).write_text(json.dumps({"history": state.history, "sums": asdict(state.sums)}))
        if state.best is not None:
            save_bundle(folder / BUNDLE, state.best)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        if shutil.disk_usage(folder).free < size:  # Ray Train copies it
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except Exception as error:  # libraries have errors of their own for a full disk, and all workers must be told
        free = shutil.disk_usage(folder.parent).free if folder.parent.exists() else 0
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
        return (
            f"The checkpoint of step {learner.step} cannot be written to {folder.parent}: {reason} "
            f"({free / 1e6:,.0f} MB free). Make room and run the same command again."
        )
    return ""
