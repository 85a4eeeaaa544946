"""A job of a Ray cluster, and what is asked of a cluster."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from segbatch.errors import InputError

EXIT_STOPPED = 130
"""Of a job that was asked to stop: Ray keeps no exit code of it, and this is the one that segbatch ends with then."""


class UnreachableError(InputError):
    """The cluster does not answer."""


class UnknownJobError(InputError):
    """The cluster has no such job, or has forgotten it."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a cluster knows of a job.

    Args:
        id: Its submission id.
        status: Ray's word: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED.
        entrypoint: The command line that it runs.
        metadata: What was noted with it.
        exit_code: Of the command; None where it has none (yet).
        message: What Ray says about its status.
        started: When it was submitted, in seconds since the epoch.
        ended: When it ended, likewise.
    """

    id: str
    status: str
    entrypoint: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    exit_code: int | None = None
    message: str = ""
    started: float | None = None
    ended: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self.status not in ("PENDING", "RUNNING")

    @property
    def code(self) -> int:
        """The exit code of an ended job, as a shell would have it: 128 + n where signal n has ended it."""
        if self.status == "SUCCEEDED":
            return 0
        if self.status == "STOPPED":
            return EXIT_STOPPED
        return 1 if not self.exit_code else self.exit_code if self.exit_code > 0 else 128 - self.exit_code


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the process that runs a command reserves on one node, beside what its workers take.

    Args:
        cpus: CPUs.
        gpus: GPUs.
        memory: Bytes.
        custom: Amounts of the cluster's own resources, by their names.
    """

    cpus: float | None = None
    gpus: float | None = None
    memory: int | None = None
    custom: Mapping[str, float] = field(default_factory=dict)

    def by_name(self) -> dict[str, float]:
        """Amounts by Ray's names."""
        named = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory, **self.custom}
        return {name: float(amount) for name, amount in named.items() if amount}


@dataclass(frozen=True, slots=True)
class Submission:
    """A job to be.

    Args:
        id: Its submission id.
        entrypoint: The command line, quoted for a shell.
        folder: Working directory that is sent along.
        excludes: What is not sent of it, as in a .gitignore.
        environment: Variables of its processes.
        metadata: What is noted with it.
        wanted: What it reserves.
    """

    id: str
    entrypoint: str
    folder: str
    excludes: Sequence[str]
    environment: Mapping[str, str]
    metadata: Mapping[str, str]
    wanted: Wanted


class Cluster(Protocol):
    """The jobs of a cluster. All methods raise `UnreachableError` where it does not answer."""

    @property
    def address(self) -> str:
        """Its URL, without a password."""

    def submit(self, submission: Submission) -> bool:
        """Send a job; False where there is one of this id already."""

    def jobs(self) -> list[Job]:
        """All that the cluster remembers."""

    def job(self, job_id: str) -> Job:
        """One of them.

        Raises:
            UnknownJobError: There is no such job.
        """

    def log(self, job_id: str) -> str:
        """What it has printed so far."""

    def tail(self, job_id: str) -> AsyncIterator[str]:
        """What it prints, from its beginning to its end, in pieces.

        Raises:
            ConnectionError: The connection broke.
        """

    def stop(self, job_id: str) -> None:
        """Ask it to stop."""

    def nodes(self) -> list[Mapping[str, float]]:
        """All that each node has, by Ray's names of resources."""
