"""A training as a run of MLflow: parameters, curves and, on request, the bundle.

The server is named by MLflow's own environment variables, so that nothing secret comes into a configuration, and no
address that is shown here tells one.
"""

import json
import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from segbatch import __version__
from segbatch.commands.course import Course, Row, scalars, series_names
from segbatch.commands.folder import RunFolder
from segbatch.commands.progress import counted, say
from segbatch.config import RunConfig
from segbatch.errors import InputError
from segbatch.redaction import redact
from segbatch.storage import local_copy

_PARAMS_A_CALL = 100
_LONGEST_PARAM = 500

_ENVIRONMENT = {
    # Its own defaults keep a call waiting for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # It prints the server's address, password and all.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def check_tracking() -> None:
    """Make sure that there is something to log with and to.

    Raises:
        InputError: There is not.
    """
    if find_spec("mlflow") is None:
        raise InputError("training.mlflow needs MLflow: pip install 'segbatch[mlflow]'")
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        raise InputError("training.mlflow needs a server: set MLFLOW_TRACKING_URI, as to http://localhost:5000")


class TrackedRun:
    """A run of MLflow that a training's rows go to, in a thread of its own: a server that hangs keeps nobody waiting.

    Rows that it could not take are sent again with the next one. What the server has already is not sent twice, also
    when a training goes on and does some steps again: they give the same figures.

    Args:
        config: The run's configuration.
        folder: The run's folder, which knows which run of MLflow it is.
        fingerprint: Of the training.
        course: What was trained before.

    Raises:
        InputError: A new run cannot be made. That an older one cannot be reached is only said.
    """

    def __init__(self, config: RunConfig, folder: RunFolder, fingerprint: str, course: Course) -> None:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        self._series = series_names(config.class_table().names)
        self._sent: dict[str, int] | None = None
        self._warned = False
        self._rows: deque[Row] = deque(course.rows)
        known = folder.read().get("mlflow") or {}
        try:
            self._client = MlflowClient()
            if "run_id" not in known:
                known = self._create(config, folder, fingerprint)
        except Exception as error:
            raise InputError(f"MLflow at MLFLOW_TRACKING_URI cannot be used: {_told(error)}") from error
        self._run_id = str(known["run_id"])
        self._pool = ThreadPoolExecutor(1, "mlflow")
        self._sending: Future[None] = self._pool.submit(self._send)

    def add(self, row: Row) -> None:
        """Send a row's figures as soon as may be."""
        if scalars(row, self._series):
            self._rows.append(row)
            if self._sending.done():
                self._sending = self._pool.submit(self._send)

    def close(self, status: str, bundle: Path | None) -> None:
        """Send what is left.

        Args:
            status: MLflow's word for how it ended: FINISHED, FAILED or KILLED.
            bundle: Folder to keep with the run, if any.
        """
        self._pool.submit(self._end, status, bundle)
        self._pool.shutdown()
        if self._rows:
            say(f"  MLflow has not got {counted(len(self._rows), 'row')} of metrics.jsonl.")

    def _create(self, config: RunConfig, folder: RunFolder, fingerprint: str) -> dict[str, str]:
        from mlflow.entities import Param

        client = self._client
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "segbatch")
        experiment = client.get_experiment_by_name(name)
        number = client.create_experiment(name) if experiment is None else experiment.experiment_id
        tags = {"segbatch.version": __version__, "segbatch.fingerprint": fingerprint}
        run_id = client.create_run(number, run_name=config.name, tags=tags).info.run_id
        known = {"run_id": run_id, "experiment": name}
        folder.update(mlflow=known)
        params = iter(parameters(config.model_dump(by_alias=True, mode="json", exclude={"inference", "cluster"})))
        while some := list(islice(params, _PARAMS_A_CALL)):
            client.log_batch(run_id, params=[Param(key, value) for key, value in some])
        return known

    def _send(self) -> None:
        """Send the rows that wait, and keep those that the server does not take."""
        from mlflow.entities import Metric

        try:
            if self._sent is None:
                self._sent = {kind: self._last_step(f"{kind}/learning_rate") for kind in ("step", "epoch")}
                self._client.update_run(self._run_id, status="RUNNING")
            while self._rows:
                row = self._rows[0]
                kind, step, moment = row["kind"], row["global_step"], round(row["time"] * 1000)
                if step > self._sent[kind]:
                    found = scalars(row, self._series)
                    self._client.log_batch(self._run_id, [Metric(key, found[key], moment, step) for key in found])
                    self._sent[kind] = step
                self._rows.popleft()
        except Exception as error:
            self._warn(error)

    def _end(self, status: str, bundle: Path | None) -> None:
        self._send()
        if self._rows:
            return  # a server that does not answer is not asked for more
        try:
            if bundle is not None:
                self._client.log_artifacts(self._run_id, str(local_copy(bundle)), "bundle")
            self._client.set_terminated(self._run_id, status)
        except Exception as error:
            self._warn(error)

    def _last_step(self, key: str) -> int:
        return max((metric.step for metric in self._client.get_metric_history(self._run_id, key)), default=-1)

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            say(f"  MLflow does not answer, and the training goes on without: {_told(error)}")


def parameters(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """A configuration as flat pairs of a dotted key and a text, without passwords and signatures of URLs."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from ((f"{key}.{inner}", text) for inner, text in parameters(value))
        else:
            text = value if isinstance(value, str) else json.dumps(value)
            yield key, redact(text)[:_LONGEST_PARAM]


def _told(error: Exception) -> str:
    """An error in a line."""
    lines = redact(str(error)).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
