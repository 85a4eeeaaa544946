"""Which job a command becomes: the one that is at it already, or its next try."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from segbatch.errors import InputError
from segbatch.submit.job import Job


class Tries(NamedTuple):
    """What the cluster knows of a command.

    Args:
        running: The job that is at it; None where there is none.
        waiting: Jobs that have not started and would write to its folder. A job that was stopped before it started is
            among them, and ends when it starts, so none of them can be waited for.
        last: The last one that has ended; None where there is none.
        next_id: The submission id of the next.
    """

    running: Job | None
    waiting: tuple[Job, ...]
    last: Job | None
    next_id: str


def tries(base: str, writes: str, jobs: Sequence[Job]) -> Tries:
    """Look for a command's jobs.

    Args:
        base: Submission id of the command, without the number of the try.
        writes: Folder in which it has to be alone; empty for none.
        jobs: All jobs of the cluster.

    Raises:
        InputError: Another command is at work in the folder.
    """
    numbered = {int(found[1]): job for job in jobs if (found := re.fullmatch(rf"{re.escape(base)}-([1-9]\d*)", job.id))}
    own = {job.id for job in numbered.values()}
    beside = [job for job in jobs if job.id not in own and writes and job.metadata.get("writes") == writes]
    running = [job for job in numbered.values() if job.status == "RUNNING"]
    foreign = [job for job in beside if job.status == "RUNNING"]
    if foreign and not running:
        raise InputError(
            f"{foreign[0].id} is at work in {writes}, as another command or with other settings. Wait for it, or end "
            f"it: segbatch jobs stop {foreign[0].id}"
        )
    ended = [number for number, job in numbered.items() if job.is_over]
    return Tries(
        running=running[0] if running else None,
        waiting=tuple(job for job in (*numbered.values(), *beside) if job.status == "PENDING"),
        last=numbered[max(ended)] if ended else None,
        next_id=f"{base}-{max(numbered, default=0) + 1}",
    )
