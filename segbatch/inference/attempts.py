"""Blocks that were begun and never ended, since the process that worked on them was lost.

A node that vanishes costs a block once or twice. A block that crashes the library that decodes it, or needs more memory
than there is, ends each process that touches it, and Ray would try it for ever.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from segbatch.storage import is_remote, place

ATTEMPTS = "attempts"
"""Name of the folder beside a ledger's rows."""

MOST_ATTEMPTS = 3

FINISH = "finish"
"""Name of the last step of a scene among the stages; it has no block."""


class Attempt(NamedTuple):
    """A block that a process is at, or was when it was lost.

    Args:
        stage: Name of the stage.
        scene: Index of the scene in the plan.
        block: Number of the block in the scene's grid.
        seconds: Since it was begun.
    """

    stage: str
    scene: int
    block: int
    seconds: float


def under_way(folder: str | Path) -> list[Attempt]:
    """What the files in an attempts' folder tell, the oldest first; they may come and go meanwhile."""
    found = []
    now = time.time()
    with suppress(OSError):
        for path in place(folder).iterdir():
            with suppress(OSError, ValueError):
                stage, scene, block = path.name.split("-")
                seconds = max(0.0, now - path.stat().st_mtime)
                found.append(Attempt(stage, int(scene), int(block), seconds))
    return sorted(found, key=lambda attempt: -attempt.seconds)


def _count(path: Path) -> int:
    """How many attempts there were before this one."""
    if is_remote(path):
        known = b""
        with suppress(FileNotFoundError):
            known = path.read_bytes()
        path.put(known + b".")
        return len(known)
    with open(path, "ab") as file:
        earlier = file.tell()
        file.write(b".")
    return earlier


class Attempts:
    """Counts the attempts at a stage of blocks, in files that outlive the processes.

    Args:
        folder: Shared by all processes of a run; it holds a file for each block that is being worked on.
        stage: Name of the stage.
    """

    def __init__(self, folder: str | Path, stage: str) -> None:
        self._folder = place(folder)
        self._stage = stage

    @contextmanager
    def at(self, scene: int, block: int) -> Iterator[str | None]:
        """Count an attempt, and forget it when it ends, however it ends, unless the process is lost.

        Args:
            scene: Index of the scene in the plan.
            block: Number of the block in the scene's grid.

        Yields:
            Why the block should be given up; None where it should be tried.
        """
        path = self._folder / f"{self._stage}-{scene}-{block}"
        earlier = 0
        # A disk that is full is told of by whoever writes the block.
        with suppress(OSError):
            earlier = _count(path)
        try:
            yield None if earlier < MOST_ATTEMPTS else self._reason(block)
        finally:
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _reason(self, block: int) -> str:
        return (
            f"block {block} was given up: {MOST_ATTEMPTS} processes that were to {self._stage} it were lost. The file "
            "may crash the library that decodes it, or there was too little memory."
        )
