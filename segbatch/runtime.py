"""Where the work runs: starting or joining Ray, and what it has to offer."""

import importlib
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

from segbatch.errors import InputError, SegbatchError

_ASK_SECONDS = 30.0
"""The wish is one of the whole cluster: another command that has its node takes it back."""

_WORKER_SECONDS = 15 * 60
"""A machine with a GPU and a large image may take ten minutes to come."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What the cluster has.

    Args:
        nodes: (CPUs, GPUs) of each node.
        local: Whether this machine is all there is; other clusters may grow.
        store_bytes: Size of Ray's object store, over all nodes.
        accelerators: Ray's name of the GPUs of each node, such as H100; empty where it has none or they have no name.
    """

    nodes: tuple[tuple[int, int], ...]
    local: bool = True
    store_bytes: int = 2**30
    accelerators: tuple[str, ...] = ()

    @property
    def cpus(self) -> int:
        """CPUs of all nodes, at least 1."""
        return max(1, sum(cpus for cpus, _ in self.nodes))

    @property
    def gpus(self) -> int:
        """GPUs of all nodes."""
        return sum(gpus for _, gpus in self.nodes)

    def cpus_for(self, workers: int, use_gpu: bool, least: int | None = None) -> int:
        """CPUs that each of ``workers`` gets, so that all find room on the nodes at the same time.

        Args:
            workers: How many there are to be.
            use_gpu: Whether each has a GPU.
            least: How many have to find room where not all do; None for all.

        Raises:
            InputError: They do not fit, and this machine is all there is.
        """
        for count in range(workers, (least or workers) - 1, -1):
            for cpus in range(max(1, self.cpus // count), 0, -1):
                room = sum(min(has // cpus, gpus if use_gpu else count) for has, gpus in self.nodes)
                if room >= count:
                    return cpus
        if self.local:
            what = f"{self.gpus} GPUs" if use_gpu else f"{self.cpus} CPUs"
            raise InputError(f"{workers} workers do not fit on this machine's {what}: lower training.workers.")
        return 1

    @property
    def accelerator(self) -> str:
        """Name of the first GPUs that have one; empty without."""
        return next(filter(None, self.accelerators), "")

    def with_gpus_of(self, accelerator: str | None) -> "Resources":
        """The same without GPUs of another kind; None for those of any.

        Raises:
            InputError: There are none of this kind, and this machine is all there is.
        """
        if accelerator is None:
            return self
        kinds = self.accelerators or ("",) * len(self.nodes)
        if self.local and accelerator not in kinds:
            has = ", ".join(sorted(filter(None, set(kinds)))) or "no GPU that Ray has a name for"
            raise InputError(f"inference.actors.accelerator is {accelerator!r}, and this machine has {has}.")
        nodes = [
            (cpus, gpus if kind == accelerator else 0) for (cpus, gpus), kind in zip(self.nodes, kinds, strict=True)
        ]
        return replace(
            self, nodes=tuple(nodes), accelerators=tuple(kind if kind == accelerator else "" for kind in kinds)
        )

    def wants_gpu(self, use_gpu: bool | Literal["auto"], count: int = 1) -> bool:
        """Whether ``count`` workers or actors get a GPU each.

        Raises:
            InputError: GPUs are asked for, there are none, and this machine is all there is.
        """
        if use_gpu == "auto":
            return self.gpus >= count
        if use_gpu and self.local and not self.gpus:
            raise InputError("use_gpu is true, but this machine has no GPU. Set it to auto or false.")
        return use_gpu


_PROCESSES_A_CPU = 4
"""Tasks that read and write take a quarter of one."""

_PROCESSES_OF_RAY = 8
"""Actors that Ray Data and Ray Train start for themselves, and some to spare."""


def keeping_processes(cpus: int, gpus: int = 0) -> dict[str, int]:
    """Settings of a Ray whose processes stay between two tasks.

    By default Ray ends what is idle for a second while a node has more processes than CPUs, which its actors alone take
    up: processes that read and write would start again and again, for more than a second of a core each.

    Args:
        cpus: Of the node.
        gpus: Likewise.
    """
    return {"num_workers_soft_limit": _PROCESSES_A_CPU * cpus + 2 * gpus + _PROCESSES_OF_RAY}


@contextmanager
def ray_session(address: str, simulated: tuple[int, int] | None = None) -> Iterator[Resources]:
    """Join a Ray cluster or start Ray on this machine, and leave as it was found.

    Args:
        address: ``auto``: the cluster that this process belongs to (RAY_ADDRESS), else this machine;
            ``local``: this machine; or the address of a cluster.
        simulated: CPUs and GPUs that Ray believes this machine to have, for benchmarks.

    Raises:
        SegbatchError: There is no cluster at the address.
    """
    # Shipping uv's environment to every worker costs seconds a worker and needs uv at the same path on all
    # nodes; local workers share this interpreter, and clusters have an image.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    local = address == "local" or (address == "auto" and not os.environ.get("RAY_ADDRESS"))
    # Ray's core prints its notices to the terminal, which may be a job's log, past Python's logging.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # Tasks that nobody waits for any more are those of a run that has failed, and has said why. Ray would print what
    # each of them failed with, with the addresses in it.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    if local:
        # What Ray does on other systems: all its servers listen on the loopback interface, and nobody else is let in.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray

    # It takes seconds, and Ray's start is mostly waiting for other processes.
    importing = threading.Thread(target=importlib.import_module, args=("ray.data",))
    importing.start()
    mine = not ray.is_initialized()
    if mine:
        where: dict[str, Any] = {}
        if local:
            where = {
                "address": "local",
                "include_dashboard": False,
                "_node_ip_address": "127.0.0.1",
                "_system_config": keeping_processes(*(simulated or (os.cpu_count() or 1, 0))),
            }
        if simulated is not None:
            where["num_cpus"], where["num_gpus"] = simulated
        if not local and address != "auto":
            where["address"] = address
        try:
            with warnings.catch_warnings(), _silent_standard_error():
                warnings.simplefilter("ignore")
                ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            what = "Ray does not start on this machine" if local else f"There is no Ray cluster at {address!r}"
            raise SegbatchError(f"{what}: {next(iter(str(error).splitlines()), type(error).__name__)}") from error
        finally:
            importing.join()
    importing.join()
    # Ray's libraries would tell what segbatch tells; importing them sets their loggers up anew.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    try:
        with terminate_as_interrupt():
            if not local:
                _await_a_worker()
            yield resources(local)
    finally:
        if mine:
            ray.shutdown()


def _await_a_worker() -> None:
    """Where a cluster grows from nothing, ask for a node that may work: what a run does is planned by what there is.

    Raises:
        SegbatchError: None comes.
    """
    import ray
    from ray.autoscaler.sdk import request_resources

    deadline = time.monotonic() + _WORKER_SECONDS
    asked: float | None = None
    try:
        while not any(node["Alive"] and node["Resources"].get("CPU", 0) for node in ray.nodes()):
            if asked is None:
                sys.stderr.write("The cluster has no node with CPUs for work yet: asking for one.\n")
            if asked is None or time.monotonic() - asked > _ASK_SECONDS:
                request_resources(bundles=[{"CPU": 1}])
                asked = time.monotonic()
            if time.monotonic() > deadline:
                raise SegbatchError(
                    f"No node with CPUs for work came within {_WORKER_SECONDS // 60} minutes: see what `ray status` "
                    "says on the head, or start a worker."
                )
            time.sleep(2)
    finally:
        if asked is not None:
            # What is asked for stays asked for, and the node would stay for ever.
            request_resources(bundles=[])


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """SIGTERM as Ctrl-C, in place of Ray's way, which leaves at once; where this thread may say what signals do."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*details: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def node_resources() -> list[dict[str, float]]:
    """All that each living node of the cluster has at present, taken or free, by Ray's names of resources."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def accelerator_of(has: Mapping[str, float]) -> str:
    """Ray's name of a node's GPUs, such as H100; empty without."""
    return next((name.partition(":")[2] for name in has if name.startswith("accelerator_type:")), "")


def resources(local: bool) -> Resources:
    """What the cluster that this process has joined has at present.

    Args:
        local: Whether it is this machine alone.
    """
    alive = node_resources()
    return Resources(
        nodes=tuple((int(has.get("CPU", 0)), int(has.get("GPU", 0))) for has in alive),
        local=local,
        store_bytes=int(sum(has.get("object_store_memory", 0) for has in alive)) or 2**30,
        accelerators=tuple(map(accelerator_of, alive)),
    )


@contextmanager
def _silent_standard_error() -> Iterator[None]:
    """Ray's core announces, past Python, that it will be silent as RAY_BACKEND_LOG_LEVEL says."""
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
