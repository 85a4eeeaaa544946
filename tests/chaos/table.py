"""Outcomes as a table: one row a run in a file, one row a kind for people."""

import csv
import statistics
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.runner import Outcome

_COLUMNS = (
    *("kind", "seed", "passed", "equal", "again", "bound", "share", "left", "codes", "seconds", "faults", "problems"),
)


def append(path: Path, outcome: Outcome) -> None:
    """Add a run to the file, so that a call that is stopped has told what it knows."""
    new = not path.exists()
    with path.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, _COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow(
            {
                "kind": outcome.kind,
                "seed": outcome.seed,
                "passed": not outcome.problems,
                "equal": outcome.equal,
                "again": outcome.again,
                "bound": f"{outcome.bound:.1f}",
                "share": None if outcome.share is None else f"{outcome.share:.3f}",
                "left": len(outcome.left),
                "codes": " ".join(map(str, outcome.codes)),
                "seconds": f"{outcome.seconds:.1f}",
                "faults": "; ".join(outcome.faults),
                "problems": "; ".join(outcome.problems),
            }
        )


def summary(outcomes: Sequence[Outcome]) -> list[str]:
    """The lines of the table for people."""
    lines = [f"{'fault':<12}{'runs':>5}{'hit':>5}{'equal':>7}{'again: median':>15}{'worst':>7}{'left':>6}{'passed':>8}"]
    for kind in dict.fromkeys(outcome.kind for outcome in outcomes):
        ours = [outcome for outcome in outcomes if outcome.kind == kind]
        shares = [outcome.share for outcome in ours if outcome.share is not None]
        median, worst = (f"{statistics.median(shares):.1%}", f"{max(shares):.1%}") if shares else ("-", "-")
        lines.append(
            f"{kind:<12}{len(ours):>5}{sum(bool(one.faults) for one in ours):>5}{sum(one.equal for one in ours):>7}"
            f"{median:>15}{worst:>7}{sum(len(one.left) for one in ours):>6}"
            f"{sum(not one.problems for one in ours):>8}"
        )
    return lines
