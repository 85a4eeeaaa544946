"""The pool of actors and the blocks on their way: whatever the cluster, all have room and every actor can start."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbatch.inference.pool import Bounds, Pool, bound_blocks, most_cores, plan_pool

IO_TASK = 0.25
"""CPUs that one reading or writing task needs."""


def plan(*cpus: int, gpus: int = 0, **changes: Any) -> Pool:
    settings: dict[str, Any] = {"use_gpu": False, "min_actors": 1, "max_actors": None, "blocks": 10_000}
    return plan_pool([(each, gpus) for each in cpus], **(settings | changes))


@given(
    nodes=st.lists(st.integers(1, 64), min_size=1, max_size=8),
    min_actors=st.integers(1, 6),
    max_actors=st.none() | st.integers(1, 12),
    blocks=st.integers(1, 200),
    cores=st.sampled_from([1, 4]),
)
def test_without_gpus_all_fits(
    nodes: list[int], min_actors: int, max_actors: int | None, blocks: int, cores: int
) -> None:
    pool = plan(*nodes, min_actors=min_actors, max_actors=max_actors, blocks=blocks, cores=cores)
    assert 1 <= pool.min <= pool.max <= blocks
    assert max_actors is None or pool.max <= max_actors
    assert sum(int(cpus / pool.cpus) for cpus in nodes) >= pool.max
    assert pool.threads is not None
    assert 1 <= pool.threads <= max(nodes)
    assert pool.threads * pool.max <= max(sum(nodes), pool.max)
    assert pool.calls == 1
    for cpus in nodes:
        # All actors that ever find room on this node, as after the loss of all others.
        actors = min(int(cpus / pool.cpus), pool.max)
        assert cpus - actors * pool.cpus >= min(2 * IO_TASK, cpus / 4)


@given(
    nodes=st.lists(st.integers(1, 64), min_size=1, max_size=8),
    gpus=st.integers(1, 8),
    max_actors=st.none() | st.integers(1, 8),
    blocks=st.integers(1, 99),
)
def test_each_gpu_has_its_actor(nodes: list[int], gpus: int, max_actors: int | None, blocks: int) -> None:
    pool = plan(*nodes, gpus=gpus, use_gpu=True, max_actors=max_actors, blocks=blocks)
    assert pool.max == min(blocks, max_actors or gpus * len(nodes))
    assert pool.use_gpu
    assert pool.threads is None
    assert pool.calls == 2
    assert all(cpus - min(pool.max, gpus) * pool.cpus >= 2 * IO_TASK for cpus in nodes)


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([1], Pool(1, 1, 0.75, False, 1)),
        ([2], Pool(1, 1, 1.5, False, 2)),
        ([4], Pool(1, 1, 3.25, False, 4)),
        ([16], Pool(1, 4, 3.4375, False, 4)),
        # Two actors of 4 CPUs would fill the larger node as soon as the smaller one is lost, and nobody could read.
        ([8, 2], Pool(1, 2, 3.375, False, 4)),
        ([2, 2], Pool(1, 2, 1.5, False, 2)),
        ([12, 12], Pool(1, 6, 3.4166, False, 4)),
        ([48] * 4, Pool(1, 48, 3.4791, False, 4)),
    ],
)
def test_examples(nodes: list[int], expected: Pool) -> None:
    assert plan(*nodes) == expected


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([1], Pool(1, 1, 0.75, False, 1)),
        ([2], Pool(1, 2, 0.75, False, 1)),
        ([16], Pool(1, 16, 0.75, False, 1)),
    ],
)
def test_a_core_for_each_actor(nodes: list[int], expected: Pool) -> None:
    assert plan(*nodes, cores=1) == expected


@pytest.mark.parametrize(
    ("scenes", "cpus", "model_mb", "expected"),
    [
        ([256 * 256] * 256, 2, 100, 1),
        ([256 * 256] * 256, 2, 400, 4),  # each actor holds one
        ([256 * 256] * 255, 2, 100, 4),  # too few to win back what it takes to start a process for each core
        ([256 * 256] * 256, 4, 100, 4),
        ([256 * 256] * 300 + [1025 * 1024], 2, 100, 4),  # its window would be in the memory of each process
        ([], 2, 100, 4),
    ],
)
def test_actors_of_one_core_are_for_many_small_scenes(
    scenes: list[int], cpus: int, model_mb: int, expected: int
) -> None:
    assert most_cores(scenes, cpus, model_bytes=model_mb << 20, memory=2 << 30) == expected


def test_one_block_on_many_small_nodes_can_start() -> None:
    """One actor for the whole cluster's cores would wait for ever."""
    assert plan(*[2] * 16, blocks=1) == Pool(1, 1, 1.5, False, 2)
    assert plan(*[2] * 16) == Pool(1, 16, 1.5, False, 2)


@pytest.mark.parametrize("nodes", [[2], [1, 64], [48] * 100 + [8] * 3])
def test_no_limit_is_no_more_than_a_core_each(nodes: list[int]) -> None:
    pool = plan(*nodes, max_actors=100_000, blocks=2**31)
    assert pool.max == sum(nodes)
    assert 0 < pool.cpus < 1
    assert pool.threads == 1


def test_gpus_that_are_still_to_come() -> None:
    assert plan(2, use_gpu=True, max_actors=8) == Pool(1, 8, 0.5, True, None, 2)


@pytest.mark.parametrize(("share", "actors"), [(1.0, 3), (0.5, 6), (0.4, 6), (0.3, 9), (0.1, 30)])
def test_actors_share_gpus_and_none_is_spread_over_two(share: float, actors: int) -> None:
    pool = plan(64, gpus=3, use_gpu=True, share=share, accelerator="A100")
    assert (pool.max, pool.gpus, pool.accelerator) == (actors, share, "A100")
    assert pool.max * pool.cpus <= 64 - 2 * IO_TASK


pools = st.builds(
    lambda most, gpu, cpus: Pool(1, most, cpus, gpu, None, 2 if gpu else 1),
    st.integers(1, 16),
    st.booleans(),
    st.sampled_from([0.5, 1, 3]),
)


@given(
    pool=pools,
    cpus=st.integers(1, 64),
    store_mb=st.integers(1, 1 << 16),
    block_mb=st.integers(1, 4096),
    more=st.integers(2, 8),
)
def test_blocks_on_their_way_fit_the_object_store(
    pool: Pool, cpus: int, store_mb: int, block_mb: int, more: int
) -> None:
    def bounds(store: int = store_mb, block: int = block_mb) -> Bounds:
        return bound_blocks(
            cpus=cpus, gpus=pool.max, store_bytes=store << 20, block_bytes=block << 20, pool=pool, blocks=1
        )

    found = bounds()
    least = 4 * block_mb << 20
    assert 1 <= found.reads <= max(cpus, pool.max + 1)
    assert least <= found.bytes_in_flight <= max((store_mb << 20) // 2, least)
    # What is being read has room beside as much again in each of the later stages.
    assert found.reads == 1 or found.reads * least <= found.bytes_in_flight * 4
    assert found.reads == 1 or found.reads * least <= (store_mb << 20) // 2
    # A larger store never allows fewer blocks, nor larger blocks more of them.
    assert bounds(store=more * store_mb).reads >= found.reads >= bounds(block=more * block_mb).reads
    assert bounds(store=more * store_mb).bytes_in_flight >= found.bytes_in_flight


@given(pool=pools, cpus=st.integers(1, 64), block_mb=st.integers(1, 256))
def test_where_there_is_room_no_actor_waits(pool: Pool, cpus: int, block_mb: int) -> None:
    found = bound_blocks(cpus=cpus, gpus=pool.max, store_bytes=1 << 50, block_bytes=block_mb << 20, pool=pool, blocks=1)
    assert found.reads == (cpus if pool.use_gpu else pool.max + 1)
    blocks = found.bytes_in_flight / (block_mb << 20)
    # As many as the actors take at a time, one waiting for each at least, and what is being read.
    assert blocks >= (pool.calls + 1) * pool.max + found.reads


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize(("there", "to_come"), [(0, 6), (2, 6), (6, 6), (6, 2)])
def test_a_cluster_that_grows_is_bounded_as_it_will_be(share: float, there: int, to_come: int) -> None:
    def bounds(gpus: int, nodes: int) -> Bounds:
        return bound_blocks(
            cpus=8 * nodes, gpus=gpus, store_bytes=nodes << 34, block_bytes=1 << 26, pool=pool, blocks=10**6
        )

    pool = plan(8, use_gpu=True, max_actors=int(to_come / share), share=share)
    nodes = max(1, there)  # with a GPU each, or the one without that the run starts on
    assert bounds(there, nodes) == bounds(max(there, to_come), max(there, to_come))


def test_bounds_of_a_small_machine() -> None:
    pool = plan(2)
    assert bound_blocks(cpus=2, store_bytes=2 << 30, block_bytes=32 << 20, pool=pool, blocks=10**6) == Bounds(
        2, 7 * 32 << 20
    )
    assert bound_blocks(cpus=2, store_bytes=64 << 20, block_bytes=32 << 20, pool=pool, blocks=10**6) == Bounds(
        1, 128 << 20
    )


@given(pool=pools, block_kb=st.integers(1, 1 << 16), blocks=st.integers(1, 10**6))
def test_small_blocks_travel_together_and_all_actors_have_work(pool: Pool, block_kb: int, blocks: int) -> None:
    group = bound_blocks(cpus=4, store_bytes=1 << 40, block_bytes=block_kb << 10, pool=pool, blocks=blocks).group
    assert 1 <= group <= 32
    assert group == 1 or group * block_kb <= 8 << 10
    assert group == 1 or group * pool.max * 64 <= blocks


def test_how_many_travel_together() -> None:
    def group(block_bytes: int, blocks: int) -> int:
        return bound_blocks(cpus=2, store_bytes=2 << 30, block_bytes=block_bytes, pool=plan(2), blocks=blocks).group

    assert group(256 << 10, 10_000) == 32
    assert group(1 << 20, 10_000) == 8
    assert group(64 << 20, 10_000) == 1
    assert group(256 << 10, 1000) == 15
    assert group(256 << 10, 100) == 1
