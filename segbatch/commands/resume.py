"""What a run's folder holds already: whether a request may go on with it, and what is left to do."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbatch.commands.folder import RunFolder
from segbatch.commands.index import Index
from segbatch.commands.record import RunRecord
from segbatch.errors import InputError
from segbatch.inference.attempts import forget_attempts
from segbatch.inference.files import Format, MaskFiles, drop_parts, store_path
from segbatch.inference.finish import is_finished
from segbatch.inference.ledger import forget_scenes, iterate_rows
from segbatch.inference.plan import LABEL_VALUES, SCENE_LIST, ScenePlan, changed_scenes, differences
from segbatch.inference.tally import SceneTally, tally_ledger
from segbatch.masks import CLASS_MASK
from segbatch.storage import remove_folder

_THROW_AWAY = "give segbatch predict --overwrite, which throws away what was mapped"
"""Of segbatch run the same word would throw away the training, too."""

Tallies = Mapping[str, SceneTally]


def claim(folder: RunFolder, new: dict[str, Any], formats: Sequence[Format], overwrite: bool) -> None:
    """Make sure that the folder is free, holds this very run, or may be overwritten.

    Args:
        folder: The run's.
        new: Fingerprint of what is to be done.
        formats: Files wanted of each scene.
        overwrite: Throw away what is there.

    Raises:
        InputError: The folder holds something else.
    """
    content = folder.read()
    if Index.is_in(folder) and not overwrite:
        raise InputError(
            f"{folder.path} is mapped into with --only-new: give it here too. Or choose another output folder, or "
            f"{_THROW_AWAY}."
        )
    known = (content.get("mapping") or {}).get("fingerprint")
    if known is None and not folder.ledger.exists() and not folder.masks.exists():
        return
    changed = differences(known, new) if known else []
    if known and not overwrite and (not changed or _repaired(folder, known, new)):
        _refuse_fewer_formats(folder, content, formats)
        return
    if not known:
        folder.refuse_foreign()
    if not overwrite:
        if known:
            what = f"a run that differs in {' and '.join(changed)}"
        else:
            what = "an evaluation" if content.get("evaluation") else "masks or a ledger that are not of a known run"
        raise InputError(
            f"{folder.path} holds {what}. Choose another output folder, or {_THROW_AWAY}.{_way_out(changed)}"
        )
    folder.clear_mapping()


def _way_out(changed: Sequence[str]) -> str:
    """What people want most often whose run differs in this from the one that is there."""
    if list(changed) == [SCENE_LIST]:
        return "\nTo map what is new and keep the rest: --only-new."
    if LABEL_VALUES in changed:
        return "\nTo compare class masks that are there with labels: segbatch evaluate."
    return ""


def _refuse_fewer_formats(folder: RunFolder, content: dict[str, Any], formats: Sequence[Format]) -> None:
    """Class masks are not thrown away because a later call does not name their format."""
    known = ((content.get("config") or {}).get("inference") or {}).get("format") or []
    if set(known) - set(formats):
        raise InputError(
            f"{folder.path} holds class masks as {' and '.join(known)}. Say --format {','.join(known)}, choose another "
            f"output folder, or {_THROW_AWAY}."
        )


def _repaired(folder: RunFolder, known: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether all that changed are scenes that had failed; what is known of these is forgotten.

    A damaged file that was replaced costs its own blocks, not those of the scenes that are done.
    """
    changed = changed_scenes(known, new)
    if changed is None:
        return False
    if not RunRecord.is_in(folder):  # killed before anything was mapped
        return next(iterate_rows(folder.ledger), None) is None
    record = RunRecord.load(folder)
    tallies = tally_ledger(folder.ledger, record.blocks, len(record.classes))
    if any(tally.done.any() and not tally.errors for scene, tally in tallies.items() if scene in changed):
        return False
    # The store first: rows without it are forgotten by any later call too.
    for scene in changed:
        remove_folder(store_path(folder.masks, scene))
        drop_parts(folder.masks, scene)
    forget_scenes(folder.ledger, changed)
    forget_attempts(folder.attempts, changed)
    return True


def known_tallies(
    folder: RunFolder,
    scenes: Sequence[ScenePlan],
    num_classes: int,
    formats: Sequence[Format],
    products: Sequence[str] = (),
) -> dict[str, SceneTally]:
    """What the ledger says of each scene. Rows of those whose class masks have gone are forgotten, for good.

    Call it before the writers of a run start.
    """
    if folder.ledger.exists():
        there = MaskFiles(folder.masks, products)
        gone = {scene.id for scene in scenes if not _has_masks(there, scene.id, formats, products)}
        forget_scenes(folder.ledger, gone)
    return tally_ledger(folder.ledger, {scene.id: len(scene.grid) for scene in scenes}, num_classes)


def pending_blocks(scenes: Sequence[ScenePlan], tallies: Tallies) -> NDArray[np.int64]:
    """(blocks, 2) int64: index of the scene and number of the block, of all that is still to do."""
    numbers = [np.flatnonzero(~tallies[scene.id].done) for scene in scenes]
    indices = np.repeat(np.arange(len(scenes)), [len(found) for found in numbers])
    return np.stack([indices, np.concatenate(numbers)], axis=1).astype(np.int64)


def rounds(
    scenes: Sequence[ScenePlan], pending: NDArray[np.int64], suspected: Sequence[str]
) -> list[tuple[list[ScenePlan], NDArray[np.int64]]]:
    """Scenes and their pending blocks, in the parts in which to map and finish them.

    Args:
        scenes: The plan.
        pending: See `pending_blocks`.
        suspected: Ids of scenes at which a process was lost, and may be again: each comes by itself, after all others.
    """
    names = [scene.id for scene in scenes]
    known = set(names)
    late = [name for name in suspected if name in known]
    parts = [known.difference(late), *({name} for name in late)]
    found = []
    for part in parts:
        inside = np.array([name in part for name in names])
        found.append(([scene for scene in scenes if scene.id in part], pending[inside[pending[:, 0]]]))
    return found


def unfinished_scenes(
    folder: RunFolder,
    scenes: Sequence[ScenePlan],
    tallies: Tallies,
    formats: Sequence[Format],
    products: Sequence[str] = (),
) -> list[ScenePlan]:
    """Scenes whose blocks are all done but whose files are not."""
    there = MaskFiles(folder.masks, products)
    return [
        scene for scene in scenes if tallies[scene.id].is_whole and not is_finished(there, scene.id, formats, products)
    ]


def _has_masks(there: MaskFiles, scene_id: str, formats: Sequence[Format], products: Sequence[str]) -> bool:
    """Whether there is the store, which all files can be made from, or all that is wanted of them."""
    return there.has_store(scene_id) or (
        "zarr" not in formats and all(there.has_cog(scene_id, name) for name in (CLASS_MASK, *products))
    )
