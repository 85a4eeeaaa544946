"""A Ray cluster of real processes: a head without CPUs and nodes (of one CPU, if nothing else is said)."""

import re
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from tests.chaos.process import Command, environment

_RAY = str(Path(sys.executable).with_name("ray"))
_START_SECONDS = 90.0
_STORE_BYTES = 150_000_000

_QUICK_TO_MISS = {
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "5",
}
"""A node that is gone is missed after some 5 to 10 seconds; Ray's defaults take several times as long."""

BUSY = r"ray::(?!MapWorker|_?Relay|IDLE)\S*(Read|MapBatches|write)"
"""Titles of processes that read or write a block."""
ACTOR = r"ray::MapWorker\(MapBatches\(_Predict\)\)"
"""Titles of processes that predict."""


@dataclass(frozen=True)
class Place:
    """Where a node is.

    Args:
        ip: Its address; None for Ray's choice.
        prefix: Words before its command, as those that enter a network namespace.
        resources: Words that say what the node has.
    """

    ip: str | None = None
    prefix: tuple[str, ...] = ()
    resources: tuple[str, ...] = ("--num-cpus=1",)


@dataclass
class Cluster:
    """A head and two nodes. Use it as a context manager.

    Args:
        folder: For logs.
        notes: Of the probe, in all processes; None for no probe.
        head_place: Where the head is.
        places: Where the nodes are.
    """

    folder: Path
    notes: Path | None
    head_place: Place = Place()
    places: Sequence[Place] = (Place(), Place())
    nodes: list[Command] = field(default_factory=list)
    where: dict[int, Place] = field(default_factory=dict)
    """Where a node is, by its process id."""

    def __enter__(self) -> Self:
        # Ray's sockets live in this folder, and their names may have 107 bytes at the most.
        self._temporary = tempfile.mkdtemp(prefix="ray-")
        port = _free_port()
        self._commands: list[Command] = []
        try:
            self._head = self._start(
                self.head_place, "--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false",
                f"--ray-client-server-port={_free_port()}",
            )  # fmt: skip
            found = re.search(r"Local node IP: (\S+)", _plain(self._head.said))
            self.address = f"{self.head_place.ip or (found.group(1) if found else '127.0.0.1')}:{port}"
            self.complete()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for command in reversed(self._commands):
            command.process.send_signal(signal.SIGTERM)
        for command in reversed(self._commands):
            command.wait(5)
            command.end()
        shutil.rmtree(self._temporary, ignore_errors=True)

    def complete(self) -> None:
        """Start a node in each place that has none."""
        living = [node for node in self.nodes if node.runs]
        missing = list(self.places)
        for node in living:
            missing.remove(self.where[node.pid])
        self.nodes = living
        for place in missing:
            self.start_node(place)

    def start_node(self, place: Place) -> None:
        """Start a node and wait until it has joined."""
        node = self._start(place, f"--address={self.address}", *place.resources)
        self.where[node.pid] = place
        self.nodes.append(node)

    def kill(self, node: Command) -> None:
        """SIGKILL all processes of a node."""
        node.end()
        self.nodes.remove(node)

    def find(self, pattern: str, nodes: Sequence[Command] | None = None) -> list[psutil.Process]:
        """The processes of the nodes' workers whose title begins so."""
        found = []
        for node in self.nodes if nodes is None else nodes:
            for process in node.family():
                try:
                    if re.match(pattern, " ".join(process.cmdline())):
                        found.append(process)
                except psutil.Error:
                    continue
        return found

    def _start(self, place: Place, *words: str) -> Command:
        log = self.folder / f"{len(self._commands)}.log"
        command = Command(
            [
                *place.prefix, _RAY, "start", "--block", *words, f"--temp-dir={self._temporary}",
                f"--object-store-memory={_STORE_BYTES}", f"--dashboard-agent-listen-port={_free_port()}",
                "--disable-usage-stats", *([f"--node-ip-address={place.ip}"] if place.ip else []),
            ],
            environment(self.notes) | _QUICK_TO_MISS,
            log,
        )  # fmt: skip
        self._commands.append(command)
        deadline = time.monotonic() + _START_SECONDS
        while "Ray runtime started" not in command.said:
            if not command.runs or time.monotonic() > deadline:
                raise RuntimeError(f"a Ray node did not start:\n{command.said}")
            time.sleep(0.1)
        return command


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
