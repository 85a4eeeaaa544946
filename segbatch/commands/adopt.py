"""How scenes that a schedule has mapped take the place of what is there.

They are mapped in a folder of their own (`RunFolder.next`), so that the old class masks and figures stay until the new
ones are finished. Then a journal says what is to be put in place. Whatever is killed after that, the next run puts it
in place again, with the same result; whatever is killed before has changed nothing.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segbatch.commands.folder import JOURNAL, RunFolder, write_json
from segbatch.commands.index import Index
from segbatch.commands.record import RunRecord
from segbatch.errors import InputError
from segbatch.inference.attempts import forget_attempts
from segbatch.inference.files import Format, cog_path, drop_parts, store_path
from segbatch.inference.ledger import LedgerRow, forget_scenes, gather_rows
from segbatch.masks import CLASS_MASK, CONFIDENCE, PROBABILITIES
from segbatch.storage import move_over, remove_folder, remove_tree, write_whole

_STAGED = "staged.json"
"""Fingerprints of the scenes that are being mapped."""


@dataclass(frozen=True, slots=True)
class Adoption:
    """What takes the place of what is there.

    Args:
        scenes: Ids of those whose class masks were mapped.
        formats: Files that each of them has.
        products: What it has beside the class mask.
        forgotten: Ids of those of which nothing is kept.
        failures: Id to why, of those that never had a class mask.
        index: The index from then on.
        mapping: The section of run.json from then on.
    """

    scenes: Sequence[str]
    formats: Sequence[Format]
    products: Sequence[str]
    forgotten: Sequence[str]
    failures: Mapping[str, str]
    index: Index
    mapping: dict[str, Any]

    def write(self, folder: RunFolder, record: RunRecord) -> None:
        """Write the journal: from here on it counts.

        Args:
            folder: The run's.
            record: What the ledger's rows are about from then on.
        """
        record.save(RunFolder(folder.next / "adopted"))
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        write_json(folder.next / JOURNAL, {**plain, "index": self.index.to_json()})


def stage(folder: RunFolder, fingerprints: Mapping[str, str]) -> RunFolder:
    """The folder to map scenes in. What a killed run left there stays where it is of the same file and settings.

    Args:
        folder: The run's.
        fingerprints: Of all scenes to map, by id.
    """
    staged, path = RunFolder(folder.next), folder.next / _STAGED
    if not path.exists():
        # What is there is left over from a run that is over: nobody knows of which files and settings it was made.
        remove_folder(folder.next)
    staged.create()
    known: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    stale = {scene for scene in known if fingerprints.get(scene) != known[scene]}
    for scene in stale:
        # The store first: rows without it are forgotten by any later call too.
        for file in _files(staged.masks, scene):
            _remove(file)
        drop_parts(staged.masks, scene)
    if staged.ledger.exists():
        forget_scenes(staged.ledger, stale)
        forget_attempts(staged.attempts, stale)
    write_json(path, dict(fingerprints))
    return staged


def adopt(folder: RunFolder) -> Index | None:
    """Put in place what the journal says, if there is one.

    Returns:
        The index from then on; None where there is no journal.
    """
    path, staged = folder.next / JOURNAL, RunFolder(folder.next)
    if not path.exists():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        known = Adoption(**{**data, "index": Index.from_json(data["index"])})
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read: {error!r}") from error
    for scene in known.scenes:
        wanted = set(_wanted(staged.masks, scene, known.formats, known.products))
        for new, old in zip(_files(staged.masks, scene), _files(folder.masks, scene), strict=True):
            if new in wanted:
                _put(new, old)
            else:
                _remove(old)
    rows = gather_rows(staged.ledger, set(known.scenes))
    record = RunFolder(folder.next / "adopted").ledger / "scenes.json"
    classes = len(json.loads(record.read_text(encoding="utf-8"))["classes"])
    rows += b"".join(
        LedgerRow.failed(scene, 0, why, num_classes=classes, started=0.0).to_line()
        for scene, why in known.failures.items()
    )
    folder.ledger.mkdir(parents=True, exist_ok=True)
    forget_scenes(folder.ledger, {*known.scenes, *known.forgotten, *known.failures})
    number = known.index.runs[-1].number
    write_whole(folder.ledger / f"run-{number}.jsonl", rows)
    write_whole(folder.ledger / "scenes.json", record.read_bytes())
    folder.update(mapping=known.mapping)
    known.index.save(folder)
    return known.index


def discard(folder: RunFolder, unfinished: bool = False) -> None:
    """Remove the journal when all is in place, and what was mapped beside the run's files.

    Args:
        folder: The run's.
        unfinished: Whether scenes are left whose files could not be written, for the next run to go on with.
    """
    (folder.next / JOURNAL).unlink(missing_ok=True)
    if not unfinished:
        (folder.next / _STAGED).unlink(missing_ok=True)  # before what it speaks for
        remove_tree(folder.next)


def _wanted(masks: Path, scene: str, formats: Sequence[Format], products: Sequence[str]) -> list[Path]:
    if "cog" not in formats:
        return [store_path(masks, scene)]
    cogs = [cog_path(masks, scene, name) for name in (CLASS_MASK, *products)]
    return [*([store_path(masks, scene)] if "zarr" in formats else []), *cogs, _beside(cogs[0])]


def _files(masks: Path, scene: str) -> list[Path]:
    """All files that a scene may have, the store first."""
    cogs = [cog_path(masks, scene, name) for name in (CLASS_MASK, CONFIDENCE, PROBABILITIES)]
    return [store_path(masks, scene), *cogs, *map(_beside, cogs)]


def _beside(cog: Path) -> Path:
    """The file beside a class mask that has the names of its classes, or beside others what GDAL notes there."""
    return cog.with_name(f"{cog.name}.aux.xml")


def _put(new: Path, target: Path) -> None:
    """Move a file or folder into place; one that is not there was moved before a kill, or never is."""
    if new.exists():
        move_over(new, target)


def _remove(path: Path) -> None:
    if path.is_dir():
        remove_folder(path)
    else:
        path.unlink(missing_ok=True)
