"""Ways to predict a square of a scene in windows: segbatch's own and those of other programs."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbatch.bench.material import cores
from segbatch.bench.processes import own_peak
from segbatch.bench.square import Square
from segbatch.classes import NODATA
from segbatch.geometry import BlockGrid, Lattice, Tiling, Window
from segbatch.inference.settings import Settings
from segbatch.inference.tuning import REFERENCE

OURS = "segbatch"

WINDOWS = 512, 1024
"""Sides of the windows that all programs are given: larger ones make the others quicker too."""

_OVERLAPS = 0.25, 0.5, 0.75

_Predict = Callable[[NDArray[Any], NDArray[np.bool_]], NDArray[np.uint8]]
"""From pixels as stored and which of them are valid to class ids."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way to predict a square.

    Args:
        tool: `OURS`, or one of `segbatch.bench.tilers.PACKAGES`.
        name: For tables.
        window: Side in pixels of a window.
        options: The tool's own.
        tuned: Whether freed memory is kept and the model has its channels last, as segbatch has it always.
        backend: Backend and precision.
    """

    tool: str
    name: str
    window: int
    options: Mapping[str, Any]
    tuned: bool = True
    backend: str = REFERENCE


def own_way(name: str, core: tuple[int, int], halo: int, backend: str) -> Way:
    """A way of segbatch: these cores, as many context pixels around them, this backend and precision."""
    return Way(OURS, f"{name}, halo {halo}", max(core), {"core": core, "halo": halo}, backend=backend)


def other_ways(tool: str, shape: tuple[int, int]) -> Iterator[list[Way]]:
    """Ways to use another program on an image of a shape, in each list those with less overlap first."""
    if tool == "terratorch":
        yield [Way(tool, "defaults: 224, stride 192", 224, {})]
    for side in WINDOWS:
        if side >= min(shape):
            continue
        steps = [(overlap, f"{side}, overlap {overlap}") for overlap in _OVERLAPS]
        if tool == "monai":
            usual = {"roi_size": (side, side), "sw_batch_size": 1}
            yield [Way(tool, f"{side}, its defaults", side, usual)]
            yield [
                Way(tool, f"{name}, gaussian", side, {**usual, "overlap": overlap, "mode": "gaussian"})
                for overlap, name in steps
            ]
        elif tool == "terratorch":
            for delta in (8, side // 16):
                yield [
                    Way(
                        tool,
                        f"{name}, delta {delta}",
                        side,
                        {"crop": side, "stride": round(side * (1 - overlap)), "delta": delta, "batch_size": 1},
                    )
                    for overlap, name in steps
                ]
        elif tool == "toolbelt":
            yield [
                Way(tool, f"{name}, pyramid", side, {"tile_size": side, "tile_step": round(side * (1 - overlap))})
                for overlap, name in steps
            ]
        else:
            for window in ("hann", "overlap-tile"):
                yield [
                    Way(
                        tool,
                        f"{name}, {window}",
                        side,
                        {"side": side, "overlap": round(side * overlap), "window": window},
                    )
                    for overlap, name in steps
                ]


def predict_square(bundle: Path, square: Square, way: Way, out: Path) -> tuple[float, int]:
    """Predict a square; call it in a process of its own.

    Args:
        bundle: Folder of the bundle.
        square: What to predict.
        way: How.
        out: File for the class ids.

    Returns:
        Seconds and peak resident bytes.
    """
    import torch

    from segbatch.models.allocator import keep_freed_memory

    if way.tuned:
        keep_freed_memory()
    torch.set_num_threads(cores())
    values, valid = square.read()
    first = values[:, : way.window, : way.window], valid[: way.window, : way.window]
    predict = _own(bundle, way, values) if way.tool == OURS else _other(bundle, way, *first)
    with torch.inference_mode():
        started = time.perf_counter()
        mask = predict(values, valid)
        seconds = time.perf_counter() - started
    np.save(out, np.where(valid, mask, NODATA).astype(np.uint8))
    return seconds, own_peak()


def _own(bundle: Path, way: Way, like: NDArray[Any]) -> _Predict:
    """Segbatch's predictor for an image like this, warmed up with one window."""
    import torch

    from segbatch.inference.load import load_predictor

    device = "cuda" if torch.cuda.is_available() else "cpu"
    backend, precision = way.backend.split("/")
    settings = Settings(backend=backend, precision=precision)
    predictor = load_predictor(str(bundle), settings, None, cores(), device)
    core, halo = way.options["core"], way.options["halo"]
    lattice = Lattice(like.shape[2], like.shape[1], core[1], core[0], halo)
    grid = BlockGrid(lattice, lattice.rows, lattice.cols)
    block = grid[0]

    def predict(values: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        pixels = np.zeros((len(values), block.read.height, block.read.width), values.dtype)
        known = np.zeros((block.read.height, block.read.width), bool)
        pixels[:, *block.kept.slices], known[block.kept.slices] = values, valid
        return predictor.predict(pixels, known, grid.tiling(block), kept=block.kept).mask

    shape = lattice.window_height, lattice.window_width
    alone = Tiling(*shape, Window(0, 0, shape[1], shape[0]), shape, shape, 0)
    predictor.predict(np.zeros((len(like), *shape), like.dtype), np.ones(shape, bool), alone)
    return predict


def _other(bundle: Path, way: Way, values: NDArray[Any], valid: NDArray[np.bool_]) -> _Predict:
    """Another program, warmed up with these pixels."""
    import torch

    from segbatch.bench.tilers import tile
    from segbatch.models.bundle import load_bundle

    loaded = load_bundle(bundle)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.allow_tf32 = False
    layout = torch.channels_last if way.tuned else torch.contiguous_format
    model = loaded.model.to(device, memory_format=layout)  # type: ignore[call-overload]
    mean, std = (torch.tensor(stats).view(-1, 1, 1) for stats in (loaded.card.mean, loaded.card.std))

    def predict(values: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
        image = torch.where(torch.from_numpy(valid), (torch.from_numpy(values).float() - mean) / std, 0.0)
        logits = tile(
            way.tool, lambda windows: model(windows.contiguous(memory_format=layout)), image[None].to(device),
            way.options,
        )  # fmt: skip
        return logits.argmax(0).to(torch.uint8).cpu().numpy()

    with torch.inference_mode():
        predict(values, valid)
    return predict
