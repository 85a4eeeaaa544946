"""Tell Ray that this machine is about to be taken away: nothing more begins on it, and trainings save at once."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import psutil

from segbatch.errors import InputError, SegbatchError

AWS_METADATA = "http://169.254.169.254"
"""Where a machine of AWS asks about itself."""

_SECONDS_BETWEEN_LOOKS = 5.0
_ANSWER_SECONDS = 2.0
_TOKEN_SECONDS = 300


class RayNode(NamedTuple):
    """A Ray node of this machine.

    Args:
        id: Ray's.
        address: Of the cluster.
    """

    id: str
    address: str


def ray_nodes(processes: Iterable[psutil.Process] | None = None) -> list[RayNode]:
    """The Ray nodes of this machine, by their processes.

    Args:
        processes: Where to look; None for all.
    """
    found: dict[str, RayNode] = {}  # a child has its parent's name and words until it becomes another program
    for process in psutil.process_iter() if processes is None else processes:
        try:
            if process.name() != "raylet":
                continue
            known = dict(word.removeprefix("--").partition("=")[::2] for word in process.cmdline())
        except psutil.Error:
            continue
        if known.get("node_id") and known.get("gcs-address"):
            found[known["node_id"]] = RayNode(known["node_id"], known["gcs-address"])
    return list(found.values())


def drain(nodes: Sequence[RayNode], seconds: int) -> None:
    """Ask Ray to begin nothing more on nodes that are gone in so many seconds.

    Raises:
        InputError: There is none.
        SegbatchError: Ray refuses.
    """
    if not nodes:
        raise InputError("No Ray node runs on this machine.")
    for node in nodes:
        words = [
            str(Path(sys.executable).with_name("ray")), "drain-node", f"--address={node.address}",
            f"--node-id={node.id}", "--reason=DRAIN_NODE_REASON_PREEMPTION",
            "--reason-message=the machine is taken away", f"--deadline-remaining-seconds={seconds}",
        ]  # fmt: skip
        done = subprocess.run(words, check=False, capture_output=True, text=True)  # noqa: S603  # Ray's own ids
        if done.returncode:
            said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
            raise SegbatchError(f"Ray does not drain node {node.id}: {said[-1] if said else done.returncode}")


def seconds_left(notice: str, now: float) -> int:
    """Seconds until the machine is taken away, by AWS's notice: ``{"action": "terminate", "time": "..."}``."""
    try:
        end = datetime.strptime(json.loads(notice)["time"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except (ValueError, KeyError, TypeError):
        return 0  # a notice all the same
    return max(0, int(end - now))


def wait_for_notice(server: str = AWS_METADATA) -> str:
    """Ask AWS every few seconds whether this spot machine is taken away; its notice, when it is.

    A server that does not answer is asked again: it may be busy, and there is nobody else to ask.
    """
    for notice in _looks(server):
        if notice:
            return notice
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    raise AssertionError("looks never end")


def _looks(server: str) -> Iterator[str]:
    while True:
        try:
            token = _ask(
                f"{server}/latest/api/token", "PUT", {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_SECONDS)}
            )
            yield _ask(f"{server}/latest/meta-data/spot/instance-action", "GET", {"X-aws-ec2-metadata-token": token})
        except (urllib.error.URLError, OSError):  # 404 is no notice yet
            yield ""


def _ask(url: str, method: str, headers: dict[str, str]) -> str:
    request = urllib.request.Request(url, method=method, headers=headers)  # noqa: S310  # of the metadata server
    # A proxy of the environment would be asked about itself.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=_ANSWER_SECONDS) as answer:
        return str(answer.read().decode())
