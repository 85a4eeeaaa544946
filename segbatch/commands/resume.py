"""What a run's folder holds already: whether a request may go on with it, and what is left to do."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbatch.commands.folder import RunFolder
from segbatch.commands.index import Index
from segbatch.errors import InputError
from segbatch.inference.files import Format, cog_path, drop_parts, store_path
from segbatch.inference.finish import is_finished
from segbatch.inference.ledger import LedgerRow, forget_scenes, read_ledger
from segbatch.inference.plan import ScenePlan, changed_scenes, differences
from segbatch.masks import CLASS_MASK
from segbatch.masks.staging import remove_folder

Rows = Mapping[tuple[str, int], LedgerRow]


def claim(folder: RunFolder, new: dict[str, Any], overwrite: bool) -> None:
    """Make sure that the folder is free, holds this very run, or may be overwritten.

    Args:
        folder: The run's.
        new: Fingerprint of what is to be done.
        overwrite: Throw away what is there.

    Raises:
        InputError: The folder holds something else.
    """
    content = folder.read()
    if Index.is_in(folder) and not overwrite:
        raise InputError(
            f"{folder.path} is mapped into with --only-new: give it here too. Or choose another output folder, or "
            "throw away what was mapped with segbatch predict --overwrite."
        )
    known = (content.get("mapping") or {}).get("fingerprint")
    if known is None and not folder.ledger.exists() and not folder.masks.exists():
        return
    changed = differences(known, new) if known else []
    if known and not overwrite and (not changed or _repaired(folder, known, new)):
        return
    if not known:
        folder.refuse_foreign()
    if not overwrite:
        if known:
            what = f"a run that differs in {' and '.join(changed)}"
        else:
            what = "an evaluation" if content.get("evaluation") else "masks or a ledger that are not of a known run"
        raise InputError(
            f"{folder.path} holds {what}. Choose another output folder, or throw away what was mapped with "
            "segbatch predict --overwrite."
        )
    folder.clear_mapping()


def _repaired(folder: RunFolder, known: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether all that changed are scenes that had failed; what is known of these is forgotten.

    A damaged file that was replaced costs its own blocks, not those of the scenes that are done.
    """
    changed = changed_scenes(known, new)
    rows = read_ledger(folder.ledger) if folder.ledger.exists() else {}
    failed = {row.scene for row in rows.values() if row.error is not None}
    sound = {row.scene for row in rows.values()} - failed
    if changed is None or changed & sound:
        return False
    # The store first: rows without it are forgotten by any later call too.
    for scene in changed:
        remove_folder(store_path(folder.masks, scene))
        drop_parts(folder.masks, scene)
    forget_scenes(folder.ledger, changed)
    return True


def known_rows(
    folder: RunFolder, scenes: Sequence[ScenePlan], formats: Sequence[Format], products: Sequence[str] = ()
) -> Rows:
    """The ledger's rows. Those of scenes whose class masks have gone are forgotten, for good.

    Call it before the writers of a run start.
    """
    if not folder.ledger.exists():
        return {}
    gone = {scene.id for scene in scenes if not _has_masks(folder, scene.id, formats, products)}
    forget_scenes(folder.ledger, gone)
    return read_ledger(folder.ledger)


def pending_blocks(scenes: Sequence[ScenePlan], rows: Rows) -> NDArray[np.int64]:
    """(blocks, 2) int64: index of the scene and number of the block, of all that is still to do."""
    todo = [
        (index, block)
        for index, scene in enumerate(scenes)
        for block in range(len(scene.grid))
        if (row := rows.get((scene.id, block))) is None or row.error is not None
    ]
    return np.array(todo, np.int64).reshape(-1, 2)


def unfinished_scenes(
    folder: RunFolder,
    scenes: Sequence[ScenePlan],
    rows: Rows,
    formats: Sequence[Format],
    products: Sequence[str] = (),
) -> list[ScenePlan]:
    """Scenes whose blocks are all done but whose files are not."""
    blocks = {scene.id: 0 for scene in scenes}
    for (scene_id, _), row in rows.items():
        if scene_id in blocks and row.error is None:
            blocks[scene_id] += 1
    return [
        scene
        for scene in scenes
        if blocks[scene.id] == len(scene.grid) and not is_finished(folder.masks, scene.id, formats, products)
    ]


def _has_masks(folder: RunFolder, scene_id: str, formats: Sequence[Format], products: Sequence[str]) -> bool:
    """Whether there is the store, which all files can be made from, or all that is wanted of them."""
    if store_path(folder.masks, scene_id).exists():
        return True
    return "zarr" not in formats and all(
        cog_path(folder.masks, scene_id, name).exists() for name in (CLASS_MASK, *products)
    )
