"""The plan: what each scene's blocks are and what mapping them costs. Pure arithmetic, touches no pixel."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from segbatch.classes import LabelMap
from segbatch.errors import InputError
from segbatch.geometry import BlockGrid, Lattice, balanced_core, block_shape
from segbatch.scenes import SceneInfo, SceneRef

AUTO_CORE = 1024
"""Largest side in pixels of an automatic core: a U-Net's activations for one window then take about 1 GB."""

_LARGEST_CHUNK = 1024


@dataclass(frozen=True, slots=True)
class ScenePlan:
    """How one scene is mapped.

    Args:
        ref: Its place in the catalog.
        info: What is known of the file.
        bands: 1-based band numbers in the order of the model's channels.
        grid: Its blocks.
    """

    ref: SceneRef
    info: SceneInfo
    bands: tuple[int, ...]
    grid: BlockGrid

    @property
    def id(self) -> str:
        """The scene's id."""
        return self.ref.id

    @property
    def core(self) -> tuple[int, int]:
        """(rows, columns) of a core."""
        return self.grid.lattice.core_height, self.grid.lattice.core_width

    @property
    def shard(self) -> tuple[int, int]:
        """(rows, columns) of a block's shard."""
        return self.grid.block_height, self.grid.block_width

    @property
    def chunk(self) -> tuple[int, int]:
        """(rows, columns) of a chunk inside a shard: a core, or an even part of one."""
        return _chunk_side(self.core[0]), _chunk_side(self.core[1])


@dataclass(frozen=True, slots=True)
class Costs:
    """What mapping costs.

    Args:
        blocks: Units of work.
        windows: Forward passes of one window, if no pixel is nodata.
        pixels: Pixels kept.
        pixels_run: Pixels run through the model.
        bytes_read: Pixels read, halos included, as they are in memory.
        block_bytes: Pixels and valid mask of the largest block.
    """

    blocks: int
    windows: int
    pixels: int
    pixels_run: int
    bytes_read: int
    block_bytes: int

    @property
    def waste(self) -> float:
        """Pixels run for each pixel kept."""
        return self.pixels_run / self.pixels


def plan_scene(
    ref: SceneRef,
    info: SceneInfo,
    bands: tuple[int, ...],
    *,
    stride: int,
    core: int | Literal["auto"],
    halo: int,
    block_bytes: int,
) -> ScenePlan:
    """Lay the lattice and the blocks over a scene.

    Args:
        ref: Its place in the catalog.
        info: What is known of the file.
        bands: 1-based band numbers in the order of the model's channels.
        stride: Of the model: windows start at multiples of it, as a prediction of the whole scene would.
        core: Side of a core; ``auto`` for equal cores of at most `AUTO_CORE`.
        halo: Context pixels around a core.
        block_bytes: Budget for a block's pixels as stored.

    Raises:
        InputError: Core or halo are not multiples of the stride.
    """
    for name, size in (("core", core), ("halo", halo)):
        if size != "auto" and size % stride:
            below = size // stride * stride
            raise InputError(
                f"{name} {size} is not a multiple of the model's stride {stride}; "
                f"the nearest are {f'{below} and ' if below or name == 'halo' else ''}{below + stride}."
            )
    if core == "auto":
        core_height, core_width = (
            balanced_core(side, max(1, AUTO_CORE // stride) * stride, stride) for side in (info.height, info.width)
        )
    else:
        core_height = core_width = core
    lattice = Lattice(info.width, info.height, core_width, core_height, halo)
    shape = block_shape(lattice, len(bands) * np.dtype(info.dtype).itemsize, block_bytes)
    return ScenePlan(ref, info, bands, BlockGrid(lattice, *shape))


def costs(scenes: Sequence[ScenePlan]) -> Costs:
    """What mapping these scenes costs, summed."""
    blocks = windows = pixels = pixels_run = bytes_read = block_bytes = 0
    for scene in scenes:
        lattice = scene.grid.lattice
        per_pixel = len(scene.bands) * np.dtype(scene.info.dtype).itemsize
        blocks += len(scene.grid)
        windows += lattice.rows * lattice.cols
        pixels += lattice.scene.area
        pixels_run += lattice.rows * lattice.cols * lattice.window_width * lattice.window_height
        block_bytes = max(block_bytes, scene.grid[0].read.area * (per_pixel + 1))
        # Rows and columns of blocks are clipped by the scene independently, so sums of sides multiply.
        heights = _clipped_sides(scene.grid.rows, scene.grid.block_height, lattice.halo, lattice.height)
        widths = _clipped_sides(scene.grid.cols, scene.grid.block_width, lattice.halo, lattice.width)
        bytes_read += heights * widths * per_pixel
    return Costs(blocks, windows, pixels, pixels_run, bytes_read, block_bytes)


def fingerprint(scenes: Sequence[ScenePlan], bundle: str, label_map: LabelMap) -> dict[str, Any]:
    """What decides a run's result: a run folder takes only one of these.

    Args:
        scenes: The plan.
        bundle: The bundle's hash.
        label_map: From label values to class ids.
    """
    described = [
        {
            "id": scene.id,
            "image": scene.info.uri,
            "size": scene.info.size,
            "modified": scene.info.modified,
            "shape": [scene.info.height, scene.info.width],
            "bands": scene.bands,
            "nodata": str(scene.info.nodata),
            "label": None if scene.ref.label is None else file_stamp(scene.ref.label),
            "core": scene.core,
            "halo": scene.grid.lattice.halo,
            "block": scene.shard,
        }
        for scene in scenes
    ]
    labelled = any(scene.ref.label for scene in scenes)
    return {
        "bundle": bundle,
        "scenes": {item["id"]: _digest(item) for item in described},
        "settings": {item["id"]: _digest([item["core"], item["halo"], item["block"]]) for item in described},
        "label_values": _digest(label_map.values) if labelled else None,
    }


def changed_scenes(old: dict[str, Any], new: dict[str, Any]) -> set[str] | None:
    """The scenes that changed between two fingerprints; None where something else did."""
    if any(old.get(part) != new[part] for part in ("bundle", "label_values")):
        return None
    if set(old.get("scenes", {})) != set(new["scenes"]):
        return None
    parts = ("scenes", "settings")
    return {scene for scene in new["scenes"] if any(old[part].get(scene) != new[part][scene] for part in parts)}


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What changed between two fingerprints, in words."""
    found = []
    if old.get("bundle") != new["bundle"]:
        found.append("the bundle")
    before, now = old.get("scenes", {}), new["scenes"]
    common = sorted(set(before) & set(now))
    resized = [scene for scene in common if old["settings"][scene] != new["settings"][scene]]
    if resized:
        found.append("core, halo or block size")
    if old.get("label_values") != new["label_values"]:
        found.append("the label values")
    if set(before) != set(now):
        found.append("the list of scenes")
    changed = [scene for scene in common if before[scene] != now[scene] and scene not in resized]
    if changed:
        listed = f"{', '.join(changed[:3])}{', ...' if len(changed) > 3 else ''}"
        found.append(f"bands, nodata, label or the file itself of {listed}")
    return found


def file_stamp(path: str) -> tuple[str, int, int]:
    """Path, bytes and modification time of a file; -1 where they cannot be told."""
    try:
        status = os.stat(path)
    except OSError:
        return path, -1, -1
    return path, status.st_size, status.st_mtime_ns


def _digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def _chunk_side(core: int) -> int:
    parts = -(-core // _LARGEST_CHUNK)
    while core % parts:
        parts += 1
    return core // parts


def _clipped_sides(count: int, size: int, halo: int, limit: int) -> int:
    """Sum over blocks of the side that is read: the block and its halos, inside the scene."""
    starts = np.arange(count, dtype=np.int64) * size
    return int((np.minimum(starts + size + halo, limit) - np.maximum(starts - halo, 0)).sum())
