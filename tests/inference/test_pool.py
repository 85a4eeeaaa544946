"""The pool of actors: whatever the cluster, reads and writes have room and every actor can start."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbatch.inference.pipeline import Pool, plan_pool

IO_TASK = 0.25
"""CPUs that one reading or writing task needs."""


def plan(cpus: int, **changes: Any) -> Pool:
    settings: dict[str, Any] = {
        "gpus": 0,
        "node_cpus": cpus,
        "use_gpu": False,
        "min_actors": 1,
        "max_actors": None,
        "blocks": 10_000,
    }
    return plan_pool(cpus=cpus, **(settings | changes))


@given(
    nodes=st.integers(1, 8),
    node_cpus=st.integers(1, 64),
    min_actors=st.integers(1, 6),
    max_actors=st.none() | st.integers(1, 12),
    blocks=st.integers(1, 200),
)
def test_without_gpus_all_fits(
    nodes: int, node_cpus: int, min_actors: int, max_actors: int | None, blocks: int
) -> None:
    cpus = nodes * node_cpus
    pool = plan(cpus, node_cpus=node_cpus, min_actors=min_actors, max_actors=max_actors, blocks=blocks)
    assert 1 <= pool.min <= pool.max <= blocks
    assert max_actors is None or pool.max <= max_actors
    assert 0 < pool.cpus <= node_cpus - IO_TASK
    assert pool.max * pool.cpus <= cpus - 2 * IO_TASK
    assert pool.cpus >= 1 or pool.cpus <= 0.5 or pool.max > 1
    assert pool.threads is not None
    assert 1 <= pool.threads <= node_cpus
    assert pool.threads * pool.max <= max(cpus, pool.max)


@given(
    cpus=st.integers(1, 64), gpus=st.integers(1, 8), max_actors=st.none() | st.integers(1, 8), blocks=st.integers(1, 99)
)
def test_each_gpu_has_its_actor(cpus: int, gpus: int, max_actors: int | None, blocks: int) -> None:
    pool = plan(cpus, gpus=gpus, use_gpu=True, max_actors=max_actors, blocks=blocks)
    assert pool.max == min(blocks, max_actors or gpus)
    assert pool.use_gpu
    assert pool.max * pool.cpus <= cpus - 2 * IO_TASK
    assert pool.threads is None


@pytest.mark.parametrize(
    ("cpus", "node_cpus", "expected"),
    [(1, 1, Pool(1, 1, 0.5, False, 1)), (2, 2, Pool(1, 1, 1, False, 2)), (16, 16, Pool(1, 4, 3, False, 4))],
)
def test_examples(cpus: int, node_cpus: int, expected: Pool) -> None:
    assert plan(cpus, node_cpus=node_cpus) == expected


def test_one_block_on_many_small_nodes_can_start() -> None:
    """One actor for the whole cluster's cores would wait for ever."""
    assert plan(32, node_cpus=2, blocks=1) == Pool(1, 1, 1, False, 2)
    assert plan(32, node_cpus=2) == Pool(1, 16, 1, False, 2)
