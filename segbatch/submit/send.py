"""Handing a command to a cluster: as a new job, unless one is at it already."""

import getpass
from collections.abc import Mapping, Sequence

from segbatch import __version__
from segbatch.commands.progress import say
from segbatch.errors import InputError, SegbatchError
from segbatch.submit.command import Command
from segbatch.submit.follow import stop
from segbatch.submit.job import Cluster, Job, Submission, Wanted
from segbatch.submit.package import Package, tell
from segbatch.submit.tries import tries

STOP_SECONDS = 120
"""How long a job that is stopped may take: a training saves its step, and waits up to a minute for a validation."""

_STOP_VARIABLE = "RAY_JOB_STOP_WAIT_TIME_S"
"""Ray kills a job after 3 s unless this says otherwise, on the head or, as here, in the job's environment."""

_RACES = 3


def read_environment(words: Sequence[str], own: Mapping[str, str]) -> dict[str, str]:
    """Variables for the job's processes.

    Args:
        words: ``KEY=VALUE``, or ``KEY`` for this process's own value, which then stands in no history of a shell.
        own: The variables of this process.

    Raises:
        InputError: A variable is not set, or is none.
    """
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key.isidentifier():
            raise InputError(f"--env {key}: write KEY=VALUE, or KEY for the value that it has here.")
        if not equals and key not in own:
            raise InputError(f"--env {key}: {key} is not set here. Set it, or write {key}=VALUE.")
        found[key] = value if equals else own[key]
    return {_STOP_VARIABLE: str(STOP_SECONDS), **found}


def send(
    cluster: Cluster, command: Command, package: Package, environment: Mapping[str, str], wanted: Wanted
) -> tuple[str, bool]:
    """Submit a command, unless a job is running it.

    Returns:
        The submission id, and whether the job is new.

    Raises:
        InputError: Another command is at work in the same folder.
    """
    for _ in range(_RACES):
        found = tries(command.base_id, command.writes, cluster.jobs())
        if found.running is not None:
            return found.running.id, False
        for job in found.waiting:
            say(f"{job.id} has not started: the new job takes its place.")
            stop(cluster, job.id)  # it may have started meanwhile
        if found.last is not None:
            say(_again(found.last, command))
        tell(package)
        submission = Submission(
            id=found.next_id,
            entrypoint=command.entrypoint,
            folder=str(package.folder),
            excludes=package.excludes,
            environment=environment,
            metadata=describe(command),
            wanted=wanted,
        )
        if cluster.submit(submission):
            return submission.id, True
    raise SegbatchError(f"{command.base_id}: others submit the same at this moment. Try again.")


def describe(command: Command) -> dict[str, str]:
    """What is noted with a job. Everybody on the cluster can read it: no environment, no tokens."""
    return {
        "segbatch": __version__,
        "name": command.run,
        "command": command.name,
        "config": command.config or "",
        "output": command.output,
        "writes": command.writes,
        "user": _user(),
    }


def _again(last: Job, command: Command) -> str:
    how = {"SUCCEEDED": "has ended well", "STOPPED": "was stopped"}.get(last.status, "failed")
    goes_on = "all is done afresh" if "--overwrite" in command.words else "what it has done is not done again"
    return f"{last.id} {how}; {goes_on}."


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return ""
