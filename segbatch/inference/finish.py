"""The last step of a scene: the files that people open, put together from what its blocks left."""

import math
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from segbatch.classes import NODATA
from segbatch.errors import explain
from segbatch.inference.attempts import FINISH, MOST_ATTEMPTS, Attempts
from segbatch.inference.files import BlockWriter, Format, MaskFiles, cog_path, drop_parts, parts_path, store_path
from segbatch.inference.plan import ScenePlan
from segbatch.masks import (
    CLASS_MASK,
    PartError,
    clean_partial,
    part_path,
    read_window,
    write_cog,
)
from segbatch.storage import ask_ahead, is_remote, remove_folder

_BYTES_AT_ONCE = 2**27
"""Pixels of blocks whose parts are made at the same time."""


def mask_path(masks: Path, scene_id: str, formats: Sequence[Format]) -> Path:
    """The file that stands for a scene's class mask: the COG where there is one."""
    return cog_path(masks, scene_id) if "cog" in formats else store_path(masks, scene_id)


def is_finished(there: MaskFiles, scene_id: str, formats: Sequence[Format], products: Sequence[str] = ()) -> bool:
    """Whether all files of a scene whose blocks are all in the ledger are there."""
    # A COG that an earlier run wanted may stay; a store takes room and goes when it is not wanted.
    return (
        (there.has_store(scene_id) if "zarr" in formats else not there.has_remains(scene_id))
        and not there.has_parts(scene_id)
        and ("cog" not in formats or all(there.has_cog(scene_id, name) for name in (CLASS_MASK, *products)))
    )


def finish_scene(scene: ScenePlan, writer: BlockWriter) -> str:
    """Write the scene's COGs and drop what is not wanted; may be called again after a kill.

    Returns:
        Why it could not be done; empty when it is.
    """
    masks, store = writer.masks, store_path(writer.masks, scene.id)
    try:
        clean_partial(store)
        if "cog" in writer.formats:
            for name in (CLASS_MASK, *writer.products):
                if not cog_path(masks, scene.id, name).exists():
                    _write_cog(scene, writer, name)
        drop_parts(masks, scene.id)
        if "zarr" not in writer.formats:
            remove_folder(store)
    except Exception as error:  # the other scenes' files are not to go without theirs
        return explain(error, f"The files of {scene.id} cannot be written")
    return ""


def try_to_finish(scene: ScenePlan, writer: BlockWriter, attempts: str) -> str:
    """`finish_scene`, but for a scene whose processes were lost again and again.

    Args:
        scene: See `finish_scene`.
        writer: Likewise.
        attempts: Folder that counts the attempts.
    """
    with Attempts(attempts, FINISH).at(scene.id, 0) as problem:
        if problem is None:
            return finish_scene(scene, writer)
    return (
        f"The files of {scene.id} were not written: {MOST_ATTEMPTS} processes that put them together were lost, for "
        "want of memory or with their nodes. Run the same command again, with more memory if it is that."
    )


def _write_cog(scene: ScenePlan, writer: BlockWriter, name: str) -> None:
    folder, pyramid = parts_path(writer.masks, scene.id, name), writer.pyramid(scene, name)
    numbers = ((path.parent.name, path.stem) for path in folder.glob("*/*.part"))
    there = {(int(row), int(col)) for row, col in numbers if row.isdecimal() and col.isdecimal()}
    missing = [block for block in product(range(scene.grid.rows), range(scene.grid.cols)) if block not in there]
    made = ask_ahead(
        lambda block: _make_part(scene, writer, name, block),
        missing,
        is_far=is_remote(folder),
        at_once=_BYTES_AT_ONCE // (pyramid.bands * math.prod(scene.shard)),
    )
    empty = {block for block, is_made in zip(missing, made, strict=True) if not is_made}
    spec = writer.spec(scene, name)
    made_again: set[tuple[int, int]] = set()
    while True:
        try:
            write_cog(folder, cog_path(writer.masks, scene.id, name), pyramid, spec, without_part=empty)
            return
        except PartError as damaged:
            row, col = damaged.block
            if damaged.block in made_again:  # the disk's fault, and no number of attempts helps
                raise
            made_again.add(damaged.block)
            part_path(folder, row, col).unlink(missing_ok=True)
            if not _make_part(scene, writer, name, (row, col)):
                empty.add(damaged.block)


def _make_part(scene: ScenePlan, writer: BlockWriter, name: str, block: tuple[int, int]) -> bool:
    """Make the part of a block from its shard, where it was lost or never wanted before.

    Returns:
        Whether the block has one: those of nodata have neither.
    """
    number = block[0] * scene.grid.cols + block[1]
    pixels = read_window(store_path(writer.masks, scene.id), scene.grid[number].owned, name)
    if (pixels == NODATA).all():
        return False
    writer.write_part(scene, number, name, pixels)
    return True
