"""Whether a run that was disturbed ended as a clean one does."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segbatch.inference.ledger import LedgerRow, read_ledger

MOST_LINES = 3
"""Of an error: what is wrong, or a line for each of the two scenes that cannot be opened, and what to do."""

SHARE_AGAIN = 0.05
"""Of the blocks that may be begun again beside those that were on their way."""

_FIGURES = ("classes", "confusion", "pixels", "counted_pixels", "nodata_share", "ignored_share", "failed", "miou")
"""Of metrics.json; the rest names files, whose places differ."""


@dataclass(frozen=True)
class State:
    """What a run left.

    Args:
        results: Checksum of each class mask's file, by its path in the run's folder.
        figures: Those of the report.
        names: All files and folders but the ledger's, whose names are drawn by lot.
    """

    results: dict[str, str]
    figures: dict[str, Any]
    names: frozenset[str]


def state_of_mapping(out: Path) -> State:
    """The state of a folder that scenes were mapped into."""
    document = json.loads((out / "report" / "metrics.json").read_text())
    return State(checksums(out, out / "masks"), {name: document[name] for name in _FIGURES}, names_in(out))


def checksums(out: Path, folder: Path) -> dict[str, str]:
    """SHA-256 of the files of a folder in a run's."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def names_in(out: Path) -> frozenset[str]:
    """All files and folders of a run but those of the ledger and TensorBoard, whose names are drawn by lot."""
    names = (path.relative_to(out).as_posix() for path in out.rglob("*"))
    return frozenset(name for name in names if not re.fullmatch(r"ledger/[0-9a-f]{32}\.jsonl|tensorboard/.*", name))


def differences(found: State, clean: State) -> list[str]:
    """What of a run's result is not that of the clean run."""
    paths = sorted(set(found.results) | set(clean.results))
    told = [f"{path} differs" for path in paths if found.results.get(path) != clean.results.get(path)]
    told += [f"{name} differs" for name, value in clean.figures.items() if found.figures.get(name) != value]
    return told + [f"{name} is missing" for name in sorted(clean.names - found.names)]


def leftovers(found: State, clean: State) -> list[str]:
    """Files and folders that a clean run does not leave; of a folder that is one, not all that is in it."""
    extra = found.names - clean.names
    return sorted(name for name in extra if not any(above in extra for above in _above(name)))


def leftovers_in_temporary(folder: Path) -> list[str]:
    """What commands left in their temporary folder, beside the copies of objects that all processes share."""
    names = (path.relative_to(folder).as_posix() for path in [*folder.glob("segbatch-*"), *folder.glob("segbatch-*/*")])
    return sorted(name for name in names if not re.fullmatch(r"segbatch-\d+(/[0-9a-f]{32})?", name))


def _above(name: str) -> Iterable[str]:
    parts = name.split("/")
    return ("/".join(parts[:number]) for number in range(1, len(parts)))


def lost_blocks(out: Path, blocks: Collection[tuple[str, int]]) -> list[str]:
    """Blocks without a row that tells of success, or with rows that tell of different pixels."""
    rows = read_ledger(out / "ledger")
    good = {key for key, row in rows.items() if row.error is None}
    told = [f"block {block} of {scene} is lost" for scene, block in sorted(set(blocks) - good)]
    told += [f"block {block} of {scene} is not one" for scene, block in sorted(good - set(blocks))]
    contents: dict[tuple[str, int], set[Any]] = {}
    for row in all_rows(out):
        if row.error is None:
            contents.setdefault((row.scene, row.block), set()).add((row.checksum, row.class_pixels, row.confusion))
    return told + [
        f"block {key[1]} of {key[0]} was not the same twice" for key, one in contents.items() if len(one) > 1
    ]


def all_rows(out: Path) -> list[LedgerRow]:
    """Every whole row of the ledger."""
    lines = (line for file in (out / "ledger").glob("*.jsonl") for line in file.read_bytes().splitlines(keepends=True))
    found = []
    for line in lines:
        try:
            if line.endswith(b"\n"):
                found.append(LedgerRow.from_json(line.decode()))
        except (ValueError, KeyError, TypeError):  # torn
            continue
    return found


def count_rows(out: Path) -> int:
    """Lines in the ledger; cheap enough to be asked for a hundred times a second."""
    rows = 0
    for file in (out / "ledger").glob("*.jsonl"):
        with suppress(FileNotFoundError):  # removed since it was listed
            rows += file.read_bytes().count(b"\n")
    return rows


def begun(notes: Path) -> dict[str, int]:
    """How often each stage began a block, over all processes and tries."""
    path = notes / "begun"
    return dict(Counter(line.split()[0] for line in path.read_text().splitlines())) if path.exists() else {}


def complaints(code: int, said: str, allowed: Collection[int]) -> list[str]:
    """What is wrong with how a command ended.

    Args:
        code: Its exit code.
        said: Its output.
        allowed: Exit codes that its fault may lead to.
    """
    told = [] if code in allowed else [f"exit code {code}"]
    if "Traceback (most recent call last)" in said:
        told.append("a traceback")
    if code in (1, 2):
        _, found, error = said.rpartition("Error: ")
        if not found:
            told.append(f"exit code {code} without a word")
        elif error.strip().count("\n") >= MOST_LINES:
            told.append("an error of many lines")
    return told
