"""Kills inside a standing Ray cluster: of processes that read, write or predict, and of whole nodes."""

import time

import psutil

from segbatch.submit.drain import drain, ray_nodes
from tests.chaos.cluster import ACTOR, BUSY, Cluster
from tests.chaos.fault import Fault
from tests.chaos.job import BLOCKS
from tests.chaos.process import Command, environment

LAST = BLOCKS - 4
"""Rows after which hardly anybody works any more."""

_END_SECONDS = 20.0


class OnCluster(Fault):
    """A run on the standing cluster."""

    engine = "ray"
    seconds = 240.0

    @property
    def cluster(self) -> Cluster:
        """The cluster; see `Ground`."""
        return self.ground.cluster

    def words(self) -> list[str]:
        """See `Fault.words`."""
        return self.ground.job.command(self.out, self.engine, self.cluster.address)

    def environment(self, number: int) -> dict[str, str]:
        """See `Fault.environment`."""
        return environment(None)  # the stages run in processes of the cluster, which have a probe of their own

    def begin(self) -> None:
        """See `Fault.begin`."""
        self.cluster.complete()
        (self.cluster.notes / "begun").unlink(missing_ok=True)

    def once(self, command: Command, number: int) -> int | None:
        """Wait for the moment of the only hit, which is in the first try; the rows by then, None if it is too late."""
        rows = self.moment(command, LAST) if number == 0 else None
        return rows if command.runs else None

    def wrong(self) -> list[str]:
        """See `Fault.wrong`; of the command's processes on the cluster none may go on."""
        deadline = time.monotonic() + _END_SECONDS
        while (actors := self.cluster.find(ACTOR)) and time.monotonic() < deadline:
            time.sleep(0.5)
        return super().wrong() + [f"process {actor.pid} of the command is still there" for actor in actors]

    def end(self) -> None:
        """See `Fault.end`."""
        begun = self.cluster.notes / "begun"
        if begun.exists():
            begun.rename(self.notes / "begun")


class Worker(OnCluster):
    """SIGKILL of processes that read or write a block."""

    kind = "worker"
    on_their_way = 2
    title = BUSY

    def begin(self) -> None:
        """See `Fault.begin`."""
        super().begin()
        self._strikes = self.rng.choice((1, 2, 3))

    def strike(self, command: Command, number: int) -> None:
        """See `Fault.strike`."""
        for _ in range(self._strikes if number == 0 else 0):
            rows = self.moment(command, LAST)
            while rows is not None and command.runs:
                if found := self.cluster.find(self.title):
                    process = self.rng.choice(found)
                    try:
                        title = " ".join(" ".join(process.cmdline()).split())[:60]
                        process.kill()
                    except psutil.Error:
                        continue
                    self.hit(f"SIGKILL of {title} at {rows} rows")
                    break
                time.sleep(0.01)


class Actor(Worker):
    """SIGKILL of a process that predicts, with a model in its memory and blocks on their way to it."""

    kind = "actor"
    on_their_way = 4
    title = ACTOR


class Drain(OnCluster):
    """A node's machine is taken away, after a notice of some seconds; another one comes meanwhile."""

    kind = "drain"
    on_their_way = 11

    def strike(self, command: Command, number: int) -> None:
        """See `Fault.strike`."""
        rows = self.once(command, number)
        if rows is None:
            return
        node, seconds = self.rng.choice(self.cluster.nodes), self.rng.randint(3, 15)
        place = self.cluster.where[node.pid]
        drain(ray_nodes(node.family()), seconds)
        deadline = time.monotonic() + seconds
        self.hit(f"a node's notice of {seconds} s at {rows} rows, and its end")
        self.cluster.start_node(place)
        time.sleep(max(0.0, deadline - time.monotonic()))
        self.cluster.kill(node)


class Lost(OnCluster):
    """SIGKILL of all processes of a node, and none comes: what is left goes on by itself."""

    kind = "lost"
    on_their_way = 11

    def strike(self, command: Command, number: int) -> None:
        """See `Fault.strike`."""
        rows = self.once(command, number)
        if rows is not None:
            self.cluster.kill(self.rng.choice(self.cluster.nodes))
            self.hit(f"SIGKILL of a node at {rows} rows")


class Node(OnCluster):
    """SIGKILL of all processes of a node; another one comes a little later, or has come before."""

    kind = "node"
    on_their_way = 11

    def strike(self, command: Command, number: int) -> None:
        """See `Fault.strike`."""
        rows = self.once(command, number)
        if rows is None:
            return
        node = self.rng.choice(self.cluster.nodes)
        place, seconds = self.cluster.where[node.pid], self.rng.uniform(-1, 6)
        if seconds < 0:
            self.cluster.start_node(place)
        self.cluster.kill(node)
        self.hit(
            f"SIGKILL of a node at {rows} rows, another one {'before' if seconds < 0 else f'{seconds:.0f} s later'}"
        )
        if seconds >= 0:
            time.sleep(seconds)
            self.cluster.start_node(place)
