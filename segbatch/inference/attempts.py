"""Blocks that were begun and never ended, since the process that worked on them was lost.

A node that vanishes costs a block once or twice. A block that crashes the library that decodes it, or needs more memory
than there is, ends each process that touches it, and would be tried for ever: by Ray, or by whoever runs the command
again.
"""

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Self

from segbatch.storage import is_remote, place

ATTEMPTS = "attempts"
"""Name of the folder beside a ledger's rows."""

MOST_ATTEMPTS = 3

MAP = "map"
"""Name of all stages of a block together, where one process does them all."""

BEGIN = "begin"
"""Name of the time until the first block of a scene is done, among the stages; it has no block."""

FINISH = "finish"
"""Name of the last step of a scene among the stages; it has no block."""


class Attempt(NamedTuple):
    """A block that a process is at, or was when it was lost.

    Args:
        stage: Name of the stage.
        scene: Id of the scene.
        block: Number of the block in the scene's grid.
        seconds: Since it was begun.
    """

    stage: str
    scene: str
    block: int
    seconds: float


def under_way(folder: str | Path) -> list[Attempt]:
    """What the files in an attempts' folder tell, the oldest first; they may come and go meanwhile."""
    found = []
    now = time.time()
    for path, stage, scene, block in _files(place(folder)):
        with suppress(OSError):
            found.append(Attempt(stage, scene, block, max(0.0, now - path.stat().st_mtime)))
    # A scene is begun with one of its blocks, which are told of.
    told = (attempt for attempt in found if attempt.stage != BEGIN)
    # Two files of one moment, as clocks of file systems are coarse: blocks are begun by their numbers.
    return sorted(told, key=lambda attempt: (-attempt.seconds, attempt.block))


def suspects(folder: str | Path) -> dict[str, list[int]]:
    """Blocks that were under way when a process was lost that did all stages, by the id of their scene.

    A scene whose files were put together then is there without a block. All are in the order in which to try them: what
    was under way later is more likely to blame, and what has been tried again more so.
    """
    found: dict[str, list[int]] = {}
    for attempt in under_way(folder):
        if attempt.stage in (MAP, FINISH):
            blocks = found.pop(attempt.scene, [])
            found[attempt.scene] = [*blocks, attempt.block] if attempt.stage == MAP else blocks
    return found


def forget_attempts(folder: str | Path, scenes: Collection[str]) -> None:
    """Clear scenes of all suspicion, as where their files are other ones now."""
    for path, _, scene, _ in _files(place(folder)):
        if scene in scenes:
            path.unlink(missing_ok=True)


def given_up(block: int, what: str) -> str:
    """Why a block is not tried any more.

    Args:
        block: Its number.
        what: What the processes that were lost were to do.
    """
    return (
        f"block {block} was given up: {MOST_ATTEMPTS} processes that were to {what} were lost. The file may crash the "
        "library that decodes it, or there was too little memory."
    )


def _files(folder: Path) -> Iterator[tuple[Path, str, str, int]]:
    """Each file with its stage, scene and block."""
    with suppress(OSError):
        for path in folder.iterdir():
            stage, _, rest = path.name.partition("-")
            scene, _, block = rest.rpartition("-")
            with suppress(ValueError):
                yield path, stage, scene, int(block)


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

    Entered, it ends on its way out all that was begun: only a process that is lost leaves files behind.

    Args:
        folder: Shared by all processes of a run; it holds a file for each block that is being worked on.
        stage: Name of the stage.
    """

    def __init__(self, folder: str | Path, stage: str) -> None:
        self._folder = place(folder)
        self._stage = stage
        self._begun: set[tuple[str, int]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for scene, block in list(self._begun):
            self.end(scene, block)

    def begin(self, scene: str, block: int) -> str | None:
        """Count an attempt.

        Args:
            scene: Id of the scene.
            block: Number of the block in the scene's grid.

        Returns:
            Why the block should be given up; None where it should be tried.
        """
        self._begun.add((scene, block))
        earlier = 0
        # A disk that is full is told of by whoever writes the block.
        with suppress(OSError):
            earlier = _count(self._file(scene, block))
        return None if earlier < MOST_ATTEMPTS else given_up(block, f"{self._stage} it")

    def end(self, scene: str, block: int) -> None:
        """Forget all attempts at a block that was begun here: the last one has ended, however it did."""
        if (scene, block) in self._begun:
            self._begun.remove((scene, block))
            with suppress(OSError):
                self._file(scene, block).unlink(missing_ok=True)

    def keep(self, scene: str, block: int) -> None:
        """Never end a block: the next process gives it up at once, where this one is lost later."""
        self._begun.discard((scene, block))

    @contextmanager
    def at(self, scene: str, block: int) -> Iterator[str | None]:
        """Begin a block, and end it when the body ends; yields what `begin` returns."""
        problem = self.begin(scene, block)
        try:
            yield problem
        finally:
            self.end(scene, block)

    def _file(self, scene: str, block: int) -> Path:
        return self._folder / f"{self._stage}-{scene}-{block}"
