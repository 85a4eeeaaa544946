"""Waiting for a job: until it starts, while it prints, to its end."""

import asyncio
import time
from collections.abc import Callable

from segbatch.commands.progress import duration, say
from segbatch.errors import SegbatchError
from segbatch.submit.job import Cluster, Job, UnknownJobError, UnreachableError, Wanted
from segbatch.submit.pending import lacking

LOST_SECONDS = 600.0
"""How long a cluster that does not answer is waited for."""

_POLL_SECONDS = 1.0
_QUIET_SECONDS = 20.0
"""After so long without a line it is asked whether the job is still there: connections die in silence."""

_SETTING_UP = " -- Runtime env is setting up."
_STOP_SECONDS = 10.0
_MOST_PAUSE = 15.0
_LAST_LOOKS = 3


class Log:
    """Lines of a job's log, from connections each of which begins anew.

    Args:
        job_id: Of the job.
    """

    def __init__(self, job_id: str) -> None:
        self._entry = f"Running entrypoint for job {job_id}:"
        self._seen = self._skip = 0
        self._rest = ""

    def restart(self) -> None:
        """The next piece is the log's first again."""
        self._skip = self._seen

    def feed(self, piece: str) -> list[str]:
        """Take a piece.

        Returns:
            The lines that it completes and that were not there before, without what Ray tells of its own doing.
        """
        known = min(self._skip, len(piece))
        self._skip -= known
        self._seen += len(piece) - known
        *lines, self._rest = (self._rest + piece[known:]).split("\n")
        return [line for line in lines if not line.startswith(self._entry) and not line.endswith(_SETTING_UP)]

    def end(self) -> list[str]:
        """The last line, where the job left it without an end."""
        left, self._rest = self._rest, ""
        return [left] if left else []


def follow(
    cluster: Cluster,
    job_id: str,
    show: Callable[[str], None],
    wanted: Wanted | None = None,
    pending_seconds: float | None = None,
) -> Job:
    """Show what a job prints until it ends.

    Args:
        cluster: Where it is.
        job_id: Of the job.
        show: Called with each line.
        wanted: What it reserves, to say why it does not start.
        pending_seconds: How long it may take to start; None for as long as it takes.

    Returns:
        The job that has ended.

    Raises:
        SegbatchError: It does not start, or the cluster is gone.
    """
    return asyncio.run(_follow(cluster, job_id, show, wanted or Wanted(), pending_seconds))


async def _follow(
    cluster: Cluster, job_id: str, show: Callable[[str], None], wanted: Wanted, pending_seconds: float | None
) -> Job:
    log = Log(job_id)
    begun = time.monotonic()
    lost: float | None = None
    pause, looks = _POLL_SECONDS, 0
    while True:
        whole = False
        try:
            job = cluster.job(job_id)
            if lost is not None:
                say(f"{cluster.address} is back.")
                lost = None
            if job.status == "PENDING":
                if pending_seconds is not None and time.monotonic() - begun > pending_seconds:
                    _give_up(cluster, job_id, wanted, pending_seconds)
                await asyncio.sleep(_POLL_SECONDS)
                continue
            log.restart()
            whole = await _show_log(cluster, job_id, log, show)
            job = cluster.job(job_id)
            looks += 1
            if job.is_over and (whole or looks >= _LAST_LOOKS):
                for line in log.end():
                    show(line)
                return job
        except UnreachableError as error:
            now = time.monotonic()
            if lost is None:
                say(f"{cluster.address} does not answer; the job goes on without us. Trying again ...")
                lost = now
            if now - lost > LOST_SECONDS:
                raise SegbatchError(
                    f"{cluster.address} has not answered for {duration(LOST_SECONDS)}. Submit the same again to go on."
                ) from error
        except UnknownJobError as error:
            raise SegbatchError(
                f"{error} A head that was restarted has forgotten it: submit the same again."
            ) from error
        if not whole:
            pause = min(2 * pause, _MOST_PAUSE)
        await asyncio.sleep(pause)


async def _show_log(cluster: Cluster, job_id: str, log: Log, show: Callable[[str], None]) -> bool:
    """Show the log as it grows.

    Returns:
        Whether it was followed to its end, rather than to that of the connection.
    """
    pieces = cluster.tail(job_id)
    waiting = asyncio.ensure_future(anext(pieces))
    try:
        while True:
            await asyncio.wait({waiting}, timeout=_QUIET_SECONDS)
            if not waiting.done():
                if cluster.job(job_id).is_over:
                    return False
                continue
            try:
                piece = waiting.result()
            except StopAsyncIteration:
                return True
            except ConnectionError:
                return False
            for line in log.feed(piece):
                show(line)
            waiting = asyncio.ensure_future(anext(pieces))
    finally:
        waiting.cancel()
        await asyncio.wait({waiting})


def stop(cluster: Cluster, job_id: str) -> Job:
    """Ask a job to stop and wait until it has.

    Returns:
        The job. One that has not started is still pending: Ray stops it when it does, or forgets it after a while.
    """
    cluster.stop(job_id)
    begun = time.monotonic()
    while True:
        job = cluster.job(job_id)
        if job.is_over or (job.status == "PENDING" and time.monotonic() - begun > _STOP_SECONDS):
            return job
        time.sleep(_POLL_SECONDS)


def _give_up(cluster: Cluster, job_id: str, wanted: Wanted, seconds: float) -> None:
    """Stop a job that does not start, and say why.

    Raises:
        SegbatchError: Always.
    """
    why = lacking(cluster, wanted) or "the nodes that could take it are busy, or its environment is not ready"
    cluster.stop(job_id)
    raise SegbatchError(f"{job_id} has not started in {duration(seconds)} and is given up: {why}.")
