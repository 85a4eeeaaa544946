"""Who hears of a training's events: people, metrics.jsonl, TensorBoard, Prometheus and, on request, MLflow."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbatch.commands.course import Course, append_row, event_rows, read_course
from segbatch.commands.folder import RunFolder
from segbatch.commands.progress import say
from segbatch.commands.tensorboard import EventFile
from segbatch.commands.tracking import TrackedRun
from segbatch.commands.training_progress import TrainingProgress
from segbatch.config import RunConfig
from segbatch.storage import is_remote, scratch_folder, write_whole
from segbatch.telemetry import Meter
from segbatch.tracing import tracing

if TYPE_CHECKING:
    from segbatch.training.job import Listener


_SECONDS_BETWEEN_SENDINGS = 30.0
"""To an object store, but for epochs, which are sent at once."""


@contextmanager
def listening(config: RunConfig, folder: RunFolder, fingerprint: str) -> "Iterator[Listener]":
    """A function that takes the training's events, as long as it lasts.

    A full disk or a server that is gone must not end a training for the sake of its curves.

    Args:
        config: The run's configuration.
        folder: The run's folder.
        fingerprint: Of the training.

    Raises:
        InputError: MLflow is wanted and cannot be used.
    """
    names = config.class_table().names
    tracked = None
    if config.training.mlflow:
        tracked = TrackedRun(config, folder, fingerprint, read_course(folder.metrics))
    status = "FAILED"
    files = _Files(folder, names)
    progress, meter = TrainingProgress(names, config.training.batch_size), Meter(config.name)

    def listen(event: dict[str, Any]) -> None:
        progress(event)
        meter.training(event)
        tracer.training(event)
        course = read_course(folder.metrics) if event["kind"] == "resume" else Course()
        for row in event_rows(event, course):
            files.add(row)
            if tracked is not None:
                tracked.add(row)

    try:
        with tracing(config.name, "training", say) as tracer:
            yield listen
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        files.close()
        if tracked is not None:
            finished = status == "FINISHED" and config.training.mlflow == "bundle"
            tracked.close(status, folder.bundle if finished else None)


class _Files:
    """metrics.jsonl and TensorBoard's file. What cannot be written is said once."""

    def __init__(self, folder: RunFolder, names: tuple[str, ...]) -> None:
        self._folder = folder
        self._held = ExitStack()
        self._scratch = self._held.enter_context(scratch_folder()) if is_remote(folder.path) else None
        self._names = names
        self._events: EventFile | None = None
        self._warned = False
        self._last = 0
        self._sent = time.monotonic()
        if self._scratch is not None:
            with suppress(FileNotFoundError):
                self._metrics.write_bytes(folder.metrics.read_bytes())
        self._open()

    def add(self, row: dict[str, Any]) -> None:
        try:
            append_row(self._metrics, row)
            step = row.get("global_step", 0)
            if row["kind"] == "resume" or (row["kind"] == "step" and step <= self._last):
                self._open()  # what is done again is in the file already
            elif self._events is not None:
                self._events.add(row)
            self._last = step or self._last
            if row["kind"] != "step" or time.monotonic() - self._sent > _SECONDS_BETWEEN_SENDINGS:
                self._send()
        except OSError as error:
            self._warn(error)

    def close(self) -> None:
        self._close_events()
        if self._scratch is not None:
            try:
                self._send()
            except OSError as error:
                self._warn(error)
            self._held.close()

    def _close_events(self) -> None:
        if self._events is not None:
            self._events.close()
            self._events = None

    @property
    def _metrics(self) -> Path:
        """Where rows are appended: what grows cannot be an object."""
        return self._folder.metrics if self._scratch is None else self._scratch / "metrics.jsonl"

    @property
    def _tensorboard(self) -> Path:
        """Where TensorBoard's file is written."""
        return self._folder.tensorboard if self._scratch is None else self._scratch

    def _send(self) -> None:
        """Send the files, where they are not in their places."""
        if self._scratch is None:
            return
        self._sent = time.monotonic()
        if self._metrics.exists():
            write_whole(self._folder.metrics, self._metrics.read_bytes())
        known = {path.name for path in self._folder.tensorboard.iterdir()}
        files = sorted(self._scratch.glob("events.out.tfevents.*"))
        for file in files:
            write_whole(self._folder.tensorboard / file.name, file.read_bytes())
        for name in known - {file.name for file in files}:
            (self._folder.tensorboard / name).unlink(missing_ok=True)

    def _open(self) -> None:
        self._close_events()
        try:
            self._events = EventFile(self._tensorboard, self._names, read_course(self._metrics))
        except OSError as error:
            self._warn(error)

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            say(f"  The training's curves will have gaps: {error.strerror or error}")
