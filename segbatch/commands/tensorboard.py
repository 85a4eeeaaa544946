"""TensorBoard's file of a training: a view of metrics.jsonl, made anew whenever a training goes on."""

import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from segbatch.commands.course import Course, Row, scalars, series_names

_PARTIAL = ".partial"


class EventFile:
    """An event file with a curve for each figure, by global step.

    It is written in the caller's thread and flushed after each row, so that TensorBoard follows while training goes on
    and a full disk is seen here.

    Args:
        folder: Where TensorBoard looks.
        class_names: By class id.
        course: What was trained before.

    Raises:
        OSError: The disk is full, or the folder cannot be written to.
    """

    def __init__(self, folder: Path, class_names: Sequence[str], course: Course) -> None:
        from tensorboardX import RecordWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._series = series_names(class_names)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}"
        partial = folder / _PARTIAL
        self._writer = RecordWriter(str(partial))
        try:
            self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
            # Readers drop what they have read of older files.
            self._write(Event(wall_time=time.time(), step=0, session_log=SessionLog(status=SessionLog.START)))
            for row in course.rows:
                self._add(row)
            self._writer.flush()
            # The latest stays: a TensorBoard that is open finds its way from it to the next.
            old = sorted(folder.glob("events.out.tfevents.*"))[:-1]
            os.replace(partial, path)
            for entry in old:
                entry.unlink(missing_ok=True)
        except BaseException:
            self.close()
            partial.unlink(missing_ok=True)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def add(self, row: Row) -> None:
        """Add a row's figures.

        Raises:
            OSError: The disk is full.
        """
        self._add(row)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):
            self._writer.close()

    def _add(self, row: Row) -> None:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        found = scalars(row, self._series)
        if found:
            values = [Summary.Value(tag=tag, simple_value=value) for tag, value in found.items()]
            self._write(Event(wall_time=row["time"], step=row["global_step"], summary=Summary(value=values)))

    def _write(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())
