"""Look for seams in the class mask that the pipeline makes of a square of a scene."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segbatch.bench.mapping import lay_out, map_scene, settle
from segbatch.bench.material import Material, make_request
from segbatch.bench.processes import alone
from segbatch.bench.seams import (
    PairedRate,
    SeamRate,
    borders,
    disagreement,
    inner,
    near_lines,
    paired_rate,
    seam_rate,
)
from segbatch.bench.show import figure, print_table, rate
from segbatch.bench.square import SCENE_BORDER, cut_square, predict_whole
from segbatch.inference.files import store_path
from segbatch.masks import read_window

_NEAR = 16
"""Pixels from a border of a core within which a lack of context would show first."""

_CORES_A_BLOCK = 4
"""So that a square has borders of blocks too."""


@dataclass(frozen=True, slots=True)
class SeamResult:
    """What there is to see of the borders.

    Args:
        name: Of the model.
        scene: Path of the image.
        shape: (rows, columns) of the square.
        core: (rows, columns).
        block: (rows, columns).
        halo: Context pixels around a core.
        backend: Backend and precision.
        cores: Class changes across borders of cores; None where there are too few lines to say.
        blocks: The same across borders of blocks.
        whole_at_cores: The same lines in the prediction of the square as a whole, which has no windows.
        whole_at_blocks: Likewise.
        cores_paired: Of the class changes across borders of cores, those that the whole prediction does not have.
        blocks_paired: The same across borders of blocks.
        near: Share of pixels within 16 px of a border of a core whose class is not that of the whole prediction.
        far: Of the other pixels.
    """

    name: str
    scene: str
    shape: tuple[int, int]
    core: tuple[int, int]
    block: tuple[int, int]
    halo: int
    backend: str
    cores: SeamRate | None
    blocks: SeamRate | None
    whole_at_cores: SeamRate | None
    whole_at_blocks: SeamRate | None
    cores_paired: PairedRate | None
    blocks_paired: PairedRate | None
    near: float
    far: float


def check_seams(material: Material, folder: Path, side: int, inference: dict[str, Any]) -> SeamResult:
    """Map a square of the scene and compare its borders with what is beside them and with the whole prediction.

    Args:
        material: Model and scene.
        folder: Where files go.
        side: Of the square.
        inference: Settings of the inference section; a core among them.
    """
    square = cut_square(material, folder, side)
    whole = alone(predict_whole, material.bundle, square)
    truth = np.load(whole.mask)
    given = material.request(folder / "run", **inference, engine="inline", format=["zarr"]).inference
    settings = given.model_dump(exclude_unset=True) | {"block_mb": _block_mb(square.values, inference["core"])}
    request = make_request(material.name, material.bundle, str(square.scene), folder / "run", settings)
    settled = settle(request)
    scene = lay_out(request, settled).scenes[0]
    map_scene(request, settled)
    mask = read_window(store_path(request.folder.masks, scene.id), scene.info.window)
    core, block = scene.core, scene.shard
    at_cores = borders(square.shape[0], core[0]), borders(square.shape[1], core[1])
    at_blocks = borders(square.shape[0], block[0]), borders(square.shape[1], block[1])
    step = math.gcd(*core, _stride(material))
    away = inner(square.shape, SCENE_BORDER)
    close = near_lines(square.shape, at_cores, _NEAR)[away]
    return SeamResult(
        name=material.name,
        scene=material.scene,
        shape=square.shape,
        core=core,
        block=block,
        halo=scene.grid.lattice.halo,
        backend=settled.backend,
        cores=seam_rate(mask, at_cores, step=step),
        blocks=seam_rate(mask, at_blocks, step=step, avoid=at_cores),
        whole_at_cores=seam_rate(truth, at_cores, step=step),
        whole_at_blocks=seam_rate(truth, at_blocks, step=step, avoid=at_cores),
        cores_paired=paired_rate(mask, truth, at_cores),
        blocks_paired=paired_rate(mask, truth, at_blocks),
        near=disagreement(mask[away], truth[away], close),
        far=disagreement(mask[away], truth[away], ~close),
    )


def _block_mb(values: Path, core: int) -> int:
    pixels = np.load(values, mmap_mode="r")
    return max(1, round(_CORES_A_BLOCK * core**2 * len(pixels) * pixels.itemsize / 2**20))


def _stride(material: Material) -> int:
    from segbatch.models.card import read_card

    return read_card(material.bundle).stride


def print_seams(result: SeamResult) -> None:
    """The rates of class changes, and the disagreement."""
    height, width = result.shape
    print_table(
        f"{result.name}, {height} x {width} px of {Path(result.scene).name}, {result.backend},\n"
        f"core {result.core[0]} x {result.core[1]}, block {result.block[0]} x {result.block[1]}, halo {result.halo}",
        ["class changes across", "lines", "at them", "elsewhere", "excess", "z"],
        [
            _line("borders of cores", result.cores),
            _line("  the same, predicted whole", result.whole_at_cores),
            _paired_line("  difference at each pixel", result.cores_paired),
            _line("borders of blocks", result.blocks),
            _line("  the same, predicted whole", result.whole_at_blocks),
            _paired_line("  difference at each pixel", result.blocks_paired),
        ],
    )
    print_table(
        f"pixels that differ from the prediction as a whole, {SCENE_BORDER} px away from the square's border",
        ["", "share"],
        [[f"within {_NEAR} px of a border of a core", rate(result.near)], ["further away", rate(result.far)]],
    )


def _line(name: str, found: SeamRate | None) -> list[str]:
    if found is None:
        return [name, "-", "-", "-", "-", "-"]
    return [
        name,
        str(found.lines),
        f"{found.at_borders:.4f}",
        f"{found.elsewhere:.4f}",
        f"{found.excess:+.4f} ± {found.error:.4f}",
        figure(found.z, "+.1f"),
    ]


def _paired_line(name: str, found: PairedRate | None) -> list[str]:
    if found is None:
        return [name, "-", "-", "-", "-", "-"]
    return [name, "", "", "", f"{found.excess:+.5f} ± {found.error:.5f}", figure(found.z, "+.1f")]
