"""Who predicts, and how many blocks may be on their way: arithmetic over what a cluster has."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

IO_CPUS = 0.25
"""CPUs that a read or write task reserves. A fraction, so that they still find room beside the actors on what
is left of a cluster after a node is lost."""

_PARTS_OF_A_CPU = 10_000
"""Ray knows no smaller ones."""

_CALLS_ON_A_GPU = 2
"""While one block is on the GPU, the next is unpacked and the one before packed."""

_BYTES_TOGETHER = 8 * 2**20
"""A block takes Ray some 10 ms, however small it is: small ones travel together, up to so many bytes."""

_MOST_TOGETHER = 32

_TURNS = 64
"""How often each actor has its turn at least: all have work until the end, and what is on its way when a run is killed
is a small part of it."""


MOST_CORES = 4
"""Of a predicting actor without a GPU."""

_SMALL_SCENE = 1024**2
"""Pixels. A process for each core takes no more memory for windows of such than one of four cores for larger ones."""

_ACTOR_BYTES = 700 * 2**20
"""Memory of an actor without its model and its windows."""

_SCENES_A_CORE = 128
"""Small scenes of a run from which on a process for each core saves more than the seconds that it takes to start."""


def most_cores(scenes: Sequence[int], cpus: int, *, model_bytes: int, memory: float) -> int:
    """Cores that one predicting actor uses at the most, where it has no GPU.

    Threads wait for each other after each layer of a network. For large windows that is little, and one window of
    several cores takes less memory than several of one; small ones take a core of their own a quarter less time.

    Args:
        scenes: Pixels of each.
        cpus: Of the cluster.
        model_bytes: Of the model's weights, which each actor holds.
        memory: Bytes that a node has for each core.
    """
    many_small = len(scenes) >= _SCENES_A_CORE * cpus and max(scenes) <= _SMALL_SCENE
    # The other half is for windows, for those who read and write, and for Ray's object store.
    return 1 if many_small and _ACTOR_BYTES + model_bytes <= memory / 2 else MOST_CORES


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
    nodes: Sequence[tuple[int, int]],
    *,
    use_gpu: bool,
    min_actors: int,
    max_actors: int | None,
    blocks: int,
    cores: int = MOST_CORES,
    share: float = 1.0,
    accelerator: str | None = None,
) -> Pool:
    """How many actors, and how the cores are shared among them.

    With GPUs there is an actor for each, or for each share of one; without, one for so many cores (or node, where
    nodes are smaller), and the cores are shared among them. However the actors come to lie on the nodes, as when those
    of a lost node are started again on the others, each node keeps CPUs for the tasks that read and write.

    Args:
        nodes: (CPUs, GPUs) of each node; GPUs of the kind that is wanted.
        use_gpu: Whether actors get a GPU each.
        min_actors: Actors kept at all times.
        max_actors: Most actors at a time, or None for as many as there is room for.
        blocks: Blocks to map: more actors than blocks would idle.
        cores: That an actor without a GPU uses at the most; see `most_cores`.
        share: Of a GPU that each actor takes.
        accelerator: Ray's name of the kind of GPU that is counted; None for any.
    """
    sizes = [cpus for cpus, _ in nodes if cpus] or [1]
    # No actor is spread over two GPUs: what is left of each is left over.
    each_gpu = int(1 / share + 1e-9)
    room = sum(gpus for _, gpus in nodes) * each_gpu if use_gpu else sum(sizes) // min(cores, max(sizes))
    useful = blocks if use_gpu else min(blocks, max(sum(sizes), min_actors))
    most = max(1, min(max_actors or max(room, min_actors), useful))
    least = min(min_actors, most)
    if use_gpu:
        # Half of a node's CPUs are for reading and writing, however few it has for its GPUs.
        shares = [cpus / (2 * min(most, gpus * each_gpu)) for cpus, gpus in nodes if gpus]
        reserved = _whole_parts(min(0.5, *shares)) if shares else 0.5
        return Pool(least, most, reserved, True, None, _CALLS_ON_A_GPU, share, accelerator)
    reserved = _reserved(sizes, most)
    usable = sum(cpus for cpus in sizes if cpus >= reserved)
    return Pool(least, most, reserved, False, max(1, min(usable // most, max(sizes))))


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


def bound_blocks(*, cpus: int, gpus: int = 0, store_bytes: int, block_bytes: int, pool: Pool, blocks: int) -> Bounds:
    """Enough blocks on their way that no actor waits for one, and no more than the object store holds.

    Where actors wait for GPUs that are still to come, the bounds are those of the cluster with them: they hold for the
    whole run. Until then Ray itself keeps to what is there.

    Args:
        cpus: CPUs of the cluster.
        gpus: Its GPUs of the kind that is wanted.
        store_bytes: Size of Ray's object store, over all nodes.
        block_bytes: Pixels and masks of a block.
        pool: Who predicts.
        blocks: To map.
    """
    growth = max(1.0, pool.max * pool.gpus / max(1, gpus)) if pool.use_gpu else 1.0
    cpus, room = int(cpus * growth), int(store_bytes * growth) // 2
    group = max(1, min(_MOST_TOGETHER, _BYTES_TOGETHER // block_bytes, blocks // (_TURNS * pool.max)))
    block_bytes *= group
    reads = max(1, min(cpus if pool.use_gpu else pool.max + 1, room // (4 * block_bytes)))
    # Of each actor one block in work and two waiting, of each read one, and the class masks on their way out.
    wanted = ((2 + pool.calls) * pool.max + reads + 2) * block_bytes
    return Bounds(reads, max(min(wanted, room), 4 * block_bytes), group)


def _reserved(sizes: Sequence[int], most: int) -> float:
    """CPUs that each actor reserves: as many as can be if all are to find room and no node is ever full.

    Args:
        sizes: CPUs of each node.
        most: Actors.
    """
    kinds, fewest = Counter(sizes), -(-most // len(sizes))  # on the node that has most actors
    shares = {(cpus - _for_io(cpus, actors)) / actors for cpus in kinds for actors in range(fewest, most + 1)}
    for share in sorted(shares, reverse=True):
        reserved = _whole_parts(share)
        if not reserved:
            break
        held = {cpus: _held(cpus, reserved, most) for cpus in kinds}
        if sum(count * held[cpus] for cpus, count in kinds.items()) >= most and all(
            cpus - held[cpus] * reserved >= _for_io(cpus) for cpus in kinds
        ):
            return reserved
    return 1 / _PARTS_OF_A_CPU  # of thousands on a node


def _whole_parts(cpus: float) -> float:
    return math.floor(cpus * _PARTS_OF_A_CPU) / _PARTS_OF_A_CPU


def _held(cpus: int, reserved: float, most: int) -> int:
    """Most actors that a node can come to hold."""
    return min(int(cpus / reserved), most)


def _for_io(cpus: int, actors: int = 0) -> float:
    """CPUs that are left to the tasks that read and write: two for each actor, and one that is waited for.

    Args:
        cpus: Of the node.
        actors: On it; 0 for what is enough for the run to go on at all.
    """
    return min(IO_CPUS * max(2, 2 * actors + 1), cpus / 4)
