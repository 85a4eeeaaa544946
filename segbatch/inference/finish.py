"""The last step of a scene: the files that people open, made from its shards."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from segbatch.classes import ClassTable
from segbatch.errors import SegbatchError
from segbatch.inference.plan import ScenePlan
from segbatch.masks import clean_partial, write_cog
from segbatch.masks.staging import staging_folder

Format = Literal["cog", "zarr"]


def mask_path(masks: Path, scene_id: str, formats: Sequence[Format]) -> Path:
    """The file that stands for a scene's class mask: the COG where there is one."""
    return masks / f"{scene_id}.{'tif' if 'cog' in formats else 'zarr'}"


def is_finished(masks: Path, scene_id: str, formats: Sequence[Format]) -> bool:
    """Whether all files of a scene whose blocks are all in the ledger are there."""
    store, cog = masks / f"{scene_id}.zarr", masks / f"{scene_id}.tif"
    # A COG that an earlier run wanted may stay; a store takes room and goes when it is not wanted.
    return store.exists() == ("zarr" in formats) and (cog.exists() or "cog" not in formats)


def finish_scene(
    scene: ScenePlan,
    masks: Path,
    *,
    classes: ClassTable,
    formats: Sequence[Format],
    overviews: Literal["mode", "nearest"],
) -> str:
    """Write the scene's COG and drop what is not wanted; may be called again after a kill.

    Returns:
        Why it could not be done; empty when it is.
    """
    store, cog = masks / f"{scene.id}.zarr", masks / f"{scene.id}.tif"
    try:
        clean_partial(store)
        if "cog" in formats and not cog.exists():
            write_cog(
                store,
                cog,
                classes=classes,
                crs=scene.info.crs,
                transform=scene.info.transform,
                pixel_size_um=scene.ref.pixel_size_um,
                overviews=overviews,
            )
        if "zarr" not in formats:
            # Under another name first: half a store must never be taken for a whole one.
            with staging_folder(store) as doomed:
                store.replace(doomed / store.name)
    except SegbatchError as error:
        return str(error)
    except OSError as error:
        return f"The files of {scene.id} cannot be written: {error}"
    return ""
