"""What a command says while it works: lines on standard error, results on standard output."""

import time
from typing import Any

from rich.console import Console

_SECONDS_BETWEEN_LINES = 5.0
_MOST_POINTS = 6

console = Console(stderr=True, highlight=False, soft_wrap=True)
out = Console(highlight=False)


def say(message: str) -> None:
    """One line of progress."""
    console.print(message, markup=False)


def counted(count: int, noun: str) -> str:
    """A number of things for people: 1 block, 2 blocks."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """Seconds for people: 8 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


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
    found = ", ".join(f"{halo} px: {share:.1e}" for halo, share in shown)
    return f"share of pixels that differ from the whole image's, at cores of {curve['core']} px: halo {found}"


class BlockProgress:
    """Lines about blocks as they are done: how many, how fast, how long it will take.

    Args:
        blocks: Blocks to do.
    """

    def __init__(self, blocks: int) -> None:
        self._blocks = blocks
        self._done = self._failed = self._pixels = 0
        self._started: float | None = None
        self._said = time.monotonic()

    def add(self, started: float, pixels: int, failed: bool) -> None:
        """A block is done.

        Args:
            started: When its reading began, in seconds since the epoch.
            pixels: That it owns.
            failed: Whether it failed.
        """
        self._done += 1
        self._failed += failed
        self._pixels += pixels
        self._started = min(started, self._started or started)
        now = time.monotonic()
        if now - self._said < _SECONDS_BETWEEN_LINES and self._done < self._blocks:
            return
        self._said = now
        elapsed = max(1e-6, time.time() - self._started)
        left = elapsed / self._done * (self._blocks - self._done)
        say(
            f"  {self._done}/{self._blocks} blocks, {self._pixels / elapsed / 1e6:.2f} Mpx/s"
            + (f", {self._failed} failed" if self._failed else "")
            + (f", {duration(left)} left" if self._done < self._blocks else f" in {duration(elapsed)}")
        )


class TrainingProgress:
    """Lines about steps and epochs.

    Args:
        class_names: By class id.
    """

    def __init__(self, class_names: tuple[str, ...]) -> None:
        self._names = class_names
        self._started = time.monotonic()
        self._first_epoch = 0

    def __call__(self, event: dict[str, Any]) -> None:
        """An event of the training loop."""
        if event["kind"] == "resume":
            self._first_epoch = event["epoch"]
            say(f"  going on after epoch {event['epoch']}")
        elif event["kind"] == "step":
            say(
                f"  epoch {event['epoch']}/{event['epochs']}, step {event['step']}/{event['steps']}: "
                f"loss {event['loss']:.3f}, {event['tiles_per_second']:.1f} tiles/s, "
                f"{event['waited']:.0%} waiting"
            )
        elif event["kind"] == "epoch":
            row = event["history"][-1]
            done = row["epoch"] - self._first_epoch
            left = (time.monotonic() - self._started) / done * (event["epochs"] - row["epoch"])
            iou = ", ".join(
                f"{name} {'-' if value is None else f'{value:.2f}'}"
                for name, value in zip(self._names, row["iou"], strict=True)
            )
            say(
                f"  epoch {row['epoch']}/{event['epochs']}: loss {row['loss']:.3f}, "
                f"miou {row['miou'] or 0:.3f} ({iou})" + (f", {duration(left)} left" if left else "")
            )
        elif event["kind"] == "stale":
            say(f"  no better epoch in the last {event['patience']}: training ends after epoch {event['epoch']}")
        elif event["kind"] == "halo":
            say(f"  {halo_sentence(event['curve'], event['halo'])}")
