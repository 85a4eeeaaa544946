"""A run: start the command, disturb it, start it again until it is done, and judge what it left."""

import shutil
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.fault import Fault
from tests.chaos.ground import Ground
from tests.chaos.process import Command, temporary_folder
from tests.chaos.verdict import complaints, leftovers, leftovers_in_temporary


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Args:
        kind: Of the fault.
        seed: That everything was drawn from.
        faults: What was done.
        codes: Exit codes of the tries.
        equal: Whether the result is that of a clean run.
        wrong: What of it is not.
        again: Blocks that were begun again; None where nobody counts.
        share: The same as a share of all blocks.
        bound: How many may be.
        left: Files and processes that were left behind.
        said: What is wrong with how the tries ended.
        seconds: That it took.
    """

    kind: str
    seed: int
    faults: tuple[str, ...]
    codes: tuple[int | None, ...]
    equal: bool
    wrong: tuple[str, ...]
    again: int | None
    share: float | None
    bound: float
    left: tuple[str, ...]
    said: tuple[str, ...]
    seconds: float

    @property
    def problems(self) -> list[str]:
        """All that should not be; empty for a run that passed."""
        more = [] if self.again is None or self.again <= self.bound else [f"{self.again} blocks were begun again"]
        return [*self.wrong, *self.left, *self.said, *more]


def run(kind: type[Fault], seed: int, ground: Ground) -> Outcome:
    """Disturb one run. Of a run that passed only the outcome is kept; of any other the folder with its log."""
    folder = ground.folder / f"{kind.kind}-{seed}"
    (folder / "notes").mkdir(parents=True)
    out, log = folder / "run", folder / "log"
    started = time.monotonic()
    fault = kind(ground, seed, out, folder / "notes")
    codes: list[int | None] = []
    wrong: list[str] = []
    left: list[str] = []
    said: list[str] = []
    try:
        fault.clean()
        fault.begin()
        for number in range(kind.most_tries):
            code = _try(fault, number, log, left, said)
            codes.append(code)
            if code == 0 or code is None:
                break
        if codes[-1] == 0:
            wrong += fault.wrong()
            left += leftovers(fault.state(), fault.clean()) + leftovers_in_temporary(temporary_folder(fault.notes))
        else:
            wrong.append("it did not end" if codes[-1] is None else "it was never done")
    except Exception as error:  # a run that breaks the runner is a failure, and the next one goes on
        wrong.append(f"{type(error).__name__}: {error}")
        with log.open("a") as stream:
            stream.write(traceback.format_exc())
    finally:
        fault.end()
    again = fault.again()
    outcome = Outcome(
        kind=kind.kind, seed=seed, faults=tuple(fault.told), codes=tuple(codes), equal=not wrong, wrong=tuple(wrong),
        again=again, share=None if again is None else again / len(ground.blocks), bound=fault.bound(),
        left=tuple(left), said=tuple(said), seconds=time.monotonic() - started,
    )  # fmt: skip
    if not outcome.problems:
        shutil.rmtree(folder, ignore_errors=True)
    return outcome


def _try(fault: Fault, number: int, log: Path, left: list[str], said: list[str]) -> int | None:
    hits = fault.hits
    command = Command(fault.words(), fault.environment(number), log)
    try:
        fault.strike(command, number)
        code = command.wait(fault.seconds)
        left += command.left(fault.end_seconds) if code is not None else []
        allowed = {0} | (fault.codes if fault.hits > hits else set())
        if code is not None:
            said += [f"try {number + 1}: {what}" for what in complaints(code, command.said, allowed)]
    finally:
        command.end()
        fault.mend()
    return code
