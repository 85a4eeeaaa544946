"""Kills of the command itself: at any moment, by a signal that asks, before any operation on a file."""

import signal
import time
from pathlib import Path

from tests.chaos.fault import RAYS_OWN_SECONDS, Fault
from tests.chaos.process import Command, environment

_START_SECONDS = 8.0
"""In which an inline command starts."""


class Driver(Fault):
    """SIGKILL of the inline command, once or twice."""

    kind = "driver"
    codes = frozenset({-signal.SIGKILL})
    signal_number = signal.SIGKILL

    def begin(self) -> None:
        """See `Fault.begin`."""
        self._strikes = self.rng.choice((1, 1, 2))

    def strike(self, command: Command, number: int) -> None:
        """See `Fault.strike`."""
        if number >= self._strikes:
            return
        if self.rng.random() < 0.1:
            time.sleep(self.rng.uniform(0, _START_SECONDS))
            rows: int | None = 0
        else:
            rows = self.moment(command)
        if rows is not None and command.runs:
            command.process.send_signal(self.signal_number)
            self.hit(f"{self.signal_number.name} at {rows} rows")


class DriverOnRay(Driver):
    """The same where the command started Ray: its processes must end too."""

    kind = "driver-ray"
    engine = "ray"
    seconds = 240.0
    end_seconds = RAYS_OWN_SECONDS
    on_their_way = 11
    """Of two actors: 3 reads, 2 x 3 at the actors, 2 writes."""


class Terminate(Driver):
    """SIGTERM, as a cluster's scheduler sends it."""

    kind = "sigterm"
    # The second one while Python still imports. The last one, which is 130 to any shell, is Python's own where the
    # interrupt came in the middle of an import that a C library runs, and was handled all the same.
    codes = frozenset({130, -signal.SIGTERM, -signal.SIGINT})
    signal_number = signal.SIGTERM


class TerminateOnRay(Terminate):
    """The same where the command started Ray."""

    kind = "sigterm-ray"
    engine = "ray"
    seconds = 240.0
    on_their_way = DriverOnRay.on_their_way


class Writes(Fault):
    """The inline command kills itself before one of its operations on files: of each part of the run in turn."""

    kind = "writes"
    codes = frozenset({-signal.SIGKILL})

    def begin(self) -> None:
        """See `Fault.begin`."""
        counts = self.ground.operations
        part = sorted(counts)[self.seed % len(counts)]
        self._kill = f"{part} {self.rng.randint(1, counts[part])}"

    def environment(self, number: int) -> dict[str, str]:
        """See `Fault.environment`."""
        return environment(self.notes, self.out) | ({"SEGBATCH_CHAOS_KILL": self._kill} if number == 0 else {})

    def strike(self, command: Command, number: int) -> None:
        """See `Fault.strike`."""
        if number == 0:
            command.wait(self.seconds)
            if killed := what_was_killed(self.notes, self.out):
                self.hit(f"SIGKILL of {self._kill}: {killed}")


def what_was_killed(notes: Path, out: Path) -> str:
    """The operation on a file before which a process killed itself; empty if none did."""
    killed = notes / "killed"
    if not killed.exists():
        return ""
    name, path = killed.read_text().strip().split(maxsplit=1)
    return f"{name} {Path(path).relative_to(out.absolute())}"
