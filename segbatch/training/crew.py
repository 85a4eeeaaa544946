"""The workers of a training: who this one is, what they agree on, and their wire to the driver."""

import os
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import ray.train
import ray.train.torch
import torch
from numpy.typing import NDArray

_SECONDS_BETWEEN_LOOKS = 10.0


class Wire(Protocol):
    """What a worker has of the driver. Losing the driver's ear is no failure."""

    def tell(self, event: dict[str, Any]) -> None:
        """Send an event to whoever watches."""
        ...

    def asks_to_stop(self) -> bool:
        """Whether the driver wants the training to be interrupted, as far as is known here; never waits."""
        ...


@dataclass(frozen=True, slots=True)
class Crew:
    """One worker among all.

    Args:
        rank: Index of this worker.
        world: Number of workers.
        device: What it computes on.
        wire: To the driver; None for all but the first.
    """

    rank: int
    world: int
    device: torch.device
    wire: Wire | None

    @classmethod
    def join(cls, wire: Wire) -> Self:
        """As Ray Train says."""
        context = ray.train.get_context()
        rank = context.get_world_rank()
        return cls(rank, context.get_world_size(), ray.train.torch.get_device(), wire if rank == 0 else None)

    def tell(self, **event: Any) -> None:
        """Send an event to the driver; only the first worker does."""
        if self.wire is not None:
            self.wire.tell(event)

    def summed(self, values: Sequence[float]) -> list[float]:
        """Numbers added up over all workers, which must all ask."""
        if self.world == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(total)
        return total.tolist()

    def summed_matrix(self, matrix: NDArray[np.int64]) -> NDArray[np.int64]:
        """A matrix added up over all workers."""
        if self.world == 1:
            return matrix
        total = torch.from_numpy(matrix).to(self.device)
        torch.distributed.all_reduce(total)
        return total.cpu().numpy()

    def gathered(self, text: str) -> list[str]:
        """What each worker has to say."""
        if self.world == 1:
            return [text]
        texts: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(texts, text)
        return texts

    def store(self, metrics: dict[str, Any], folder: Path | None) -> None:
        """Hand a folder to Ray Train, which keeps a copy of it; all workers must call, the first one has a folder."""
        checkpoint = None if folder is None else ray.train.Checkpoint.from_directory(os.fspath(folder))
        ray.train.report(metrics, checkpoint=checkpoint)

    def stored(self) -> AbstractContextManager[str] | None:
        """The last folder that was stored; None where there is none."""
        checkpoint = ray.train.get_checkpoint()
        return None if checkpoint is None else checkpoint.as_directory()

    def share_buffers(self, model: torch.nn.Module) -> None:
        """Give all workers the first one's batch normalisation statistics, so that they validate what is kept."""
        if self.world > 1:
            for buffer in model.buffers():
                torch.distributed.broadcast(buffer, src=0)


class Bell:
    """Rings when the state should be saved at once or in time: the first worker listens, all are told.

    Args:
        crew: The workers.
        every_steps: Steps between saves; None for ``every_seconds``.
        every_seconds: Seconds between saves otherwise.
    """

    def __init__(self, crew: Crew, every_steps: int | None, every_seconds: float) -> None:
        self._crew = crew
        self._every_steps, self._every_seconds = every_steps, every_seconds
        self._saved = self._looked = time.monotonic()
        self._warned = False

    def wishes(self, step: int, *, before_validation: bool) -> tuple[float, float, float]:
        """Of this worker, as numbers for `Crew.summed`: to save now, to stop, to look for a node's notice.

        Args:
            step: Steps taken when this one is over.
            before_validation: Whether a validation follows that takes long.
        """
        if self._crew.wire is None:
            return 0.0, 0.0, 0.0
        now = time.monotonic()
        due = now - self._saved > self._every_seconds if self._every_steps is None else step % self._every_steps == 0
        look = now - self._looked > _SECONDS_BETWEEN_LOOKS
        if look:
            self._looked = now
        return float(due or before_validation), float(self._crew.wire.asks_to_stop()), float(look)

    def hears_of_preemption(self) -> bool:
        """Whether a node is about to be taken away and this was not known before; all workers must ask."""
        if self._warned or ray.train.get_preemption_info() is None:
            return False
        self._warned = True
        return True

    def saved(self) -> None:
        """The state was saved."""
        self._saved = time.monotonic()
