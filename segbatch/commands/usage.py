"""What a run takes: the machines that are there for it, for as long as it works, over all calls of its commands.

The account is in `RunFolder.usage` and is written all the time, so that a call that is killed has paid its share, too.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from segbatch.commands.folder import RunFolder
from segbatch.runtime import accelerator_of, node_resources

Step = Literal["training", "tuning", "mapping"]

_SECONDS_BETWEEN_LOOKS = 20.0
"""What a kill may cost the account; and machines come and go."""

_UNKNOWN_GPU = "GPU"


@dataclass(frozen=True, slots=True)
class Held:
    """Machines that are there for a run, whether or not it has work for all of them at the moment.

    Args:
        nodes: How many.
        cpus: Of all of them.
        gpus: Likewise, by Ray's name of the accelerator.
    """

    nodes: int
    cpus: float
    gpus: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Usage:
    """Machines held, times the hours for which they were held.

    Args:
        calls: Of commands.
        hours: From beginning to end, of all calls.
        node_hours: Of machines.
        cpu_hours: Of CPUs.
        gpu_hours: Of GPUs, by Ray's name of the accelerator.
    """

    calls: int = 0
    hours: float = 0.0
    node_hours: float = 0.0
    cpu_hours: float = 0.0
    gpu_hours: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, held: Held, seconds: float, calls: int = 0) -> Self:
        """What it comes to when machines are held for a while."""
        hours = seconds / 3600
        gpu_hours = {name: count * hours for name, count in held.gpus.items()}
        return cls(calls, hours, held.nodes * hours, held.cpus * hours, gpu_hours)

    def __add__(self, other: "Usage") -> "Usage":
        names = [*self.gpu_hours, *(name for name in other.gpu_hours if name not in self.gpu_hours)]
        return Usage(
            self.calls + other.calls,
            self.hours + other.hours,
            self.node_hours + other.node_hours,
            self.cpu_hours + other.cpu_hours,
            {name: self.gpu_hours.get(name, 0.0) + other.gpu_hours.get(name, 0.0) for name in names},
        )


def held_on_ray() -> Held:
    """All machines of the cluster that this process has joined, as they are at present."""
    gpus: dict[str, float] = {}
    nodes = node_resources()
    for has in nodes:
        if has.get("GPU"):
            kind = accelerator_of(has) or _UNKNOWN_GPU
            gpus[kind] = gpus.get(kind, 0.0) + has["GPU"]
    return Held(len(nodes), sum(has.get("CPU", 0.0) for has in nodes), gpus)


@contextmanager
def metered(folder: RunFolder, step: Step, look: Callable[[], Held], since: float | None = None) -> Iterator[None]:
    """Keep account of a call as long as it works. It must hold the folder, and make no other meter in it.

    Args:
        folder: Of the run.
        step: What is done.
        look: Tells what is held at present.
        since: When the call began, in seconds since the epoch; None for now.
    """
    now = time.time()
    meter = _Meter(folder, step, now if since is None else since, look())
    end = threading.Event()

    def watch() -> None:
        while not end.wait(_SECONDS_BETWEEN_LOOKS):
            # A cluster that does not answer is told of by whoever works on it.
            with suppress(Exception):
                meter.look(look())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        meter.close()


def read_usage(folder: RunFolder) -> dict[str, Usage]:
    """What a run has taken so far, by step; empty where nothing is known of it."""
    found: dict[str, Usage] = {}
    with suppress(TypeError, KeyError, AttributeError):
        for call in folder.calls():
            usage = Usage(**{name: call[name] for name in Usage.__dataclass_fields__})
            found[call["step"]] = found.get(call["step"], Usage()) + usage
    return found


class _Meter:
    """A call's account."""

    def __init__(self, folder: RunFolder, step: Step, started: float, held: Held) -> None:
        self._folder, self._others = folder, folder.calls()
        self._call: dict[str, Any] = {"step": step, "started": round(started, 1)}
        self._held, self._usage = held, Usage(calls=1)
        self._last = time.monotonic() - max(0.0, time.time() - started)
        self._lock, self._open = threading.Lock(), True
        self.look(held)

    def look(self, held: Held) -> None:
        """Charge what was held since the last look, and go on with what is held now."""
        with self._lock:
            if self._open:
                self._charge()
                self._held = held

    def close(self) -> None:
        """Charge the rest. What is held is not looked at: what ends the call may be a cluster that has gone."""
        with self._lock:
            self._charge()
            self._open = False

    def _charge(self) -> None:
        now = time.monotonic()
        self._usage += Usage.of(self._held, now - self._last)
        self._last = now
        with suppress(OSError):  # a full disk is told of by whoever writes the results
            self._folder.write_calls([*self._others, {**self._call, **asdict(self._usage)}])
