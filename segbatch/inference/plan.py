"""The plan: what each scene's blocks are and what mapping them costs. Pure arithmetic, touches no pixel."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from segbatch.classes import LabelMap
from segbatch.errors import InputError
from segbatch.geometry import Blend, BlockGrid, Lattice, block_shape, fit_core
from segbatch.inference.settings import Settings
from segbatch.redaction import redact
from segbatch.scenes import SceneInfo, SceneRef
from segbatch.scenes.area import SceneArea

_LARGEST_CHUNK = 1024

_TILE_MULTIPLE = 16
"""TIFF's tiles have sides that are multiples of this, and a block is made of whole tiles."""

SCENE_LIST = "the list of scenes"
"""What a run differs in that has more scenes, or fewer; see `differences`."""

LABEL_VALUES = "the label values"
"""What a run differs in that is the first to have labels, too."""

_alike = lru_cache(maxsize=256)
"""Of ten thousand small scenes most have the same grid, and laying it out takes longer than all else of their plan."""


@dataclass(frozen=True, slots=True)
class ScenePlan:
    """How one scene is mapped.

    Args:
        ref: Its place in the catalog.
        info: What is known of the file.
        bands: 1-based band numbers in the order of the model's channels.
        grid: Its blocks.
        area: The part of it to map; None for all of it.
        bytes_written: For each pixel, over the class mask and all products.
    """

    ref: SceneRef
    info: SceneInfo
    bands: tuple[int, ...]
    grid: BlockGrid
    area: SceneArea | None = None
    bytes_written: int = 1

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
        unique_windows: Windows of the lattice among them: blended ones at the borders of blocks are run by each
            block that they touch, and test-time augmentation looks several times at each.
        pixels: Pixels kept.
        pixels_run: Pixels run through the model.
        bytes_read: Pixels read, halos included, as they are in memory.
        bytes_stored: The same without halos: what there is to read.
        block_bytes: Pixels and valid mask of the largest block, and what is written of it.
        window_pixels: Of the largest window.
    """

    blocks: int
    windows: int
    unique_windows: int
    pixels: int
    pixels_run: int
    bytes_read: int
    bytes_stored: int
    block_bytes: int
    window_pixels: int

    @property
    def waste(self) -> float:
        """Pixels run for each pixel kept."""
        return self.pixels_run / max(1, self.pixels)


def check_sizes(stride: int, core: int | Literal["auto"], halo: int | Literal["auto"], blend: Blend) -> None:
    """Refuse sizes that do not suit the model or each other.

    Raises:
        InputError: Core or halo are not multiples of the stride, or windows do not overlap where they should.
    """
    for name, size in (("core", core), ("halo", halo)):
        if size != "auto" and size % stride:
            below = size // stride * stride
            raise InputError(
                f"{name} {size} is not a multiple of the model's stride {stride}; "
                f"the nearest are {f'{below} and ' if below or name == 'halo' else ''}{below + stride}."
            )
    if blend != "crop" and halo == 0:
        raise InputError(f"blend {blend} needs windows that overlap: give a halo, half of their overlap.")


def plan_scene(
    ref: SceneRef,
    info: SceneInfo,
    bands: tuple[int, ...],
    *,
    stride: int,
    core: tuple[int, int] | int | Literal["auto"],
    halo: int,
    window_pixels: int,
    block_bytes: int,
    settings: Settings,
    num_classes: int,
    uniform: bool = False,
    area: SceneArea | None = None,
) -> ScenePlan:
    """Lay the lattice and the blocks over a scene.

    Args:
        ref: Its place in the catalog.
        info: What is known of the file.
        bands: 1-based band numbers in the order of the model's channels.
        stride: Of the model: windows start at multiples of it, as a prediction of the whole scene would.
        core: (rows, columns) or side of a core; ``auto`` for the one that wastes least within ``window_pixels``.
        halo: Context pixels around a core.
        window_pixels: Most pixels of the window of an automatic core.
        block_bytes: Budget for a block's pixels as stored, or its products where these are larger.
        settings: How windows become class masks.
        num_classes: Number of classes.
        uniform: Whether windows have the shape that those of a larger scene would have.
        area: The part of the scene to map; None for all of it.

    Raises:
        InputError: Core or halo are not multiples of the stride, or windows do not overlap where they should.
    """
    for side in core if isinstance(core, tuple) else (core,):
        check_sizes(stride, side, halo, settings.blend)
    if isinstance(core, tuple):
        core_height, core_width = core
    elif core == "auto":
        core_height, core_width = fit_core(
            info.width, info.height, halo=halo, stride=stride, window_pixels=window_pixels
        )
    else:
        core_height = core_width = core
    lattice = Lattice(info.width, info.height, core_width, core_height, halo, uniform)
    written = 1 + ("confidence" in settings.products) + num_classes * ("probabilities" in settings.products)
    bytes_per_pixel = max(len(bands) * np.dtype(info.dtype).itemsize, written)
    shape = block_shape(lattice, bytes_per_pixel, block_bytes, _TILE_MULTIPLE)
    return ScenePlan(ref, info, bands, BlockGrid(lattice, *shape, settings.blend != "crop"), area, written)


def costs(scenes: Sequence[ScenePlan], views: int = 1) -> Costs:
    """What mapping these scenes costs, summed.

    Args:
        scenes: The plan.
        views: Forward passes a window.
    """
    blocks = windows = unique = pixels = pixels_run = bytes_read = bytes_stored = block_bytes = largest = 0
    for scene in scenes:
        lattice, grid = scene.grid.lattice, scene.grid
        per_pixel = len(scene.bands) * np.dtype(scene.info.dtype).itemsize
        window = lattice.window_width * lattice.window_height
        largest = max(largest, window)
        block_bytes = max(block_bytes, _largest_read(grid) * (per_pixel + 1) + grid[0].owned.area * scene.bytes_written)
        if scene.area is None:
            # Rows and columns of blocks are clipped by the scene independently, so sums of sides multiply.
            found = len(grid), _windows(grid), lattice.rows * lattice.cols, lattice.scene.area, _pixels_read(grid)
        else:
            found = _within(scene, scene.area)
        blocks += found[0]
        windows += found[1] * views
        unique += found[2]
        pixels += found[3]
        pixels_run += found[1] * views * window
        bytes_read += found[4] * per_pixel
        bytes_stored += found[3] * per_pixel
    return Costs(
        blocks, windows, unique, pixels, pixels_run, bytes_read, bytes_stored, block_bytes, largest
    )  # fmt: skip


def _within(scene: ScenePlan, area: SceneArea) -> tuple[int, int, int, int, int]:
    """(blocks, windows, unique windows, pixels, pixels read) of the blocks that touch an area of interest."""
    grid, lattice = scene.grid, scene.grid.lattice
    touched = [block for block in grid if area.intersects(block.owned)]
    windows = 0
    unique: set[tuple[int, int]] = set()
    for block in touched:
        cores = block.cores
        for row in range(cores.row_off // lattice.core_height, cores.row_end // lattice.core_height):
            for col in range(cores.col_off // lattice.core_width, cores.col_end // lattice.core_width):
                window = lattice.window(row, col) if grid.overlapping else lattice.core(row, col)
                seen = window.intersection(block.owned)
                if seen is not None and area.intersects(seen):
                    windows += 1
                    unique.add((row, col))
    pixels = round(sum(area.pixels(block.owned) for block in touched))
    read = sum(common.area for block in touched if (common := block.read.intersection(lattice.scene)))
    return len(touched), windows, len(unique), pixels, read


@_alike
def _windows(grid: BlockGrid) -> int:
    """Windows that all blocks run; rows and columns are independent."""
    lattice = grid.lattice
    if not grid.overlapping:
        return lattice.rows * lattice.cols
    rows = sum(grid[row * grid.cols].cores.height // lattice.core_height for row in range(grid.rows))
    cols = sum(grid[col].cores.width // lattice.core_width for col in range(grid.cols))
    return rows * cols


@_alike
def _pixels_read(grid: BlockGrid) -> int:
    """Sum over blocks of the pixels that they read, inside the scene."""
    heights = sum(_inside(grid[row * grid.cols].read.row_off, grid[row * grid.cols].read.row_end, grid.lattice.height)
                  for row in range(grid.rows))  # fmt: skip
    widths = sum(_inside(grid[col].read.col_off, grid[col].read.col_end, grid.lattice.width)
                 for col in range(grid.cols))  # fmt: skip
    return heights * widths


@_alike
def _largest_read(grid: BlockGrid) -> int:
    """Pixels of the largest block as read: one in the middle, where its neighbours' windows count."""
    heights = (grid[row * grid.cols].read.height for row in range(grid.rows))
    return max(heights) * max(grid[col].read.width for col in range(grid.cols))


def _inside(start: int, end: int, limit: int) -> int:
    return min(end, limit) - max(start, 0)


def fingerprint(scenes: Sequence[ScenePlan], bundle: str, label_map: LabelMap, settings: Settings) -> dict[str, Any]:
    """What decides a run's result: a run folder takes only one of these.

    Args:
        scenes: The plan.
        bundle: The bundle's hash.
        label_map: From label values to class ids.
        settings: How windows become class masks.
    """
    described = [
        {
            "id": scene.id,
            "image": redact(scene.info.uri),
            "size": scene.info.size,
            "modified": scene.info.modified,
            "shape": [scene.info.height, scene.info.width],
            "bands": scene.bands,
            "nodata": str(scene.info.nodata),
            "label": None if scene.ref.label is None else file_stamp(scene.ref.label),
            "core": scene.core,
            "halo": scene.grid.lattice.halo,
            "window": [scene.grid.lattice.window_height, scene.grid.lattice.window_width],
            "block": scene.shard,
            "area": None if scene.area is None else scene.area.digest,
        }
        for scene in scenes
    ]
    labelled = any(scene.ref.label for scene in scenes)
    return {
        "bundle": bundle,
        "scenes": {item["id"]: _digest(item) for item in described},
        "settings": {
            item["id"]: _digest([item["core"], item["halo"], item["window"], item["block"]]) for item in described
        },
        "label_values": _digest(label_map.identity) if labelled else None,
        "predict": settings.to_json(),
    }


def scene_fingerprint(whole: dict[str, Any], scene: str, labelled: bool) -> str:
    """What decides the result of one scene alone, whatever scenes are mapped beside it.

    Args:
        whole: What `fingerprint` tells of a run with this scene.
        scene: Id of the scene.
        labelled: Whether it has a label.
    """
    parts = [whole["bundle"], whole["predict"], whole["scenes"][scene], whole["settings"][scene]]
    return _digest([*parts, whole["label_values"] if labelled else None])


def changed_scenes(old: dict[str, Any], new: dict[str, Any]) -> set[str] | None:
    """The scenes that changed between two fingerprints; None where something else did."""
    if any(old.get(part) != new[part] for part in ("bundle", "label_values", "predict")):
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
        found.append(LABEL_VALUES)
    predicted = old.get("predict") or {}
    found += [name.replace("_", " ") for name, value in new["predict"].items() if predicted.get(name) != value]
    if set(before) != set(now):
        found.append(SCENE_LIST)
    changed = [scene for scene in common if before[scene] != now[scene] and scene not in resized]
    if changed:
        listed = f"{', '.join(changed[:3])}{', ...' if len(changed) > 3 else ''}"
        found.append(f"bands, nodata, label, area of interest or the file itself of {listed}")
    return found


def file_stamp(path: str) -> tuple[str, int, int]:
    """Path, bytes and latest modification time of a file; -1 where they cannot be told.

    Addresses are without their secrets: one that was signed anew is of the same file. A Shapefile is several files, of
    which users name one: the classes of its polygons are in another.
    """
    stem, ending = os.path.splitext(path)
    beside = [stem + other for other in (".dbf", ".prj", ".cpg")] if ending.lower() == ".shp" else []
    try:
        found = [os.stat(name) for name in [path, *filter(os.path.exists, beside)]]
    except OSError:
        return redact(path), -1, -1
    return path, sum(status.st_size for status in found), max(status.st_mtime_ns for status in found)


def _digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def _chunk_side(core: int) -> int:
    parts = -(-core // _LARGEST_CHUNK)
    while core % parts:
        parts += 1
    return core // parts
