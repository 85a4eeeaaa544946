"""A watchdog: when nothing has been done for a while it says so, and what the run is waiting for."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Self

from segbatch.inference.attempts import FINISH, MAP, Attempt

QUIET_SECONDS = 300.0
"""So long without a block done is worth a line, and again every so often."""

Tell = Callable[[str], None]
"""Says a line to whoever watches."""

SURVEY = "survey"
"""Name of the pass over the training scenes among the stages; its blocks are strips."""

_DOING = {
    "read": ("reading", "block"),
    "predict": ("predicting", "block"),
    "write": ("writing", "block"),
    MAP: ("mapping", "block"),
    SURVEY: ("counting", "strip"),
}
"""Of each stage what it does with what."""


def unheard(message: str) -> None:
    """Where nobody watches."""


class Watchdog:
    """Tells of a run in which nothing is done, as long as it is entered.

    Args:
        tell: Says a line.
        describe: What is being waited for, as a sentence without its end.
        nothing: What has not happened when nothing is done.
    """

    def __init__(self, tell: Tell, describe: Callable[[], str], nothing: str = "no block was done") -> None:
        self._tell = tell
        self._nothing = nothing
        self._describe = describe
        self._every = QUIET_SECONDS
        self._since = time.monotonic()
        self._due = self._since + self._every
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        # What it asks, as a cluster's head that is gone, may not answer: nobody waits for it.
        self._end.set()

    def done(self) -> None:
        """Something is done, such as a block."""
        self._since = time.monotonic()
        self._due = self._since + self._every

    def sentence(self) -> str:
        """How long nothing was done, and why."""
        text = f"{self._nothing} for {_long(time.monotonic() - self._since)}"
        with suppress(Exception):  # as of a cluster that does not answer
            text += f": {self._describe()}"
        return text

    def _watch(self) -> None:
        while not self._end.wait(max(0.0, self._due - time.monotonic())):
            if time.monotonic() < self._due:
                continue  # one was done meanwhile
            self._due = time.monotonic() + self._every
            sentence = self.sentence()
            with suppress(Exception):  # as a terminal that was closed
                if not self._end.is_set():
                    self._tell(f"  {sentence[0].upper()}{sentence[1:]}.")


class Begun:
    """The blocks that this process is at."""

    def __init__(self) -> None:
        self._since: dict[tuple[str, str, int], float] = {}

    @contextmanager
    def at(self, stage: str, scene: str, block: int) -> Iterator[None]:
        """A block is begun, and ended when the body ends."""
        self._since[stage, scene, block] = time.monotonic()
        try:
            yield
        finally:
            del self._since[stage, scene, block]

    def under_way(self) -> list[Attempt]:
        """All of them, the oldest first."""
        now = time.monotonic()
        found = [Attempt(*place, now - since) for place, since in list(self._since.items())]
        return sorted(found, key=lambda attempt: -attempt.seconds)


def at_work(attempts: Sequence[Attempt]) -> str:
    """What is being done, in words.

    Args:
        attempts: The oldest first.
    """
    if not attempts:
        return "nothing is being read, predicted or written"
    oldest = attempts[0]
    if oldest.stage == FINISH:
        what, many = f"putting the files of {oldest.scene} together", "scenes"
    else:
        doing, unit = _DOING.get(oldest.stage, (oldest.stage, "block"))
        what, many = f"{doing} {unit} {oldest.block} of {oldest.scene}", f"{unit}s"
    text = f"{what} for {_long(oldest.seconds)}"
    return f"{text} ({len(attempts)} {many} are at work)" if len(attempts) > 1 else text


def _long(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
