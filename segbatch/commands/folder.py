"""A run's folder: where things are, and run.json."""

import json
import os
import platform
import shutil
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

from segbatch import __version__
from segbatch.errors import InputError
from segbatch.inference.attempts import ATTEMPTS
from segbatch.masks import CONFIDENCE, PROBABILITIES
from segbatch.redaction import redact_all
from segbatch.storage import PARTIAL, is_remote, place, remove_folder, remove_tree, write_whole

_IN_A_RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets this variable for what `ray job submit` starts."""

JOURNAL = "adopt.json"
"""In `RunFolder.next`: what takes the place of what is there."""

_PACKAGES = ("torch", "ray", "rasterio", "zarr", "numpy", "segmentation-models-pytorch")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of a run.

    Args:
        path: The folder.
    """

    path: Path

    @classmethod
    def of(cls, output: str | Path) -> Self:
        """The folder of an output as users write it: a path, or the URL of a place in an object store."""
        return cls(place(output))

    @property
    def bundle(self) -> Path:
        """The trained model."""
        return self.path / "bundle"

    @property
    def training(self) -> Path:
        """Checkpoints while training goes on. Hidden, since a folder may hold a ``train`` of the user's."""
        return self.path / ".training"

    @property
    def split(self) -> Path:
        """What was trained on and what validated, as a scene table."""
        return self.path / "split.csv"

    @property
    def metrics(self) -> Path:
        """The course of the training, a line of JSON an event."""
        return self.path / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        """The same as TensorBoard reads it."""
        return self.path / "tensorboard"

    @property
    def samples(self) -> Path:
        """Pictures of windows of the validation scenes and what the trained model makes of them."""
        return self.path / "sample_predictions"

    @property
    def tune(self) -> Path:
        """What a search for settings has found."""
        return self.path / "tune"

    @property
    def masks(self) -> Path:
        """Class masks."""
        return self.path / "masks"

    @property
    def ledger(self) -> Path:
        """One row a block."""
        return self.path / "ledger"

    @property
    def attempts(self) -> Path:
        """What is under way; see `segbatch.inference.attempts`."""
        return self.ledger / ATTEMPTS

    @property
    def index(self) -> Path:
        """A table of the scenes that a schedule has mapped."""
        return self.path / "index.csv"

    @property
    def runs(self) -> Path:
        """A table of a schedule's runs."""
        return self.path / "runs.csv"

    @property
    def next(self) -> Path:
        """What a schedule is mapping, until it takes the place of what is there."""
        return self.path / ".next"

    @property
    def report(self) -> Path:
        """Tables, pictures and the page."""
        return self.path / "report"

    @property
    def usage(self) -> Path:
        """What the calls of the run's commands have taken; see `segbatch.commands.usage`."""
        return self.path / "usage.json"

    @property
    def _json(self) -> Path:
        return self.path / "run.json"

    def create(self) -> None:
        """Make the folder and make sure that it can be written to.

        Raises:
            InputError: It cannot, or a Ray job would lose it.
        """
        if _IN_A_RAY_JOB in os.environ:
            refuse_relative(self.path)
        try:
            if is_remote(self.path):
                probe = self.path / f".{uuid.uuid4().hex}{PARTIAL}"
                probe.put(b"")
                probe.unlink(missing_ok=True)
                return
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except FileExistsError as error:
            raise InputError(f"The output {self.path} is a file: name a folder.") from error
        except OSError as error:
            raise InputError(f"The output folder {self.path} cannot be written to: {error.strerror}.") from error

    def sweep(self) -> None:
        """Remove the temporary files that a killed run left. Shards are swept with their store.

        In an object store what is sent is whole or was never there; only small objects that were written to find out
        something may be left.
        """
        if is_remote(self.path):
            for path in self.path.glob(f".*{PARTIAL}"):
                path.unlink(missing_ok=True)
            return
        products = (self.masks / name for name in (CONFIDENCE, PROBABILITIES))
        for folder in (self.path, self.tune, self.ledger, self.masks, *products, self.report):
            for entry in list(folder.glob(f"*{PARTIAL}")) + list(folder.glob(f".*{PARTIAL}")):
                if entry.is_dir():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.unlink(missing_ok=True)

    def read(self) -> dict[str, Any]:
        """The content of run.json; empty where there is none yet.

        Raises:
            InputError: It is not a run's.
        """
        try:
            data = json.loads(self._json.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (ValueError, OSError) as error:
            raise InputError(f"{self._json} cannot be read: {error}") from error
        if not isinstance(data, dict):
            raise InputError(f"{self._json} is not a run's.")
        return data

    def update(self, **sections: Any) -> None:
        """Put sections into run.json, atomically."""
        packages = {}
        for package in _PACKAGES:
            try:
                packages[package] = version(package)
            except PackageNotFoundError:
                continue
        versions = {"segbatch": __version__, "python": platform.python_version(), **packages}
        write_json(self._json, {**self.read(), "versions": versions, **sections})

    def calls(self) -> list[dict[str, Any]]:
        """What each call of the run's commands has taken; empty where nothing is known of it."""
        try:
            return [dict(call) for call in json.loads(self.usage.read_text(encoding="utf-8"))["calls"]]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def write_calls(self, calls: Sequence[Mapping[str, Any]]) -> None:
        """Write down what each call has taken, atomically."""
        write_json(self.usage, {"calls": calls})

    def refuse_foreign(self) -> None:
        """Make sure that what stands where a run's files go is a run's, so that it may be cleared.

        Raises:
            InputError: A folder of that name is somebody else's.
        """
        content = self.read()
        mapped = bool(content.get("mapping") or content.get("evaluation"))
        for folder, ours in (
            (self.bundle, "training" in content or "tune" in content),
            (self.split, "training" in content or "tune" in content),
            (self.metrics, "training" in content),
            (self.tensorboard, "training" in content),
            (self.samples, "training" in content),
            (self.masks, mapped),
            (self.ledger, mapped),
            (self.report, mapped or "training" in content),
            (self.index, mapped),
            (self.runs, mapped),
            (self.usage, mapped or "training" in content or "tune" in content or bool(self.calls())),
        ):
            if folder.exists() and not ours:
                raise InputError(
                    f"{folder} is there already, and not of a run that segbatch knows. Choose another output."
                )

    def clear_training(self) -> None:
        """Forget a training, or a search, and all that was mapped with its bundle."""
        # Without a search of ours a folder of that name is somebody else's.
        found = (self.tune,) if self.read().get("tune") else ()
        self.update(training=None, mlflow=None, tune=None)
        for folder in (self.training, self.bundle, self.tensorboard, self.samples, *found):
            remove_tree(folder)
        self.metrics.unlink(missing_ok=True)
        self.usage.unlink(missing_ok=True)
        self.clear_mapping()

    def clear_mapping(self) -> None:
        """Forget what was mapped. The ledger goes first: masks without rows are harmless, not so the reverse."""
        (self.next / JOURNAL).unlink(missing_ok=True)  # else what is half removed would be put in place
        remove_folder(self.next)
        remove_folder(self.ledger)
        for folder in (self.masks, self.report):
            remove_tree(folder)
        for table in (self.index, self.runs):
            table.unlink(missing_ok=True)
        for model in self.path.glob("model-int8-*.onnx"):
            model.unlink()
        if self.usage.exists():
            kept = [call for call in self.calls() if call.get("step") != "mapping"]
            if kept:
                self.write_calls(kept)
            else:
                self.usage.unlink()
        self.update(mapping=None, evaluation=None, cost=None)


def refuse_relative(output: Path) -> None:
    """Make sure that a Ray job's output outlives it.

    Raises:
        InputError: The path counts from the job's working folder.
    """
    if not output.is_absolute():
        raise InputError(
            f"The output folder {output} is relative, and a Ray job's working folder is thrown away. "
            "Give an absolute path that all nodes share."
        )


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file that appears whole or not at all, without secrets of addresses."""
    write_whole(path, (json.dumps(redact_all(data), indent=2) + "\n").encode())
