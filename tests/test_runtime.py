"""What a cluster offers, and how it is joined."""

import os

import pytest

from segbatch.errors import InputError
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
    with pytest.raises(InputError, match="use_gpu is true, but the cluster has no GPU"):
        Resources(((8, 0),)).wants_gpu(True)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_a_ray_that_runs_is_joined_and_left_running() -> None:
    import ray

    before = ray.get_runtime_context().get_job_id()
    with ray_session("local") as resources:
        assert ray.get_runtime_context().get_job_id() == before
        assert resources.cpus == resources.node_cpus == 4
        assert resources.gpus == int(ray.cluster_resources().get("GPU", 0))
    assert ray.is_initialized()
    assert os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] == "0"
