"""The engine on Ray: the stages as a Ray Dataset, read tasks, a pool of predicting actors, write tasks."""

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import ray
import ray.data

from segbatch.errors import SegbatchError, root_message
from segbatch.inference.attempts import Attempts, under_way
from segbatch.inference.dataset import Shared, numbered, plain_errors, quiet_context
from segbatch.inference.ledger import LedgerRow
from segbatch.inference.pool import IO_CPUS, Bounds, Pool
from segbatch.inference.rows import SECONDS, Row, mask_to_row, pixels_to_row, row_to_mask, row_to_pixels
from segbatch.inference.stages import BlockMask, ReadStage, WriteStage
from segbatch.inference.watch import Tell, Watchdog, at_work, unheard
from segbatch.inference.work import Work
from segbatch.masks import CLASS_MASK
from segbatch.storage import remove_tree

_NO_PROGRESS_SECONDS = 1800
"""Longest time without a block done: booting a node, or one block on a slow CPU, must fit in."""

_MOST_BLOCKS = 10_000
"""Blocks of a Ray dataset. Of each Ray Data keeps some 20 kB in the driver until the dataset ends; the next one starts
new actors, which takes them seconds."""

_MOST_ITEMS = 32
"""Items that a task takes one after the other."""

_ITEM_TASKS = 256
"""Tasks that items are shared out among, before any takes several."""

_LONGEST_ITEM_SECONDS = 24 * 3600
"""As of a scene of terabytes, whose file is put together by one task."""

_LONGEST_CALL_SECONDS = 2 * 3600
"""For a node to come, and for every backend to be tried on it."""

_Item = TypeVar("_Item")
_Value = TypeVar("_Value")


def run_ray(work: Work, pool: Pool, bounds: Bounds, tell: Tell = unheard) -> Generator[LedgerRow, None, None]:
    """Map the pending blocks and yield the ledger row of each as it is done. Ray must be running.

    A block that ends process after process is given up: its row has an error.

    Args:
        work: What to do.
        pool: Who predicts.
        bounds: How many blocks may be on their way.
        tell: Says a line where no block is done for a long time.

    Raises:
        SegbatchError: A model cannot be loaded, a file cannot be written, or nothing has moved for too long.
    """
    shared = Shared((work, work.reader(), work.writer()))
    attempts = work.attempts
    remove_tree(attempts)  # of a run that was killed
    attempts.mkdir(exist_ok=True)

    def read_block(batch: dict[str, np.ndarray]) -> Row:
        work, read, _ = shared.get()
        scene, block = work.pending[int(batch["number"][0])].tolist()
        with Attempts(attempts, "read").at(work.scenes[scene].id, block) as problem:
            pixels = read(scene, block) if problem is None else work.unread(scene, block, problem)
        return pixels_to_row(pixels)

    def write_block(batch: dict[str, np.ndarray]) -> dict[str, list[str]]:
        work, _, write = shared.get()
        # What ends the run travels as a row: raised here, it would arrive buried in pages of Ray's tracebacks.
        fatal = str(batch["fatal"][0])
        if not fatal:
            mask = row_to_mask(batch)
            try:
                with Attempts(attempts, "write").at(work.scenes[mask.scene].id, mask.block) as problem:
                    row = write(mask if problem is None else replace(mask, error=problem))
                return {"row": [row.to_json()], "fatal": [""]}
            except SegbatchError as error:
                fatal = str(error)
        return {"row": [""], "fatal": [fatal]}

    def map_some(numbers: range) -> Iterator[LedgerRow]:
        # One row a Ray block all the way: batches are then views of shared memory, never copies. But for small blocks:
        # to copy these takes less than a task for each.
        tasks = -(-len(numbers) // bounds.group)
        kind: dict[str, Any] = {"accelerator_type": pool.accelerator} if pool.use_gpu and pool.accelerator else {}
        rows = (
            numbered(numbers, bounds.group, IO_CPUS)
            .map_batches(
                read_block,
                batch_size=1,
                num_cpus=IO_CPUS,
                compute=ray.data.TaskPoolStrategy(size=min(bounds.reads, tasks)),  # Ray warns of more
            )
            .map_batches(
                _Predict,
                fn_constructor_kwargs={"shared": shared, "threads": pool.threads},
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(
                    min_size=pool.min,
                    max_size=pool.max,
                    initial_size=pool.max,
                    max_tasks_in_flight_per_actor=2 * pool.calls,
                    max_concurrent_calls_per_actor=pool.calls,
                    # Else Ray Data calls in a thread of its own, where freed memory cannot be kept: a third slower.
                    enable_true_multi_threading=True,
                ),
                num_cpus=pool.cpus,
                num_gpus=pool.gpus if pool.use_gpu else None,
                **kind,
                zero_copy_batch=True,
            )
            .map_batches(write_block, batch_size=1, num_cpus=IO_CPUS, zero_copy_batch=True)
        )
        for batch in rows.iter_batches(batch_size=None, prefetch_batches=0):
            for line, fatal in zip(batch["row"], batch["fatal"], strict=True):
                if fatal:
                    raise SegbatchError(str(fatal))
                yield LedgerRow.from_json(str(line))

    def waited_for() -> str:
        return f"{at_work(under_way(attempts))}; {_wanted(pool)}"

    way_on = "What is done is kept: run the same command again, without --overwrite, to go on."
    blocks = range(len(work.pending))
    with Watchdog(tell, waited_for) as dog, quiet_context(_NO_PROGRESS_SECONDS, bounds.bytes_in_flight):
        for first in range(0, len(blocks), _MOST_BLOCKS):
            with plain_errors(dog, way_on):
                for row in map_some(blocks[first : first + _MOST_BLOCKS]):
                    dog.done()
                    yield row
    remove_tree(attempts)


def map_items(
    function: Callable[[_Item], _Value],
    items: Sequence[_Item],
    *,
    nothing: str,
    tell: Tell = unheard,
    cpus: float = IO_CPUS,
    together: int = 1,
    longest: int = _LONGEST_ITEM_SECONDS,
    doing: Callable[[], str] | None = None,
) -> Iterator[_Value]:
    """Call a function on each item, in Ray tasks, and yield the results as they come.

    Args:
        function: Sent to each worker once, as the items are.
        items: What to call it on.
        nothing: What has not happened when nothing is done.
        tell: Says a line where no item is done for a long time.
        cpus: That a task reserves.
        together: Fewest items that a task takes.
        longest: Seconds without an item done after which the rest is given up.
        doing: Tells what is being done at the moment; None where nobody knows.

    Raises:
        SegbatchError: As the function raises it, or in a line what went wrong on Ray; nothing has moved for too long.
    """
    shared = Shared((function, items))

    # It names nothing of this module, which would take each worker seconds to import.
    def call(batch: dict[str, np.ndarray]) -> pa.Table:
        function, items = shared.get()
        outcomes: list[_Value | SegbatchError] = []
        for number in batch["number"].tolist():
            # Raised here, it would arrive buried in pages of Ray's tracebacks.
            try:
                outcomes.append(function(items[number]))
            except SegbatchError as error:
                outcomes.append(error)
        return pa.table({"outcome": [ray.cloudpickle.dumps(outcome) for outcome in outcomes]})

    def waited_for() -> str:
        return f"{doing()}; {_cluster()}" if doing else _cluster()

    # Thousands of items are small ones, and a task of Ray's takes longer than they do.
    group = max(together, min(_MOST_ITEMS, len(items) // _ITEM_TASKS))
    with (
        Watchdog(tell, waited_for, nothing) as dog,
        quiet_context(longest),
        plain_errors(dog, "Run the same command again, without --overwrite, to go on."),
    ):
        tasks = numbered(range(len(items)), group, cpus).map_batches(call, batch_size=None, num_cpus=cpus)
        for batch in tasks.iter_batches(batch_size=None, prefetch_batches=0):
            dog.done()
            for outcome in map(ray.cloudpickle.loads, batch["outcome"]):
                if isinstance(outcome, SegbatchError):
                    raise outcome
                yield outcome


def call_once(
    function: Callable[[_Item], _Value],
    item: _Item,
    *,
    cpus: float,
    use_gpu: bool,
    accelerator: str | None = None,
    tell: Tell = unheard,
) -> _Value:
    """Call a function in a worker process that has what a predicting actor has.

    Args:
        function: What to call.
        item: Its argument.
        cpus: That the process reserves, if it has no GPU: a node with GPUs may have none to give.
        use_gpu: Whether it has a GPU, and a whole one: what is measured beside others is measured wrong.
        accelerator: Ray's name of the kind of GPU; None for any.
        tell: Says a line where it takes long, as while a node has to come.

    Raises:
        SegbatchError: As the function raises it, or in a line what went wrong on Ray; it took too long.
    """
    options: dict[str, Any] = {"num_cpus": 0 if use_gpu else cpus, "num_gpus": int(use_gpu), "max_calls": 1}
    if use_gpu and accelerator:
        options["accelerator_type"] = accelerator
    reference = ray.remote(**options)(function).remote(item)

    def waited_for() -> str:
        wanted = f"a {_gpu(accelerator)} is" if use_gpu else f"{cpus:g} CPUs on one node are"
        return f"{_cluster(accelerator)}, and {wanted} wanted"

    try:
        with Watchdog(tell, waited_for, "what the model is to run with was not found") as dog:
            ready, _ = ray.wait([reference], timeout=_LONGEST_CALL_SECONDS)
            if not ready:
                ray.cancel(reference, force=True)
                raise SegbatchError(f"The run was given up: {dog.sentence()}. Run the same command again to go on.")
        result: _Value = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, SegbatchError):
            raise error.cause from error
        raise SegbatchError(f"The work failed on Ray: {root_message(error)}") from error
    except ray.exceptions.RayError as error:  # the worker was killed, as where memory runs out
        raise SegbatchError(f"The work failed on Ray: {root_message(error)}") from error
    return result


def _cluster(accelerator: str | None = None) -> str:
    """What the cluster has now."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus = sum(has.get("CPU", 0) for has in nodes)
    kind = f"accelerator_type:{accelerator}" if accelerator else None
    gpus = sum(has.get("GPU", 0) for has in nodes if kind is None or kind in has)
    many = "" if len(nodes) == 1 else "s"
    return f"the cluster has {len(nodes)} node{many} with {cpus:g} CPUs and {gpus:g} {_gpu(accelerator)}s"


def _gpu(accelerator: str | None) -> str:
    return f"{accelerator} GPU" if accelerator else "GPU"


def _wanted(pool: Pool) -> str:
    """What the cluster has now, and what the pool wants."""
    name = _gpu(pool.accelerator)
    share = f" and {'a' if pool.gpus == 1 else f'{pool.gpus:g} of a'} {name}" if pool.use_gpu else ""
    wanted = f"{pool.cpus:g} CPUs{share} each"
    count = f"{pool.min}" if pool.min == pool.max else f"{pool.min} to {pool.max}"
    actors = f"{count} predicting actor{'' if pool.max == 1 else 's'}"
    return f"{_cluster(pool.accelerator)}, and {actors} with {wanted} are wanted"


class _Predict:
    """The actor: loads the model once."""

    def __init__(self, shared: Shared[tuple[Work, ReadStage, WriteStage]], threads: int | None) -> None:
        self._work, _, _ = shared.get()
        device = "cuda" if ray.get_runtime_context().get_accelerator_ids().get("GPU") else "cpu"
        self._lock = threading.Lock()
        self._fatal = ""
        self._attempts = Attempts(self._work.attempts, "predict")
        try:
            self._predict = self._work.predictor(threads, device)
        except SegbatchError as error:
            self._fatal = str(error)

    def __call__(self, batch: dict[str, np.ndarray]) -> Row:
        names = CLASS_MASK, *self._work.settings.products
        pixels = row_to_pixels(batch)
        if not self._fatal:
            try:
                # The lock first: a block that waits is not to blame for the one that is predicted.
                scene = self._work.scenes[pixels.scene].id
                with self._lock, self._attempts.at(scene, pixels.block) as problem:
                    if problem is not None:
                        pixels = self._work.unread(pixels.scene, pixels.block, problem)
                    return mask_to_row(self._predict(pixels), names)
            except SegbatchError as error:
                self._fatal = str(error)
        seconds = dict.fromkeys(SECONDS, 0.0)
        return mask_to_row(BlockMask(pixels.scene, pixels.block, {}, 0, 0.0, seconds), names, self._fatal)
