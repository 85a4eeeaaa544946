"""A cluster that is not there."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from segbatch.cli import app
from segbatch.submit import follow
from segbatch.submit.command import Command, parse
from segbatch.submit.job import Job, Submission


@dataclass
class FakeCluster:
    """Jobs from a script.

    Args:
        known: The jobs.
        states: What `job` says in turn: changes of the job, or an error. The last stays.
        streams: What each `tail` gives: pieces, and an error where the connection breaks.
        machines: Its nodes.
    """

    known: list[Job] = field(default_factory=list)
    states: list[Any] = field(default_factory=list)
    streams: list[list[Any]] = field(default_factory=list)
    machines: list[Mapping[str, float]] = field(default_factory=list)
    submitted: list[Submission] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    address: str = "http://head:8265"

    def submit(self, submission: Submission) -> bool:
        if any(job.id == submission.id for job in self.known):
            return False
        self.submitted.append(submission)
        self.known.append(Job(submission.id, "PENDING", submission.entrypoint, submission.metadata))
        return True

    def jobs(self) -> list[Job]:
        return list(self.known)

    def job(self, job_id: str) -> Job:
        state = (self.states.pop(0) if len(self.states) > 1 else self.states[0]) if self.states else {}
        if isinstance(state, Exception):
            raise state
        job = next((job for job in self.known if job.id == job_id), Job(job_id, "RUNNING"))
        return replace(job, **state)

    def log(self, job_id: str) -> str:
        return "".join(self.streams[0])

    async def tail(self, job_id: str) -> AsyncIterator[str]:
        for piece in self.streams.pop(0):
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    def stop(self, job_id: str) -> None:
        self.stopped.append(job_id)

    def nodes(self) -> list[Mapping[str, float]]:
        return self.machines


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_POLL_SECONDS", "_MOST_PAUSE", "_STOP_SECONDS"):
        monkeypatch.setattr(follow, name, 0.0)


@pytest.fixture
def configuration(tmp_path: Path) -> Iterator[Path]:
    """A configuration in a working directory, whose scenes lie on a shared file system."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "land.yaml").write_text(
        yaml.safe_dump(
            {
                "name": "Land cover, 2026",
                "output": "/shared/land",
                "classes": [{"name": "a"}, {"name": "b"}],
                "scenes": {"root": "/shared/scenes", "predict": [{"image": "*.tif"}]},
            }
        )
    )
    return folder / "land.yaml"


@pytest.fixture
def parsed(configuration: Path) -> Callable[..., Command]:
    """A function that parses words of a command line, in the configuration's folder."""

    def call(*words: str) -> Command:
        root = typer.main.get_command(app).make_context("segbatch", ["schema"])
        return parse(root, words, configuration.parent)

    return call
