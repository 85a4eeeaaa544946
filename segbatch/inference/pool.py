"""Who predicts, and how many blocks may be on their way: arithmetic over what a cluster has."""

import math
from dataclasses import dataclass

_CALLS_ON_A_GPU = 2
"""While one block is on the GPU, the next is unpacked and the one before packed."""

_BYTES_TOGETHER = 8 * 2**20
"""A block takes Ray some 10 ms, however small it is: small ones travel together, up to so many bytes."""

_MOST_TOGETHER = 32

_TURNS = 64
"""How often each actor has its turn at least: all have work until the end, and what is on its way when a run is killed
is a small part of it."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The pool of predicting actors.

    Args:
        min: Actors kept at all times.
        max: Most actors at a time.
        cpus: CPUs that each reserves.
        use_gpu: Whether each has a GPU.
        threads: Torch threads of each, or None for torch's own choice.
        calls: Blocks that each takes at a time; see `segbatch.inference.pipeline`.
        gpus: Share of a GPU that each reserves, where it has one.
        accelerator: Ray's name of the kind of GPU; None for any.
    """

    min: int
    max: int
    cpus: float
    use_gpu: bool
    threads: int | None
    calls: int = 1
    gpus: float = 1.0
    accelerator: str | None = None


def plan_pool(
    *,
    cpus: int,
    gpus: int,
    node_cpus: int,
    use_gpu: bool,
    min_actors: int,
    max_actors: int | None,
    blocks: int,
    share: float = 1.0,
    accelerator: str | None = None,
) -> Pool:
    """How many actors, and how the cores are shared among them.

    With GPUs there is an actor for each, or for each share of one; without, one for each four cores (or node, where
    nodes are smaller), and the cores are shared among them. Some CPU is always left to the tasks that read and write.

    Args:
        cpus: CPUs of the cluster.
        gpus: GPUs of the cluster.
        node_cpus: CPUs of the node that has most: an actor that reserves more would never start.
        use_gpu: Whether actors get a GPU each.
        min_actors: Actors kept at all times.
        max_actors: Most actors at a time, or None for as many as there is room for.
        blocks: Blocks to map: more actors than blocks would idle.
        share: Of a GPU that each actor takes.
        accelerator: Ray's name of the kind of GPU that is counted; None for any.
    """
    # No actor is spread over two GPUs: what is left of each is left over.
    room = gpus * int(1 / share + 1e-9) if use_gpu else max(1, cpus // min(4, node_cpus))
    most = max(1, min(max_actors or max(room, min_actors), blocks))
    least = min(min_actors, most)
    if use_gpu:
        reserved = min(0.5, cpus / (2 * most))
        return Pool(least, most, reserved, True, None, _CALLS_ON_A_GPU, share, accelerator)
    reserved = min(_without_io(cpus) / most, _without_io(node_cpus))
    threads = max(1, min(cpus // most, node_cpus))
    return Pool(least, most, int(reserved) if reserved >= 1 else math.floor(reserved * 1e4) / 1e4, False, threads)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many blocks may be on their way at a time.

    Args:
        reads: Read tasks at a time.
        bytes_in_flight: Pixels and class masks in Ray's object store.
        group: Blocks that travel together.
    """

    reads: int
    bytes_in_flight: int
    group: int = 1


def bound_blocks(*, cpus: int, store_bytes: int, block_bytes: int, pool: Pool, blocks: int) -> Bounds:
    """Enough blocks on their way that no actor waits for one, and no more than the object store holds.

    Args:
        cpus: CPUs of the cluster.
        store_bytes: Size of Ray's object store, over all nodes.
        block_bytes: Pixels and masks of a block.
        pool: Who predicts.
        blocks: To map.
    """
    room = store_bytes // 2
    group = max(1, min(_MOST_TOGETHER, _BYTES_TOGETHER // block_bytes, blocks // (_TURNS * pool.max)))
    block_bytes *= group
    reads = max(1, min(cpus if pool.use_gpu else pool.max + 1, room // (4 * block_bytes)))
    # Of each actor one block in work and two waiting, of each read one, and the class masks on their way out.
    wanted = ((2 + pool.calls) * pool.max + reads + 2) * block_bytes
    return Bounds(reads, max(min(wanted, room), 4 * block_bytes), group)


def _without_io(cpus: int) -> float:
    """What actors may reserve of ``cpus``; the rest is for reading and writing."""
    return max(0.5, cpus - max(1, cpus // 8))
