"""What a search has found so far: a line of JSON an event, in RUN/tune/trials.jsonl, from which it goes on."""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segbatch.config import Settings
from segbatch.report.trials import TrialResult


@dataclass(slots=True)
class TrialLog:
    """The events of a search, over all calls of its command.

    Args:
        path: The file.
        events: In the order in which they happened.
    """

    path: Path
    events: list[dict[str, Any]] = field(default_factory=list)
    _since: float = field(default_factory=time.monotonic)
    _before: float = 0.0

    def __post_init__(self) -> None:
        try:
            lines = self.path.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return
        # A killed search may leave half a line at the end; what it tells will be found again.
        whole = [line for line in lines if line.endswith(b"\n")]
        if len(whole) < len(lines):
            with open(self.path, "rb+") as file:
                file.truncate(sum(map(len, whole)))
        self.events = [json.loads(line) for line in whole]
        self._before = max((event["clock"] for event in self.events), default=0.0)

    @property
    def clock(self) -> float:
        """Seconds that the search has taken."""
        return self._before + time.monotonic() - self._since

    def add(self, event: dict[str, Any]) -> None:
        """Take an event down."""
        event = {**event, "clock": round(self.clock, 1)}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.events.append(event)

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """The events of epochs."""
        return [event for event in self.events if event["kind"] == "epoch"]

    def results(self, points: Sequence[Settings]) -> list[TrialResult]:
        """What became of the trials that have begun.

        Args:
            points: Settings by number, from 1.
        """
        ends: dict[int, dict[str, Any]] = {}
        histories: dict[int, list[dict[str, Any]]] = {}
        for event in self.events:
            number = event["trial"]
            history = histories.setdefault(number, [])
            if event["kind"] == "start":
                ends.pop(number, None)  # it had failed, and is tried again
            elif event["kind"] == "epoch":
                history.append(event)
            else:
                ends[number] = event
        return [
            TrialResult(
                number=number,
                settings=points[number - 1],
                state=ends[number]["state"] if number in ends else "unfinished",
                reason=ends[number]["reason"] if number in ends else None,
                history=history,
                seconds=sum(row["train_seconds"] + row["validate_seconds"] for row in history),
            )
            for number, history in sorted(histories.items())
            if number <= len(points)
        ]

    def forget_failures(self) -> None:
        """Have the trials that failed tried again, for as long as this log is open."""
        failed = {event["trial"] for event in self.events if event.get("state") == "failed"}
        self.events = [event for event in self.events if event["kind"] != "end" or event["trial"] not in failed]
