"""The files of a scene's class mask and products: where they are, and what a write task leaves of a block.

A block leaves one shard in each array of the Zarr store and, where COGs are wanted, one part of each COG: its tiles,
compressed already. The block that is a whole scene leaves its COGs at once, and no store that is not wanted.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from segbatch.classes import NODATA, ClassTable
from segbatch.errors import SegbatchError
from segbatch.inference.plan import ScenePlan
from segbatch.masks import (
    CLASS_MASK,
    CONFIDENCE,
    PROBABILITIES,
    CogSpec,
    Pyramid,
    create_store,
    has_store,
    part_path,
    write_block,
    write_part,
    write_small_cog,
)
from segbatch.masks.pyramid import Resampling
from segbatch.storage import ask_ahead, is_remote, remove_tree

Format = Literal["cog", "zarr"]
Overviews = Literal["mode", "nearest"]

_STORE, _COG = ".zarr", ".tif"

_PARTS = ".parts"
"""Folder of what COGs are put together from. Hidden: it goes when they are done."""


def store_path(masks: Path, scene_id: str) -> Path:
    """The Zarr store of a scene."""
    return masks / f"{scene_id}{_STORE}"


def cog_path(masks: Path, scene_id: str, name: str = CLASS_MASK) -> Path:
    """The COG of a scene's class mask or of one of its products, which have folders of their own."""
    return _cog_folder(masks, name) / f"{scene_id}{_COG}"


def parts_path(masks: Path, scene_id: str, name: str = CLASS_MASK) -> Path:
    """Folder of the parts of a COG."""
    return masks / _PARTS / scene_id / name


def drop_parts(masks: Path, scene_id: str) -> None:
    """Remove what the COGs of a scene were put together from."""
    remove_tree(masks / _PARTS / scene_id)
    with suppress(OSError):  # there are other scenes' parts in it, or no folder
        (masks / _PARTS).rmdir()


@lru_cache(maxsize=256)
def pyramid(
    width: int, height: int, block: tuple[int, int], bands: int = 1, resampling: Resampling = "mode"
) -> Pyramid:
    """A `Pyramid`, made once: finding its tiles takes longer than a small block's part."""
    return Pyramid(width, height, block, bands, resampling)


class MaskFiles:
    """Which files there are, of all scenes: looked up at once, since in an object store each look is a request.

    Args:
        masks: Folder of the class masks, which need not be there.
        products: What may be beside these.
    """

    def __init__(self, masks: Path, products: Sequence[str] = ()) -> None:
        self._names = {name: _names_in(_cog_folder(masks, name)) for name in (CLASS_MASK, *products)}
        self._parts = _names_in(masks / _PARTS)
        stores = sorted(name for name in self._names[CLASS_MASK] if name.endswith(_STORE))
        whole = ask_ahead(lambda name: has_store(masks / name), stores, is_far=is_remote(masks))
        self._stores = {name for name, is_whole in zip(stores, whole, strict=True) if is_whole}

    def has_cog(self, scene_id: str, name: str = CLASS_MASK) -> bool:
        """Whether there is a COG of a scene's class mask, or of one of its products."""
        return f"{scene_id}{_COG}" in self._names[name]

    def has_store(self, scene_id: str) -> bool:
        """Whether there is a scene's Zarr store."""
        return f"{scene_id}{_STORE}" in self._stores

    def has_remains(self, scene_id: str) -> bool:
        """Whether there is a scene's Zarr store, or what a killed removal has left of it."""
        return f"{scene_id}{_STORE}" in self._names[CLASS_MASK]

    def has_parts(self, scene_id: str) -> bool:
        """Whether there is anything left that the COGs of a scene are put together from."""
        return scene_id in self._parts


def _cog_folder(masks: Path, name: str) -> Path:
    return masks if name == CLASS_MASK else masks / name


def _names_in(folder: Path) -> set[str]:
    try:
        return {path.name for path in folder.iterdir()}
    except FileNotFoundError:
        return set()


@dataclass(frozen=True, slots=True)
class BlockWriter:
    """Writes what is wanted of a block; the same bytes each time.

    Args:
        masks: Folder of the class masks.
        formats: Files wanted of each scene.
        overviews: How the overviews of class masks are made.
        classes: The class table.
        products: What is written beside the class mask.
    """

    masks: Path
    formats: Sequence[Format]
    overviews: Overviews
    classes: ClassTable
    products: Sequence[str] = ()

    def create(self, scene: ScenePlan) -> None:
        """Make the scene's store, where it needs one and has none; several processes may do so at the same time.

        Raises:
            InputError: There is another scene's store.
            SegbatchError: The folder cannot be written to.
        """
        if not self._needs_store(scene):
            return
        create_store(
            store_path(self.masks, scene.id),
            width=scene.info.width,
            height=scene.info.height,
            shard=scene.shard,
            chunk=scene.chunk,
            classes=self.classes,
            crs=scene.info.crs,
            transform=scene.info.transform,
            pixel_size_um=scene.ref.pixel_size_um,
            products=self.products,
        )

    def write(self, scene: ScenePlan, number: int, arrays: Mapping[str, NDArray[np.uint8]]) -> None:
        """Write a block. The scene's store must be there.

        Args:
            scene: The scene's plan.
            number: Of the block.
            arrays: By name: pixels that the block owns, (height, width) or (classes, height, width) uint8.

        Raises:
            SegbatchError: A file cannot be written.
        """
        owned = scene.grid[number].owned
        for name, pixels in arrays.items():
            if self._needs_store(scene):
                write_block(store_path(self.masks, scene.id), owned, pixels, name)
            if "cog" in self.formats and len(scene.grid) > 1:
                self.write_part(scene, number, name, pixels)
            elif "cog" in self.formats:
                path = cog_path(self.masks, scene.id, name)
                write_small_cog(path, self.pyramid(scene, name), self.spec(scene, name), owned, pixels)

    def write_part(self, scene: ScenePlan, number: int, name: str, pixels: NDArray[np.uint8]) -> None:
        """Write a block's part of a COG; blocks of nodata have none, and one that was there is removed."""
        folder, block = parts_path(self.masks, scene.id, name), scene.grid[number]
        if (pixels != NODATA).any():
            write_part(folder, self.pyramid(scene, name), block.owned, pixels)
            return
        stale = part_path(folder, block.row, block.col)
        try:
            stale.unlink(missing_ok=True)
        except OSError as error:
            raise SegbatchError(f"{stale} cannot be removed: {error.strerror or error}.") from error

    def _needs_store(self, scene: ScenePlan) -> bool:
        """Whether there is a store, be it to make COGs from."""
        return "zarr" in self.formats or len(scene.grid) > 1

    def spec(self, scene: ScenePlan, name: str) -> CogSpec:
        """What a COG says of its pixels."""
        where = scene.info.crs, scene.info.transform, scene.ref.pixel_size_um
        if name == CLASS_MASK:
            return CogSpec.class_mask(self.classes, *where)
        return CogSpec.confidence(*where) if name == CONFIDENCE else CogSpec.probabilities(self.classes, *where)

    def pyramid(self, scene: ScenePlan, name: str) -> Pyramid:
        """Tiles and overview levels of a COG."""
        return pyramid(
            scene.info.width,
            scene.info.height,
            scene.shard,
            len(self.classes) if name == PROBABILITIES else 1,
            self.overviews if name == CLASS_MASK else "average",
        )
