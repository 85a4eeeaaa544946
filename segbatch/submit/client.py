"""Ray's job API, by HTTP. What else looks after jobs knows only `segbatch.submit.job`."""

import logging
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from segbatch.errors import InputError, SegbatchError, root_message
from segbatch.submit.job import Job, Submission, UnknownJobError, UnreachableError
from segbatch.submit.show import hide

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

_CONNECT_SECONDS = 10
_ANSWER_SECONDS = 120
"""Ray's own client waits without end for a head that has gone silent."""


def find_address(given: str | None) -> str:
    """The URL of a cluster's dashboard, which takes jobs.

    Args:
        given: With --address; None for RAY_API_SERVER_ADDRESS or RAY_ADDRESS, where they hold a URL.

    Raises:
        InputError: There is none.
    """
    named = [os.environ.get(name, "") for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")]
    address = given or next((url for url in named if url.startswith(("http://", "https://"))), None)
    if address is None:
        raise InputError("Name the cluster with --address http://HEAD:8265, or in RAY_API_SERVER_ADDRESS.")
    try:
        parts = urlsplit(address)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if not fits:
        raise InputError(
            f"{address!r} is not the URL of a cluster's dashboard: write http://HEAD:8265 (the dashboard's port, not "
            "that of Ray itself)."
        )
    return address.rstrip("/")


def without_password(address: str) -> str:
    """An address for people: what stands before an @ in it is nobody's business."""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def find_token() -> str:
    """Where Ray finds a token for clusters that want one, for people; empty where it finds none.

    Raises:
        InputError: RAY_AUTH_TOKEN_PATH names no file.
    """
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "RAY_AUTH_TOKEN"
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if named:
        if not Path(named).is_file():
            raise InputError(f"RAY_AUTH_TOKEN_PATH names {named}, which does not exist.")
        return named
    usual = Path.home() / ".ray" / "auth_token"
    return str(usual) if usual.is_file() else ""


class RayCluster:
    """The jobs of a cluster; see `segbatch.submit.job.Cluster`.

    Args:
        address: URL of its dashboard.

    Raises:
        UnreachableError: Nobody answers there.
        InputError: It wants another token.
    """

    def __init__(self, address: str) -> None:
        self._url = address
        self._token = find_token()
        if self._token:
            # Ray's client has a token and does not show it, unless it is told to before Ray is imported.
            os.environ.setdefault("RAY_AUTH_MODE", "token")
        # Ray lets these variables overrule the address that its client is given.
        os.environ["RAY_API_SERVER_ADDRESS"] = address
        try:
            with self._errors():
                self._client = _client(address)
        except InputError:
            raise
        except (SegbatchError, LookupError, TypeError) as error:  # what answers there is no dashboard of Ray's
            raise UnreachableError(self._nobody) from error

    @property
    def address(self) -> str:
        """Its URL, without a password."""
        return without_password(self._url)

    def submit(self, submission: Submission) -> bool:
        """Send the working directory and the job; False where there is a job of this id already."""
        environment = dict(submission.environment)
        try:
            with self._errors():
                self._client.submit_job(
                    submission_id=submission.id,
                    entrypoint=submission.entrypoint,
                    runtime_env={
                        "working_dir": submission.folder,
                        "excludes": list(submission.excludes),
                        "env_vars": environment,
                    },
                    metadata=dict(submission.metadata),
                    entrypoint_num_cpus=submission.wanted.cpus,
                    entrypoint_num_gpus=submission.wanted.gpus,
                    entrypoint_memory=submission.wanted.memory,
                    entrypoint_resources=dict(submission.wanted.custom) or None,
                )
        except SegbatchError as error:
            if "already exists" in str(error):
                return False
            raise type(error)(hide(str(error), environment)) from None
        return True

    def jobs(self) -> list[Job]:
        """All submitted jobs that the cluster remembers, the oldest first."""
        with self._errors():
            found = self._client.list_jobs()
        jobs = [_job(details) for details in found if details.submission_id]
        return sorted(jobs, key=lambda job: (job.started or 0, job.id))

    def job(self, job_id: str) -> Job:
        """One of them."""
        with self._errors(job_id):
            return _job(self._client.get_job_info(job_id))

    def log(self, job_id: str) -> str:
        """What it has printed so far."""
        with self._errors(job_id):
            return self._client.get_job_logs(job_id)

    async def tail(self, job_id: str) -> AsyncIterator[str]:
        """What it prints, from its beginning to its end, in pieces."""
        from aiohttp import ClientError

        try:
            async for piece in self._client.tail_job_logs(job_id):
                yield piece
        except (ClientError, RuntimeError, OSError) as error:
            raise ConnectionError(root_message(error)) from error

    def stop(self, job_id: str) -> None:
        """Ask it to stop."""
        with self._errors(job_id):
            self._client.stop_job(job_id)

    def nodes(self) -> list[Mapping[str, float]]:
        """All that each node has, by Ray's names of resources."""
        from ray.util.state import list_nodes
        from ray.util.state.exception import RayStateApiException

        with self._errors():
            try:
                found = list_nodes(address=self._url, limit=10_000, timeout=_CONNECT_SECONDS)
            except RayStateApiException as error:
                raise RuntimeError(root_message(error)) from error
        return [node.resources_total for node in found if node.state == "ALIVE"]

    @contextmanager
    def _errors(self, job_id: str = "") -> Iterator[None]:
        """Ray's errors as segbatch's."""
        import requests
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError as error:
            raise InputError(self._about_token(missing="Authentication failed" not in str(error))) from error
        except (ConnectionError, requests.RequestException) as error:
            raise UnreachableError(self._nobody) from error
        except RuntimeError as error:
            if job_id and ("status code 404" in str(error) or "does not exist" in str(error)):
                raise UnknownJobError(
                    f"{self.address} knows no job {job_id}. `segbatch jobs list` names those it knows."
                ) from error
            raise SegbatchError(f"Ray says: {_said(error)}") from error

    @property
    def _nobody(self) -> str:
        return (
            f"There is no Ray dashboard at {self.address}. Is the head up, and this its dashboard's port (8265 as a "
            "rule)?"
        )

    def _about_token(self, missing: bool) -> str:
        if missing and self._token and os.environ.get("RAY_AUTH_MODE") != "token":
            return f"{self.address} wants a token, and RAY_AUTH_MODE={os.environ['RAY_AUTH_MODE']} keeps yours back."
        if missing:
            return f"{self.address} wants a token: put it into RAY_AUTH_TOKEN or ~/.ray/auth_token."
        return f"{self.address} does not take the token in {self._token or 'use'}: put the cluster's own there."


def _client(address: str) -> "JobSubmissionClient":
    """Ray's client, with an end to its patience and without its chatter."""
    import ray.dashboard.modules.dashboard_sdk as below
    import ray.dashboard.modules.job.sdk as sdk

    for module in (below, sdk):
        module.logger.setLevel(logging.CRITICAL)
    logging.getLogger("ray._private.runtime_env").setLevel(logging.CRITICAL)

    class Patient(sdk.JobSubmissionClient):
        def _do_request(self, method: str, endpoint: str, **details: Any) -> Any:
            return super()._do_request(method, endpoint, timeout=(_CONNECT_SECONDS, _ANSWER_SECONDS), **details)

    return Patient(address)


def _job(details: "JobDetails") -> Job:
    return Job(
        id=details.submission_id or details.job_id or "",
        status=details.status.value,
        entrypoint=details.entrypoint,
        metadata=details.metadata or {},
        exit_code=details.driver_exit_code,
        message=details.message or "",
        started=None if details.start_time is None else details.start_time / 1000,
        ended=None if not details.end_time else details.end_time / 1000,
    )


def _said(error: Exception) -> str:
    """The last line of what the server says, which sends whole tracebacks."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" .")]
    return lines[-1] if lines else type(error).__name__
