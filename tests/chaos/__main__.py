"""Disturb runs on purpose, and see whether they end as if nothing had been.

    python -m tests.chaos --kinds driver,writes --seeds 0-19 --out table.csv

A run maps two scenes of 36 blocks. It is started as users start it, hit by a fault at a moment that its seed says,
and started again until it is done. It passes when class masks (COG and Zarr) and figures are those of a clean run byte
for byte, no block is lost or counted twice, nothing is left behind (nor in the temporary folder), every try ended with
a line or two and an exit code that is meant, and the blocks that were begun again are at most 5 % and those that were
on their way:

    kind         what happens                                                          on their way at each hit
    driver       SIGKILL of the inline command                                          4 blocks
    driver-ray   SIGKILL of a command that has started Ray                              11
    sigterm      SIGTERM of the inline command                                          4
    sigterm-ray  SIGTERM of a command that has started Ray                              11
    writes       the command dies before its N-th operation on files of one part of     4
                 the run: shards, parts, ledger, COG, report, run.json, ...
    worker       SIGKILL of a process that reads or writes, on a standing cluster       2
    actor        SIGKILL of a process that predicts, on a standing cluster              4
    node         SIGKILL of all processes of a node; another one takes its place        11
    lost         SIGKILL of all processes of a node, and none takes its place              11
    drain        a node has a notice and is killed some seconds later; another one comes   11
    storage      scenes and labels come over HTTP from a server that answers 500,       4, and failed blocks
                 hangs, hangs up or sends half of what was asked for, and heals
    disk         the file system of the run's folder is full, and is enlarged           4
                 (mounts a tmpfs: root only)
    network      a node in a network namespace is cut off for a while (root only)       11
    training     driver or worker of a training die, or die before a file operation     not counted in blocks

The table has a row a run; the folders of runs that failed, with their logs, stay in --folder. Exit code 1 where any
failed. A kind that this machine does not allow is skipped, with the reason. Kinds on a standing cluster share it.
"""

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from tests.chaos import table
from tests.chaos.fault import Skip
from tests.chaos.ground import Ground
from tests.chaos.kinds import KINDS
from tests.chaos.runner import run


def numbers(text: str) -> list[int]:
    """Seeds of a list with ranges, as 0-4,7."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def main() -> int:
    """Run what the command line asks for; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kinds", default=",".join(KINDS), help="all by default: %(default)s")
    parser.add_argument("--seeds", type=numbers, default=[0], help="as 0-19 or 1,5,7; default 0")
    parser.add_argument("--out", type=Path, help="table to add to, CSV")
    parser.add_argument("--folder", type=Path, help="for the runs; a new one under the temporary folder by default")
    chosen = parser.parse_args()
    unknown = sorted(set(chosen.kinds.split(",")) - set(KINDS))
    if unknown:
        parser.error(f"unknown kind {unknown[0]!r}; there are {', '.join(KINDS)}")
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended then, too
    outcomes = []
    ground = Ground(folder)
    with ground.stack:
        for name in chosen.kinds.split(","):
            kind = KINDS[name]
            try:
                kind.check()
            except Skip as reason:
                print(f"{name}: skipped: {reason}", flush=True)
                continue
            for seed in chosen.seeds:
                outcome = run(kind, seed, ground)
                outcomes.append(outcome)
                if chosen.out:
                    table.append(chosen.out, outcome)
                told = "; ".join(outcome.problems) or "ok"
                print(f"{name} {seed}: {told} ({'; '.join(outcome.faults) or 'no hit'}; codes "
                      f"{' '.join(map(str, outcome.codes))}; {outcome.seconds:.0f} s)", flush=True)  # fmt: skip
    print("\n".join(table.summary(outcomes)))
    failed = sum(bool(outcome.problems) for outcome in outcomes)
    if failed:
        print(f"{failed} of {len(outcomes)} runs failed; their folders are in {folder}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
