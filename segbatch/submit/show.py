"""Jobs in words."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from segbatch.commands.progress import duration
from segbatch.errors import root_message
from segbatch.submit.job import Job

_LEAST_SECRET = 6
"""Letters of a value that is hidden in what is printed: shorter ones are counts and switches."""


def job_lines(jobs: Sequence[Job]) -> list[str]:
    """A line for each job, with headings; 80 columns unless ids are long."""
    rows = [("job", "status", "submitted", "took")]
    rows += [(job.id, job.status.lower(), _moment(job.started), took(job)) for job in jobs]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def status_lines(job: Job) -> list[tuple[str, str]]:
    """What there is to know of a job, as names and values."""
    noted = job.metadata
    lines = [
        ("job", job.id),
        ("status", job.status.lower() + (f", exit code {job.code}" if job.status == "FAILED" else "")),
        ("name", noted.get("name", "")),
        ("output", noted.get("output", "")),
        ("config", noted.get("config", "")),
        ("by", " with segbatch ".join(filter(None, [noted.get("user", ""), noted.get("segbatch", "")]))),
        ("command", job.entrypoint),
        ("submitted", _moment(job.started)),
        ("took", took(job)),
        # Of a command that failed Ray's message is its log's end.
        ("why", root_message(RuntimeError(job.message)) if job.status == "FAILED" and job.exit_code is None else ""),
    ]
    return [(name, value) for name, value in lines if value]


def ending(job: Job) -> str:
    """How a job ended, in a sentence."""
    if not job.is_over:
        return f"{job.id} has not started; it will be stopped when it does."
    if job.status == "FAILED" and job.exit_code is None:
        return f"{job.id} failed: {root_message(RuntimeError(job.message)).removeprefix('RuntimeError: ')}"
    how = {"SUCCEEDED": "is done", "STOPPED": "was stopped"}.get(job.status, f"failed with exit code {job.code}")
    return f"{job.id} {how}{f' after {took(job)}' if took(job) else ''}."


def took(job: Job) -> str:
    """How long a job took, or takes so far, from its submission on; empty where that is not known."""
    if job.started is None:
        return ""
    return duration(max(0.0, (job.ended or datetime.now().timestamp()) - job.started))


def hide(text: str, environment: Mapping[str, str]) -> str:
    """A text without the values of variables: Ray tells them where it cannot set up a job."""
    for value in sorted(environment.values(), key=len, reverse=True):
        if len(value) >= _LEAST_SECRET:
            text = text.replace(value, "***")
    return text


def _moment(seconds: float | None) -> str:
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds):%d %b %H:%M}"
