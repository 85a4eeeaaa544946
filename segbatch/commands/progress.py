"""What a command says while it works: lines on standard error, results on standard output."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from segbatch.log import Level, json_lines
from segbatch.redaction import redact

_SECONDS_BETWEEN_LINES = 5.0
_SECONDS_BETWEEN_LOGGED_LINES = 30.0
"""Where nobody looks on."""

_MOST_POINTS = 6

console = Console(stderr=True, highlight=False, soft_wrap=True)
out = Console(highlight=False)


def say(message: str, level: Level = "info", **fields: Any) -> None:
    """One line of progress, without secrets of addresses.

    Args:
        message: For people.
        level: How bad it is.
        fields: The same for programs: plain data, told where standard error is JSON.
    """
    if console.quiet:
        return
    lines = json_lines()
    if lines is None:
        console.print(redact(message), markup=False)
    else:
        lines.say(message, level, fields)


def tell_standstill(message: str) -> None:
    """Say that nothing is done at the moment, and why."""
    say(message, "warning", event="standstill")


def pause() -> float:
    """Seconds between two lines of progress."""
    return _SECONDS_BETWEEN_LINES if console.is_terminal else _SECONDS_BETWEEN_LOGGED_LINES


@contextmanager
def quietly() -> Iterator[None]:
    """Say nothing of what was said before."""
    console.quiet = True
    try:
        yield
    finally:
        console.quiet = False


def counted(count: int, noun: str) -> str:
    """A number of things for people: 1 block, 2 blocks."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names for people: a, b, c and 4 more."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def duration(seconds: float) -> str:
    """Seconds for people: 8 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def about(seconds: float) -> str:
    """An estimate of seconds for people, in few letters: 95 s, 72 min, 3.5 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def halo_sentence(curve: dict[str, Any] | None, default: int) -> str:
    """What was found about halos, in a line.

    Args:
        curve: A `segbatch.models.halo.HaloCurve` as plain data; None where it could not be measured.
        default: The halo that is taken then.
    """
    if curve is None:
        return f"halo {default} px: the scenes are too small or too empty to measure what the model needs"
    points = curve["points"][1:]
    shown = points[:: -(-len(points) // _MOST_POINTS)]
    found = ", ".join(f"{halo} px: {f'{share:.1e}' if share else 0}" for halo, share in shown)
    return f"share of pixels that differ from the whole image's with a halo of {found}"


class BlockProgress:
    """Lines about blocks as they are done: how many, how fast, how long it will take.

    How fast is counted from the first block on, since what comes before is mostly the start of Ray and its actors, and
    only once blocks have come for a while; when all are done, over all the time.

    Args:
        blocks: Blocks to do.
    """

    def __init__(self, blocks: int) -> None:
        self._blocks = blocks
        self._done = self._failed = self._pixels = 0
        self._started: float | None = None
        self._first: tuple[float, int] | None = None
        """When the first block was done, and its pixels."""
        self._said = time.monotonic()
        self._pause = pause()

    def add(self, started: float, pixels: int, failed: bool) -> None:
        """A block is done.

        Args:
            started: When its reading began, in seconds since the epoch.
            pixels: That it owns.
            failed: Whether it failed.
        """
        now = time.monotonic()
        self._done += 1
        self._failed += failed
        self._pixels += pixels
        self._started = min(started, self._started or started)
        self._first = self._first or (now, pixels)
        if now - self._said < self._pause and self._done < self._blocks:
            return
        self._said = now
        speed, left = self._pace(now)
        ending = "" if left is None else f", {duration(left)} left"
        if self._done == self._blocks:
            took = max(1e-6, time.time() - self._started)
            speed, left, ending = self._pixels / took / 1e6, 0.0, f" in {duration(took)}"
        say(
            f"  {self._done}/{self._blocks} blocks"
            + ("" if speed is None else f", {speed:.2f} Mpx/s")
            + (f", {self._failed} failed" if self._failed else "")
            + ending,
            event="blocks",
            blocks_done=self._done,
            blocks=self._blocks,
            failed=self._failed,
            pixels=self._pixels,
            mpx_per_second=None if speed is None else round(speed, 3),
            seconds_left=None if left is None else round(left, 1),
        )

    def _pace(self, now: float) -> tuple[float, float] | tuple[None, None]:
        """Million pixels a second and seconds that are left, as far as that can be told."""
        assert self._first is not None  # a line comes after a block
        began, pixels = self._first
        seconds, blocks = now - began, self._done - 1
        if not blocks or seconds < self._pause:
            return None, None
        return (self._pixels - pixels) / seconds / 1e6, seconds / blocks * (self._blocks - self._done)
