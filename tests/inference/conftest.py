"""Scenes put together from blocks, and what they must give, computed from all windows at once in float64."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from segbatch.classes import NODATA
from segbatch.geometry import BlockGrid, Lattice
from segbatch.inference.mosaic import Outputs
from segbatch.inference.predictor import Predictor
from segbatch.inference.settings import Settings
from segbatch.models.backends.forward import Forward


@dataclass(frozen=True)
class Mapped:
    """A scene's outputs and the number of windows that were run."""

    outputs: Outputs
    windows: int

    @property
    def bytes(self) -> list[bytes | None]:
        found = self.outputs
        arrays = found.mask, found.confidence, found.probabilities
        return [None if array is None else array.tobytes() for array in arrays]


@pytest.fixture(scope="session")
def map_scene() -> Callable[..., Mapped]:
    """See `_map_scene`."""
    return _map_scene


@pytest.fixture(scope="session")
def oracle() -> Callable[..., NDArray[np.float64]]:
    """See `_oracle`."""
    return _oracle


@pytest.fixture(scope="session")
def check() -> Callable[..., None]:
    """See `_check`."""
    return _check


@pytest.fixture(scope="session")
def random_scene() -> Callable[..., tuple[NDArray[np.uint8], NDArray[np.bool_]]]:
    """A function (height, width) that makes two bands of 0 to 15 and a valid mask with a gap and holes."""

    def make(height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        rng = np.random.default_rng(height * width)
        valid = rng.random((height, width)) > 0.02
        valid[: height // 3, : width // 2] = False
        return rng.integers(0, 16, (2, height, width), dtype=np.uint8), valid

    return make


@pytest.fixture(scope="session")
def float_net() -> Callable[..., torch.nn.Module]:
    """A function that makes a network from 2 bands to 4 classes that looks 3 pixels far, with probabilities of all
    sizes."""

    def make(seed: int = 0) -> torch.nn.Module:
        torch.manual_seed(seed)
        first, last = torch.nn.Conv2d(2, 6, 5, padding=2), torch.nn.Conv2d(6, 4, 3, padding=1)
        with torch.no_grad():
            last.weight.mul_(3)
        return torch.nn.Sequential(first, torch.nn.ReLU(), last)

    return make


@pytest.fixture
def exact_net() -> torch.nn.Module:
    """Logits that float32 holds exactly whatever the order of sums, so that only what follows them could differ."""
    generator = torch.Generator().manual_seed(1)
    net = torch.nn.Conv2d(2, 5, 3, padding=1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randint(-40, 41, parameter.shape, generator=generator) / 1024)
    return net


@pytest.fixture
def three_threads() -> Iterator[None]:
    """Torch shares its work among three threads, which no power of two goes into."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def _map_scene(
    model: torch.nn.Module,
    values: NDArray[Any],
    valid: NDArray[np.bool_],
    *,
    core: tuple[int, int],
    halo: int,
    settings: Settings | None = None,
    block: tuple[int, int] = (1, 1),
    seed: int | None = None,
    wanted: NDArray[np.bool_] | None = None,
) -> Mapped:
    """A scene of two bands by blocks, put together by hand.

    Args:
        model: From normalised pixels to logits; pixels are normalised to themselves.
        values: (2, height, width).
        valid: (height, width).
        core: (rows, columns) of a core.
        halo: Context pixels.
        settings: How windows become class masks.
        block: (rows, columns) of a block, in cores.
        seed: Of the order of the blocks; None for row by row.
        wanted: (height, width): which pixels to predict.
    """
    settings = settings or Settings()
    predictor = Predictor(Forward(model, (0.0, 0.0), (1.0, 1.0)), settings)
    height, width = valid.shape
    grid = BlockGrid(Lattice(width, height, core[1], core[0], halo), *block, settings.blend != "crop")
    blocks = list(grid)
    if seed is not None:
        np.random.default_rng(seed).shuffle(blocks)  # type: ignore[arg-type]
    around = max(block.read.width + block.read.height for block in blocks)
    # Garbage beyond the scene: what is not valid must not matter.
    far_values = np.pad(values, ((0, 0), (around, around), (around, around)), constant_values=255)
    far_valid = np.pad(valid, around)
    found: dict[str, NDArray[np.uint8]] = {}
    windows = 0
    for part in blocks:
        rows, cols = (slice(s.start + around, s.stop + around) for s in part.read.slices)
        prediction = predictor.predict(
            far_values[:, rows, cols],
            far_valid[rows, cols],
            grid.tiling(part),
            kept=part.kept,
            wanted=None if wanted is None else wanted[part.owned.slices],
        )
        windows += prediction.windows
        outputs = prediction.outputs
        for name in ("mask", "confidence", "probabilities"):
            array = getattr(outputs, name)
            if array is not None:
                whole = found.setdefault(name, np.full((*array.shape[:-2], height, width), NODATA, np.uint8))
                whole[(..., *part.owned.slices)] = array
    return Mapped(Outputs(found["mask"], found.get("confidence"), found.get("probabilities")), windows)


def _oracle(
    model: torch.nn.Module,
    values: NDArray[Any],
    valid: NDArray[np.bool_],
    *,
    core: tuple[int, int],
    halo: int,
    blend: str = "crop",
    tta: str = "none",
) -> NDArray[np.float64]:
    """Probabilities (classes, height, width): weighted sums over all windows of the lattice, divided by the weights."""
    network = copy.deepcopy(model).double()
    height, width = valid.shape
    lattice = Lattice(width, height, core[1], core[0], halo)
    image = np.zeros((len(values), lattice.rows * core[0], lattice.cols * core[1]))
    image[:, :height, :width] = np.where(valid, values, 0)
    sums: Any = 0
    total = np.zeros(image.shape[1:])
    for row in range(lattice.rows):
        for col in range(lattice.cols):
            where = lattice.window(row, col).slices
            views = [_view(network, image[:, *where], *view) for view in _views(tta)]
            canvas = np.zeros((len(views[0]), *total.shape))
            if blend == "crop":
                kept = lattice.cores(row, col).slices
                canvas[:, *where] = np.mean(views, axis=0)
                canvas[:, ~_inside(total.shape, kept)] = 0
                total[kept] += 1
            else:
                weights = np.outer(*(_weights(blend, axis.stop - axis.start) for axis in where))
                canvas[:, *where] = np.mean(views, axis=0) * weights
                total[where] += weights
            sums = sums + canvas
    return sums[:, :height, :width] / total[:height, :width]


def _inside(shape: tuple[int, ...], part: tuple[slice, slice]) -> NDArray[np.bool_]:
    inside = np.zeros(shape, bool)
    inside[part] = True
    return inside


def _weights(blend: str, size: int) -> NDArray[np.float64]:
    centre = np.arange(size) - (size - 1) / 2
    if blend == "hann":
        return np.cos(np.pi * centre / size) ** 2
    return np.exp(-0.5 * (centre / (size / 8)) ** 2)


def _views(tta: str) -> list[tuple[bool, bool, bool]]:
    """(upside down, mirrored, transposed)"""
    flips = [(down, right, False) for down in (False, True) for right in (False, True)]
    turned = [(down, right, True) for down, right, _ in flips]
    return {"none": flips[:1], "flips": flips, "d4": flips + turned}[tta]


def _view(
    network: torch.nn.Module, window: NDArray[np.float64], down: bool, right: bool, transposed: bool
) -> NDArray[np.float64]:
    """The probabilities of a window as the model sees it in one view."""
    axes = [axis for axis, flipped in ((-2, down), (-1, right)) if flipped]
    seen = np.flip(window, axes)
    seen = seen.swapaxes(-1, -2) if transposed else seen
    with torch.inference_mode():
        shares = network(torch.from_numpy(np.ascontiguousarray(seen))[None]).softmax(1)[0].numpy()
    shares = shares.swapaxes(-1, -2) if transposed else shares
    return np.flip(shares, axes)


def _check(outputs: Outputs, expected: NDArray[np.float64], wanted: NDArray[np.bool_], products: Sequence[str]) -> None:
    """Classes wherever the two largest probabilities differ, and products to the nearest step, or the next if halfway.

    Args:
        outputs: Of a whole scene.
        expected: (classes, height, width).
        wanted: (height, width): the pixels that are predicted.
        products: What must be there beside the class mask.
    """
    second, first = np.sort(expected, axis=0)[-2:]
    sure = wanted & (first - second > 1e-5)
    assert sure.sum() > 0.99 * wanted.sum()
    np.testing.assert_array_equal(outputs.mask[sure], expected.argmax(axis=0)[sure])
    assert (outputs.mask[wanted] < len(expected)).all()
    assert (outputs.mask[~wanted] == NODATA).all()
    for name, shares in (("confidence", first), ("probabilities", expected)):
        array = getattr(outputs, name)
        assert (array is not None) == (name in products)
        if array is not None:
            assert np.abs(array[..., wanted] - 254 * shares[..., wanted]).max() < 0.501
            assert (array[..., ~wanted] == NODATA).all()
