"""The engine on Ray: the stages as a Ray Dataset, read tasks, a pool of predicting actors, write tasks."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import pyarrow as pa
import ray
import ray.data
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from segbatch.errors import SegbatchError
from segbatch.inference.ledger import LedgerRow
from segbatch.inference.stages import BlockMask, BlockPixels, ReadStage, WriteStage
from segbatch.inference.work import Work

_IO_CPUS = 0.25
"""CPUs that a read or write task reserves. A fraction, so that they still find room beside the actors on what
is left of a cluster after a node is lost."""

_NO_PROGRESS_SECONDS = 1800
"""Longest time without a block done: booting a node, or one block on a slow CPU, must fit in."""

_NO_LIMIT_SECONDS = 7 * 24 * 3600

_SECONDS = ("read", "wait", "predict", "forward")
"""Stages whose seconds travel with a class mask."""

Row = dict[str, Any]
_Item = TypeVar("_Item")
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Pool:
    """The pool of predicting actors.

    Args:
        min: Actors kept at all times.
        max: Most actors at a time.
        cpus: CPUs that each reserves.
        use_gpu: Whether each has a GPU.
        threads: Torch threads of each, or None for torch's own choice.
    """

    min: int
    max: int
    cpus: float
    use_gpu: bool
    threads: int | None


def plan_pool(
    *, cpus: int, gpus: int, node_cpus: int, use_gpu: bool, min_actors: int, max_actors: int | None, blocks: int
) -> Pool:
    """How many actors, and how the cores are shared among them.

    With GPUs there is an actor for each; without, one for each four cores (or node, where nodes are smaller),
    and the cores are shared among them. Some CPU is always left to the tasks that read and write.

    Args:
        cpus: CPUs of the cluster.
        gpus: GPUs of the cluster.
        node_cpus: CPUs of the node that has most: an actor that reserves more would never start.
        use_gpu: Whether actors get a GPU each.
        min_actors: Actors kept at all times.
        max_actors: Most actors at a time, or None for as many as there is room for.
        blocks: Blocks to map: more actors than blocks would idle.
    """
    room = gpus if use_gpu else max(1, cpus // min(4, node_cpus))
    most = max(1, min(max_actors or max(room, min_actors), blocks))
    least = min(min_actors, most)
    if use_gpu:
        return Pool(least, most, min(0.5, cpus / (2 * most)), True, None)
    reserved = min(_without_io(cpus) / most, _without_io(node_cpus))
    threads = max(1, min(cpus // most, node_cpus))
    return Pool(least, most, int(reserved) if reserved >= 1 else math.floor(reserved * 1e4) / 1e4, False, threads)


def _without_io(cpus: int) -> float:
    """What actors may reserve of ``cpus``; the rest is for reading and writing."""
    return max(0.5, cpus - max(1, cpus // 8))


def run_ray(work: Work, pool: Pool) -> Iterator[LedgerRow]:
    """Map the pending blocks and yield the ledger row of each as it is done. Ray must be running.

    Raises:
        SegbatchError: A model cannot be loaded, a file cannot be written, or Ray gave up.
    """
    shared = _Shared((work, work.reader(), work.writer()))

    def read_block(batch: dict[str, np.ndarray]) -> Row:
        work, read, _ = shared.get()
        scene, block = work.pending[int(batch["number"][0])].tolist()
        return _pixels_to_row(read(scene, block))

    def write_block(batch: dict[str, np.ndarray]) -> dict[str, list[str]]:
        _, _, write = shared.get()
        # What ends the run travels as a row: raised here, it would arrive buried in pages of Ray's tracebacks.
        fatal = str(batch["fatal"][0])
        if not fatal:
            try:
                return {"row": [write(_row_to_mask(batch)).to_json()], "fatal": [""]}
            except SegbatchError as error:
                fatal = str(error)
        return {"row": [""], "fatal": [fatal]}

    with _quiet_context(_NO_PROGRESS_SECONDS), _plain_errors():
        # One row a Ray block all the way: batches are then views of shared memory, never copies.
        rows = (
            _numbers(len(work.pending))
            .map_batches(read_block, batch_size=None, num_cpus=_IO_CPUS)
            .map_batches(
                _Predict,
                fn_constructor_kwargs={"shared": shared, "threads": pool.threads},
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(min_size=pool.min, max_size=pool.max, initial_size=pool.max),
                num_cpus=pool.cpus,
                num_gpus=1 if pool.use_gpu else None,
                zero_copy_batch=True,
            )
            .map_batches(write_block, batch_size=None, num_cpus=_IO_CPUS, zero_copy_batch=True)
        )
        for batch in rows.iter_batches(batch_size=None, prefetch_batches=0):
            for line, fatal in zip(batch["row"], batch["fatal"], strict=True):
                if fatal:
                    raise SegbatchError(str(fatal))
                yield LedgerRow.from_json(str(line))


def map_items(function: Callable[[_Item], str], items: Sequence[_Item], cpus: float = _IO_CPUS) -> Iterator[str]:
    """Call a function on each item, a Ray task each, and yield the results as they come.

    Args:
        function: May take as long as it needs.
        items: Sent to each worker once.
        cpus: That a call reserves.
    """
    shared = _Shared(items)

    def call(batch: dict[str, np.ndarray]) -> dict[str, list[str]]:
        return {"result": [function(shared.get()[int(batch["number"][0])])]}

    with _quiet_context(_NO_LIMIT_SECONDS), _plain_errors():
        results = _numbers(len(items)).map_batches(call, batch_size=None, num_cpus=cpus)
        for batch in results.iter_batches(batch_size=None, prefetch_batches=0):
            yield from map(str, batch["result"])


@contextmanager
def _quiet_context(no_progress_seconds: int) -> Iterator[None]:
    """Ray Data's settings are global to the process: put back what is changed."""
    context = ray.data.DataContext.get_current()
    saved = context.enable_progress_bars, context.execution_no_progress_timeout_s
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = no_progress_seconds
    try:
        yield
    finally:
        context.enable_progress_bars, context.execution_no_progress_timeout_s = saved


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Say in a line what Ray says in pages: the last one before it begins to tell what followed from it."""
    try:
        yield
    except SegbatchError:
        raise
    except Exception as error:
        first = str(error).split("The above exception was the direct cause")[0]
        lines = [line.strip() for line in first.splitlines() if line.strip()]
        raise SegbatchError(f"The work failed on Ray: {lines[-1] if lines else type(error).__name__}") from error


def _numbers(count: int) -> ray.data.Dataset:
    """The numbers from 0, one a Ray block."""
    return ray.data.read_datasource(_Numbers(count), override_num_blocks=count, num_cpus=_IO_CPUS)


class _Shared(Generic[_Value]):
    """A value that tasks use again and again: each process fetches it once.

    Captured in a task's function it would be unpickled for each task, which for a plan of many scenes takes
    longer than the task; and a writer that lives as long as its process needs one ledger file, not one a block.
    """

    _here: ClassVar[dict[str, Any]] = {}

    def __init__(self, value: _Value) -> None:
        self._reference = ray.put(value)

    def get(self) -> _Value:
        """The value; the same object at each call in a process."""
        key = self._reference.hex()
        if key not in self._here:
            self._here.clear()
            self._here[key] = ray.get(self._reference)
        value: _Value = self._here[key]
        return value


class _Predict:
    """The actor: loads the model once."""

    def __init__(self, shared: _Shared[tuple[Work, ReadStage, WriteStage]], threads: int | None) -> None:
        work, _, _ = shared.get()
        device = "cuda" if ray.get_runtime_context().get_accelerator_ids().get("GPU") else "cpu"
        self._fatal = ""
        try:
            self._predict = work.predictor(threads, device)
        except SegbatchError as error:
            self._fatal = str(error)

    def __call__(self, batch: dict[str, np.ndarray]) -> Row:
        pixels = _row_to_pixels(batch)
        if not self._fatal:
            try:
                return _mask_to_row(self._predict(pixels))
            except SegbatchError as error:
                self._fatal = str(error)
        nothing, seconds = np.zeros((0, 0), np.uint8), dict.fromkeys(_SECONDS, 0.0)
        return _mask_to_row(BlockMask(pixels.scene, pixels.block, nothing, 0, 0.0, seconds), self._fatal)


class _Numbers(Datasource):
    """The numbers of the pending blocks, one a Ray block: descriptors only, pixels are read downstream."""

    def __init__(self, count: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._count = count

    def estimate_inmemory_data_size(self) -> int | None:
        """Bytes of the numbers."""
        return 8 * self._count

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, *args: Any, **kwargs: Any
    ) -> list[ReadTask]:
        """A task for each number, whatever parallelism Ray would choose."""
        metadata = BlockMetadata(num_rows=1, size_bytes=8, input_files=None, exec_stats=None)
        return [ReadTask(_Number(number), metadata) for number in range(self._count)]


@dataclass(frozen=True, slots=True)
class _Number:
    number: int

    def __call__(self) -> Iterable[pa.Table]:
        return [pa.table({"number": [self.number]})]


def _pixels_to_row(pixels: BlockPixels) -> Row:
    empty = not pixels.valid.size  # Arrow's tensors have no zero-sized sides
    return {
        "scene": np.array([pixels.scene]),
        "block": np.array([pixels.block]),
        "values": (np.zeros((1, 1, 1), pixels.values.dtype) if empty else pixels.values)[None],
        "valid": (np.zeros((1, 1), bool) if empty else pixels.valid)[None],
        "empty": np.array([empty]),
        "started": np.array([pixels.started]),
        "read": np.array([pixels.seconds["read"]]),
        "error": np.array([pixels.error or ""]),
    }


def _row_to_pixels(row: Row) -> BlockPixels:
    empty = bool(row["empty"][0])
    return BlockPixels(
        scene=int(row["scene"][0]),
        block=int(row["block"][0]),
        values=row["values"][0][:, :0, :0] if empty else row["values"][0],
        valid=row["valid"][0][:0, :0] if empty else row["valid"][0],
        started=float(row["started"][0]),
        seconds={"read": float(row["read"][0])},
        error=str(row["error"][0]) or None,
    )


def _mask_to_row(predicted: BlockMask, fatal: str = "") -> Row:
    empty = not predicted.mask.size
    return {
        "scene": np.array([predicted.scene]),
        "block": np.array([predicted.block]),
        "mask": (np.zeros((1, 1), np.uint8) if empty else predicted.mask)[None],
        "empty": np.array([empty]),
        "windows": np.array([predicted.windows]),
        "started": np.array([predicted.started]),
        **{name: np.array([seconds]) for name, seconds in predicted.seconds.items()},
        "error": np.array([predicted.error or ""]),
        "fatal": np.array([fatal]),
    }


def _row_to_mask(row: Row) -> BlockMask:
    return BlockMask(
        scene=int(row["scene"][0]),
        block=int(row["block"][0]),
        mask=row["mask"][0][:0, :0] if row["empty"][0] else row["mask"][0],
        windows=int(row["windows"][0]),
        started=float(row["started"][0]),
        seconds={name: float(row[name][0]) for name in _SECONDS},
        error=str(row["error"][0]) or None,
    )
