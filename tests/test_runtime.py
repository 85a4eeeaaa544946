"""What a cluster offers, and how it is joined."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from segbatch import runtime
from segbatch.errors import InputError, SegbatchError
from segbatch.runtime import Resources, ray_session


@pytest.mark.parametrize(
    ("gpus", "use_gpu", "count", "expected"),
    [
        (0, "auto", 1, False),
        (1, "auto", 1, True),
        (1, "auto", 2, False),
        (2, "auto", 2, True),
        (4, False, 1, False),
        (1, True, 2, True),
    ],
)
def test_who_gets_a_gpu(gpus: int, use_gpu: bool, count: int, expected: bool) -> None:
    assert Resources(((8, gpus),)).wants_gpu(use_gpu, count) is expected


def test_a_gpu_that_is_not_there_is_said() -> None:
    with pytest.raises(InputError, match="use_gpu is true, but this machine has no GPU"):
        Resources(((8, 0),)).wants_gpu(True)


def test_a_cluster_may_grow_the_gpus_that_are_asked_for() -> None:
    assert Resources(((8, 0),), local=False).wants_gpu(True)
    assert not Resources(((8, 0),), local=False).wants_gpu("auto")


def test_gpus_of_one_kind_among_several() -> None:
    cluster = Resources(((64, 0), (16, 8), (16, 4), (16, 2)), local=False, accelerators=("", "A100", "T4", "A100"))
    assert (cluster.gpus, cluster.accelerator) == (14, "A100")
    some = cluster.with_gpus_of("T4")
    assert (some.gpus, some.cpus, some.accelerator) == (4, cluster.cpus, "T4")
    assert some.nodes == ((64, 0), (16, 0), (16, 4), (16, 0))
    assert cluster.with_gpus_of(None) is cluster
    # A cluster may grow nodes of the kind.
    assert cluster.with_gpus_of("H100").gpus == 0


def test_a_kind_of_gpu_that_this_machine_lacks_is_said() -> None:
    with pytest.raises(InputError, match="accelerator is 'H100', and this machine has T4"):
        Resources(((8, 1),), accelerators=("T4",)).with_gpus_of("H100")
    with pytest.raises(InputError, match="has no GPU that Ray has a name for"):
        Resources(((8, 0),)).with_gpus_of("H100")


class Growing:
    """A cluster whose only node has no CPUs for work, until it was asked for a worker and looked at often enough."""

    def __init__(self, looks: int) -> None:
        self.looks = looks
        self.asked: list[list[dict[str, int]]] = []

    def nodes(self) -> list[dict]:
        self.looks -= bool(self.asked)
        worker = {"Alive": self.looks <= 0, "Resources": {"CPU": 8.0}}
        return [{"Alive": True, "Resources": {"memory": 1.0}}, worker]

    def request_resources(self, bundles: list[dict[str, int]]) -> None:
        self.asked.append(bundles)


@pytest.fixture
def growing(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Growing]:
    def make(looks: int) -> Growing:
        cluster = Growing(looks)
        monkeypatch.setattr("ray.nodes", cluster.nodes)
        monkeypatch.setattr("ray.autoscaler.sdk.request_resources", cluster.request_resources)
        monkeypatch.setattr(runtime.time, "sleep", lambda seconds: None)
        return cluster

    return make


def test_a_cluster_that_grows_from_nothing_is_asked_for_a_worker(growing, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = growing(4)
    runtime._await_a_worker()
    # The second takes the first back, so that the worker goes when it has nothing to do.
    assert cluster.asked == [[{"CPU": 1}], []]
    assert capsys.readouterr().err.count("asking for one") == 1


def test_a_cluster_with_workers_is_asked_for_nothing(growing, capsys: pytest.CaptureFixture[str]) -> None:
    cluster = growing(0)
    runtime._await_a_worker()
    assert cluster.asked == []
    assert capsys.readouterr().err == ""


def test_a_worker_that_does_not_come_is_said(growing, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = growing(10**9)
    monkeypatch.setattr(runtime, "_WORKER_SECONDS", -60)
    with pytest.raises(SegbatchError, match="No node with CPUs for work came"):
        runtime._await_a_worker()
    assert cluster.asked == [[{"CPU": 1}], []]


_TWO_WAVES = """
import os, time
import ray
from segbatch.runtime import ray_session

def process():
    time.sleep(1)
    return os.getpid()

with ray_session("local", simulated=(2, 0)):
    task = ray.remote(num_cpus=0.25)(process)
    def wave():
        return set(ray.get([task.remote() for _ in range(8)]))
    first = wave()
    time.sleep(4)
    print("FOUND", len(first), len(first - wave()))
"""


@pytest.mark.ray
def test_processes_stay_between_two_tasks() -> None:
    """Ray's own limit is a process a CPU: of eight idle ones it would end six after a second."""
    done = subprocess.run([sys.executable, "-c", _TWO_WAVES], capture_output=True, text=True, check=True, timeout=120)
    _, first, gone = done.stdout.split()[-3:]
    assert int(first) > 4
    assert gone == "0"


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_ray_that_runs_is_joined_and_left_running() -> None:
    import ray

    before = ray.get_runtime_context().get_job_id()
    with ray_session("local") as resources:
        assert ray.get_runtime_context().get_job_id() == before
        assert resources.cpus == 4
        assert resources.gpus == int(ray.cluster_resources().get("GPU", 0))
    assert ray.is_initialized()
    assert os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] == "0"
