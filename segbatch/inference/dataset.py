"""What every pass of Ray Data here has in common: work by number, values that a process fetches once, plain errors."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import pyarrow as pa
import ray
import ray.data
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask
from ray.data.exceptions import ExecutionTimeoutError

from segbatch.errors import SegbatchError
from segbatch.inference.watch import Watchdog

_Value = TypeVar("_Value")


def numbered(numbers: range, group: int, cpus: float) -> ray.data.Dataset:
    """Numbers of what is to be done.

    Args:
        numbers: As the rows' ``number``.
        group: How many a Ray block.
        cpus: What a task reserves; one that is followed by a task which reserves as many becomes one with it.
    """
    groups = [numbers[first : first + group] for first in range(0, len(numbers), group)]
    return ray.data.read_datasource(_Numbers(groups), override_num_blocks=len(groups), num_cpus=cpus)


class Shared(Generic[_Value]):
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


@contextmanager
def quiet_context(no_progress_seconds: int, bytes_in_flight: int | None = None) -> Iterator[None]:
    """Ray Data's settings are global to the process: put back what is changed.

    Args:
        no_progress_seconds: After so long without a task done the pass is given up.
        bytes_in_flight: What may be on its way between tasks; None for what Ray Data sees fit.
    """
    context = ray.data.DataContext.get_current()
    options = context.execution_options
    saved = context.enable_progress_bars, context.execution_no_progress_timeout_s, options.resource_limits
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = no_progress_seconds
    if bytes_in_flight is not None:
        options.resource_limits = options.resource_limits.copy(object_store_memory=bytes_in_flight)
    try:
        yield
    finally:
        context.enable_progress_bars, context.execution_no_progress_timeout_s, options.resource_limits = saved


@contextmanager
def plain_errors(dog: Watchdog, way_on: str) -> Iterator[None]:
    """Say in a line what Ray says in pages: the last one before it begins to tell what followed from it.

    Args:
        dog: Knows why nothing moves.
        way_on: What to do when nothing has moved for too long, as a sentence.

    Raises:
        SegbatchError: In place of any other error.
    """
    try:
        yield
    except SegbatchError:
        raise
    except Exception as error:
        if _is_standstill(error):
            raise SegbatchError(f"The run was given up: {dog.sentence()}. {way_on}") from error
        first = str(error).split("The above exception was the direct cause")[0]
        lines = [line.strip() for line in first.splitlines() if line.strip()]
        raise SegbatchError(f"The work failed on Ray: {lines[-1] if lines else type(error).__name__}") from error


def _is_standstill(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, ExecutionTimeoutError):
        error = error.__cause__
    return error is not None


class _Numbers(Datasource):
    """Numbers by Ray block: descriptors only, pixels are read downstream."""

    def __init__(self, groups: Sequence[range]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._groups = groups

    def estimate_inmemory_data_size(self) -> int | None:
        """Bytes of the numbers."""
        return 8 * sum(map(len, self._groups))

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, *args: Any, **kwargs: Any
    ) -> list[ReadTask]:
        """A task for each group, whatever parallelism Ray would choose."""
        return [
            ReadTask(
                _Group(group),
                BlockMetadata(num_rows=len(group), size_bytes=8 * len(group), input_files=None, exec_stats=None),
            )
            for group in self._groups
        ]


@dataclass(frozen=True, slots=True)
class _Group:
    numbers: range

    def __call__(self) -> Iterable[pa.Table]:
        return [pa.table({"number": list(self.numbers)})]
