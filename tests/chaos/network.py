"""A node in a network namespace, whose cable is pulled for a while."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.chaos.cluster import Cluster, Place
from tests.chaos.fault import Skip
from tests.chaos.nodes import LAST, OnCluster
from tests.chaos.process import Command

HERE, _THERE = "10.231.77.1", "10.231.77.2"
_SECONDS = (1.0, 20.0)
"""Of a cut. Ray gives a node up after some 5 to 10."""


@dataclass(frozen=True)
class Cable:
    """A network namespace and the pair of devices that joins it to this machine's.

    Args:
        name: Of the namespace and, with a letter more, of the devices.
    """

    name: str

    @property
    def place(self) -> Place:
        """Where a node in the namespace is."""
        return Place(_THERE, ("ip", "netns", "exec", self.name))

    def lay(self) -> None:
        """Make them.

        Raises:
            subprocess.CalledProcessError: This machine does not allow it.
        """
        here, there, inside = f"{self.name}a", f"{self.name}b", ("netns", "exec", self.name, "ip")
        _ip("netns", "add", self.name)
        _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", self.name)
        _ip("addr", "add", f"{HERE}/24", "dev", here)
        _ip("link", "set", here, "up")
        _ip(*inside, "addr", "add", f"{_THERE}/24", "dev", there)
        _ip(*inside, "link", "set", there, "up")
        _ip(*inside, "link", "set", "lo", "up")

    def cut(self) -> None:
        """Nothing passes any more, and nobody is told."""
        _ip("netns", "exec", self.name, "ip", "link", "set", f"{self.name}b", "down")

    def heal(self) -> None:
        """All passes again."""
        _ip("netns", "exec", self.name, "ip", "link", "set", f"{self.name}b", "up")

    def remove(self) -> None:
        """Remove them."""
        subprocess.run(["ip", "link", "delete", f"{self.name}a"], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "delete", self.name], check=False, capture_output=True)


@contextmanager
def cable() -> Iterator[Cable]:
    """A cable for as long as it is needed."""
    laid = Cable(f"sb{os.getpid() % 100_000}")
    try:
        laid.lay()
        yield laid
    finally:
        laid.remove()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Network(OnCluster):
    """A node's network is cut and heals, before Ray gives the node up or after it."""

    kind = "network"
    on_their_way = 11

    @classmethod
    def check(cls) -> None:
        """See `Fault.check`."""
        try:
            with cable():
                pass
        except (OSError, subprocess.CalledProcessError) as error:
            raise Skip(f"network namespaces cannot be made here ({error})") from error

    @property
    def cluster(self) -> Cluster:
        """One of its nodes is at the end of a cable."""
        return self.ground.wired[0]

    def strike(self, command: Command, number: int) -> None:
        """See `Fault.strike`."""
        rows = self.moment(command, LAST) if number == 0 else None
        if rows is None or not command.runs:
            return
        laid, seconds = self.ground.wired[1], self.rng.uniform(*_SECONDS)
        laid.cut()
        try:
            self.hit(f"cut for {seconds:.0f} s at {rows} rows")
            time.sleep(seconds)
        finally:
            laid.heal()
