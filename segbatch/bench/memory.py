"""Peak memory while scenes grow. It should stay where it is: no step holds a whole scene.

Cores and blocks have the same size in all scenes, as they have in all large ones; left to themselves they would be
smaller in the smallest scene.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segbatch.bench.mapping import map_scene, settle
from segbatch.bench.material import TINY, Material, cores, paint_scene, save_random_bundle
from segbatch.bench.processes import alone
from segbatch.bench.rasters import dense_vrt, sparse_vrt
from segbatch.bench.show import megabytes, print_table
from segbatch.errors import InputError
from segbatch.models.card import read_card

_TILES = 24
"""Copies of the base in the sparse raster."""

_BLOCKS, _CORES = 2, 4
"""Blocks, and cores, along a side of the base."""


@dataclass(frozen=True, slots=True)
class MemoryResult:
    """A scene and what mapping it took.

    Args:
        name: For tables.
        pixels: Of the scene.
        blocks: Units of work.
        windows: Forward passes.
        seconds: From the first block to the last file.
        memory: Peak resident bytes by kind of process.
        growth: Of that, as a share of what the smallest dense scene took; empty for that one.
    """

    name: str
    pixels: int
    blocks: int
    windows: int
    seconds: float
    memory: Mapping[str, int]
    growth: Mapping[str, float]


def measure_memory(
    bundle: Path | None, folder: Path, *, side: int, dense: Sequence[int], base: int, engine: str
) -> list[MemoryResult]:
    """Map dense rasters, the smallest first, and then a sparse one.

    Args:
        bundle: Folder of a trained model; None for a tiny U-Net of random weights.
        folder: Where files go.
        side: Pixels a side of the sparse raster.
        dense: Sizes of the dense ones, as multiples of the base.
        base: Pixels a side of the base.
        engine: ``ray`` or ``inline``.

    Raises:
        InputError: The base cannot be shared out evenly.
    """
    source = folder / "base.tif"
    scene = paint_scene(source, base)
    if bundle is None:
        bundle = folder / "bundle"
        alone(save_random_bundle, bundle, scene, "resnet18", TINY)
    stride = read_card(bundle).stride
    if base % (_CORES * stride) or side < base:
        raise InputError(
            f"--base {base} must be a multiple of {_CORES * stride}, {_CORES} cores of the model's stride, and no "
            f"larger than --side {side}."
        )
    scenes = [(f"dense, {times} x {base}²", times) for times in sorted(set(dense))]
    results: list[MemoryResult] = []
    for name, times in [*scenes, (f"sparse, {side}²", 0)]:
        path = folder / f"{times}.vrt"
        if times:
            dense_vrt(path, source, times)
        else:
            sparse_vrt(path, source, side, _TILES)
        first = results[0].memory if results else None
        material = Material(name, bundle, str(path), trained=False)
        results.append(_map(material, folder / f"run{times}", base, engine, first))
    return results


def _map(material: Material, folder: Path, base: int, engine: str, first: Mapping[str, int] | None) -> MemoryResult:
    bands = 4
    block_mb = max(1, (base // _BLOCKS) ** 2 * bands // 2**20)
    request = material.request(folder, engine=engine, core=base // _CORES, block_mb=block_mb)
    mapped = map_scene(request, settle(request))
    return MemoryResult(
        name=material.name,
        pixels=mapped.pixels,
        blocks=mapped.blocks,
        windows=mapped.windows,
        seconds=mapped.seconds,
        memory=mapped.memory,
        growth={kind: mapped.memory[kind] / peak - 1 for kind, peak in (first or {}).items() if kind in mapped.memory},
    )


def print_memory(results: Sequence[MemoryResult]) -> None:
    """A line for each scene, its memory below it."""
    kinds = list(dict.fromkeys(kind for result in results for kind in result.memory))
    rows = []
    for result in results:
        rows.append(
            [
                result.name,
                f"{result.pixels / 1e6:,.0f}",
                f"{result.blocks:,}",
                f"{result.windows:,}",
                f"{result.seconds:.0f}",
                *(_cell(result, kind) for kind in kinds),
            ]
        )
    print_table(f"peak memory, {cores()} cores", ["scene", "Mpx", "blocks", "forwards", "s", *kinds], rows)


def _cell(result: MemoryResult, kind: str) -> str:
    grown = f"\n{result.growth[kind]:+.0%}" if kind in result.growth else ""
    return megabytes(result.memory.get(kind)) + grown
