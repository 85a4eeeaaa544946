"""What all faults have in common."""

import random
import time
from pathlib import Path
from typing import ClassVar

from tests.chaos.ground import Ground
from tests.chaos.job import BLOCKS
from tests.chaos.process import Command, environment
from tests.chaos.verdict import State, begun, count_rows, differences, lost_blocks, state_of_mapping


class Skip(Exception):  # noqa: N818 - no error
    """This machine does not allow a kind of fault."""


RAYS_OWN_SECONDS = 75.0
"""Ray's agents on a node that was killed try for a minute to tell a server that was killed too, and end then."""


class Fault:
    """A kind of fault, for one run. Subclasses say what happens, and how.

    Args:
        ground: What the runs share.
        seed: Of everything that is left to chance.
        out: Folder of the run.
        notes: Folder for the probe's notes.
    """

    kind: ClassVar[str]
    engine: ClassVar[str] = "inline"
    seconds: ClassVar[float] = 120.0
    """Longest time of a try."""
    end_seconds: ClassVar[float] = 30.0
    """In which the processes of a command that has ended must be gone."""
    codes: ClassVar[frozenset[int]] = frozenset()
    """Exit codes of a try that was hit, beside 0."""
    on_their_way: ClassVar[int] = 4
    """Blocks that a hit may cost: those read ahead, predicted, and waiting to be written. Of the inline engine one, one
    and two."""
    most_tries: ClassVar[int] = 5

    def __init__(self, ground: Ground, seed: int, out: Path, notes: Path) -> None:
        self.ground, self.seed, self.out, self.notes = ground, seed, out, notes
        self.rng = random.Random(f"{self.kind} {seed}")
        self.told: list[str] = []
        self.hits = 0

    @classmethod
    def check(cls) -> None:
        """Find out whether this machine allows it.

        Raises:
            Skip: It does not.
        """

    def words(self) -> list[str]:
        """The command."""
        return self.ground.job.command(self.out, self.engine)

    def environment(self, number: int) -> dict[str, str]:
        """The environment of a try."""
        return environment(self.notes)

    def begin(self) -> None:
        """Get ready, before the first try."""

    def strike(self, command: Command, number: int) -> None:
        """Do the damage, if a try is to have any; returns when it is done or the command has ended."""

    def mend(self) -> None:
        """Make good what was damaged, after a try."""

    def end(self) -> None:
        """Tidy up, whatever happened."""

    # ---- the verdict

    def clean(self) -> State:
        """What a run leaves that nothing disturbs."""
        return self.ground.clean

    def state(self) -> State:
        """What this run left."""
        return state_of_mapping(self.out)

    def wrong(self) -> list[str]:
        """What of the result is wrong."""
        return differences(self.state(), self.clean()) + lost_blocks(self.out, self.ground.blocks)

    def again(self) -> int | None:
        """How many blocks were begun again, at the stage where it was most; None where nobody counts."""
        counts = begun(self.notes)
        return max(0, max(counts.values(), default=0) - BLOCKS)

    def bound(self) -> float:
        """How many blocks may be begun again: 5 %, and what was on its way at each hit."""
        return 0.05 * BLOCKS + self.hits * self.on_their_way

    # ---- for subclasses

    def hit(self, what: str) -> None:
        """Note what was done."""
        self.hits += 1
        self.told.append(what)

    def wait_for_rows(self, command: Command, rows: int) -> bool:
        """Wait until the ledger has so many rows; False where the command ended before, or took too long."""
        deadline = time.monotonic() + self.seconds
        while command.runs and time.monotonic() < deadline:
            if count_rows(self.out) >= rows:
                return True
            time.sleep(0.005)
        return False

    def moment(self, command: Command, last: int = BLOCKS) -> int | None:
        """Wait for a moment of the work: some rows more than there are, and a little longer.

        Args:
            command: Does the work.
            last: Most rows.

        Returns:
            The number of rows; None where the command ended before.
        """
        have = count_rows(self.out)
        rows = self.rng.randint(min(have, last), last)
        delay = self.rng.uniform(0, 0.3 if rows < BLOCKS else 1.5)
        if not self.wait_for_rows(command, rows):
            return None
        time.sleep(delay)
        return rows
