"""What a search has found so far, from which it goes on, and what is said of it."""

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segbatch.commands.progress import counted, duration, say
from segbatch.config import RunConfig, Settings
from segbatch.redaction import redact_all
from segbatch.report.trials import TrialResult, short_keys, shown
from segbatch.storage import append, is_remote


@dataclass(slots=True)
class TrialLog:
    """The events of a search, over all calls of its command: a line of JSON each.

    Args:
        path: The file.
        events: In the order in which they happened.
    """

    path: Path
    events: list[dict[str, Any]] = field(default_factory=list)
    _lines: list[bytes] = field(default_factory=list)
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
        self.events, self._lines = [json.loads(line) for line in whole], whole
        self._before = max((event["clock"] for event in self.events), default=0.0)

    @property
    def clock(self) -> float:
        """Seconds that the search has taken."""
        return self._before + time.monotonic() - self._since

    def add(self, event: dict[str, Any]) -> None:
        """Take an event down."""
        event = redact_all({**event, "clock": round(self.clock, 1)})
        self._lines.append(f"{json.dumps(event)}\n".encode())
        if is_remote(self.path):  # an object cannot be appended to
            self.path.put(b"".join(self._lines))
        else:
            append(self.path, self._lines[-1])
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


@dataclass(frozen=True, slots=True)
class Search:
    """A search for settings.

    Args:
        points: The settings of the trials, by number from 1.
        configs: The whole configurations, likewise.
        log: What has been found.
        storage: Where the trials have their checkpoints.
        in_bundle: Number of the trial whose model is the run's bundle, or None.
    """

    points: Sequence[Settings]
    configs: Sequence[RunConfig]
    log: TrialLog
    storage: Path
    in_bundle: int | None

    def results(self) -> list[TrialResult]:
        """What became of the trials that have begun."""
        return self.log.results(self.points)

    @property
    def pending(self) -> list[int]:
        """Numbers of the trials that have not ended."""
        ended = {trial.number for trial in self.results() if trial.state != "unfinished"}
        return [number for number in range(1, len(self.points) + 1) if number not in ended]

    def best(self) -> TrialResult | None:
        """The trial with the best epoch, of those that did not fail: its settings can be used again."""
        return _best(self.results())

    def has(self, trial: TrialResult) -> bool:
        """Whether the bundle is of this trial."""
        return trial.number == self.in_bundle

    def name(self, number: int) -> str:
        """A trial's name, short and safe as a file name: 03-0.00159-ce+dice-384."""
        words = [f"{number:02d}", *(shown(value) for value in self.points[number - 1].values())]
        return re.sub(r"[^\w.+-]+", "_", "-".join(words))[:60]

    def prune(self, in_bundle: int | None) -> None:
        """Remove the checkpoints of trials that have ended, but for the best's if the bundle is another's."""
        if not self.storage.is_dir():
            return
        from segbatch.training.checkpoint import clear

        ended = [trial for trial in self.results() if trial.state != "unfinished"]
        best = _best(ended)
        for trial in ended:
            if best is None or trial.number != best.number or best.number == in_bundle:
                clear(self.storage / self.name(trial.number))
        if not any(self.storage.iterdir()):
            clear(self.storage)


def _best(trials: Sequence[TrialResult]) -> TrialResult | None:
    useful = [trial for trial in trials if trial.state != "failed" and trial.history]
    return min(useful, key=lambda trial: trial.rank, default=None)


class TrialProgress:
    """Takes the events of a search down, and tells people.

    Args:
        search: The search.
        epochs: Of a whole training.
    """

    def __init__(self, search: Search, epochs: int) -> None:
        self._search, self._epochs = search, epochs
        self._left = set(search.pending)
        self._ended = 0
        self._started = time.monotonic()

    def __call__(self, event: dict[str, Any]) -> None:
        """An event of the search."""
        number, before = event["trial"], self._search.best()
        self._search.log.add(event)
        if event["kind"] == "start":
            settings = self._search.points[number - 1]
            words = (f"{name} {shown(settings[key])}" for key, name in short_keys(settings).items())
            say(f"  trial {number}: {', '.join(words)}", event="trial", trial=number, state="begun")
        elif event["kind"] == "epoch":
            miou = event["miou"] or 0
            say(
                f"  trial {number}, epoch {event['epoch']}/{self._epochs}: loss {event['loss']:.3f}, miou {miou:.3f}"
                + (", the best so far" if before is None or miou > before.miou else ""),
                event="trial",
                trial=number,
                state="running",
                **{name: event[name] for name in ("epoch", "loss", "miou")},
            )
        else:
            self._left.discard(number)
            self._ended += 1
            left = (time.monotonic() - self._started) / self._ended * len(self._left)
            how = {"done": "is done", "stopped": "is stopped early", "failed": f"failed: {event['reason']}"}
            say(
                f"  trial {number} {how[event['state']]}"
                + (f"; {counted(len(self._left), 'trial')} and {duration(left)} left" if self._left else ""),
                event="trial",
                trial=number,
                state=event["state"],
                seconds_left=round(left, 1),
            )
            self._search.prune(self._search.in_bundle)
