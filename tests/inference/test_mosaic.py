"""Windows put together: against all windows of the scene at once, and bit for bit whatever the blocks."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from segbatch.classes import NODATA
from segbatch.geometry import BlockGrid, Lattice
from segbatch.inference.settings import Settings

PRODUCTS: Any = ("confidence", "probabilities")

LATTICES = [
    pytest.param((16, 24), 8, id="halo below core"),
    pytest.param((16, 16), 16, id="halo as core"),
    pytest.param((8, 12), 20, id="six windows a row of pixels"),
    pytest.param((128, 128), 8, id="one window"),
    pytest.param((2, 90), 5, id="long cores"),
]


@pytest.mark.parametrize("blend", ["crop", "hann", "gaussian"])
@pytest.mark.parametrize(("core", "halo"), LATTICES)
def test_a_scene_by_blocks_is_what_all_windows_give_together(
    map_scene: Any, oracle: Any, check: Any, float_net: Any, random_scene: Any, blend: Any, core: Any, halo: int
) -> None:
    values, valid = random_scene(59, 77)
    settings = Settings(blend=blend, products=PRODUCTS, batch_size=2)
    found = map_scene(float_net(), values, valid, core=core, halo=halo, settings=settings, block=(2, 3))
    check(found.outputs, oracle(float_net(), values, valid, core=core, halo=halo, blend=blend), valid, PRODUCTS)
    assert len(np.unique(found.outputs.mask)) > 3


@pytest.mark.parametrize("blend", ["hann", "gaussian"])
def test_the_check_can_fail(
    map_scene: Any, oracle: Any, check: Any, float_net: Any, random_scene: Any, blend: Any
) -> None:
    """The modes do differ, at all pixels and not at windows' borders alone."""
    values, valid = random_scene(59, 77)
    expected = oracle(float_net(), values, valid, core=(8, 12), halo=1, blend=blend)
    for other in {"crop", "hann", "gaussian"} - {blend}:
        settings = Settings(blend=other, products=PRODUCTS)
        found = map_scene(float_net(), values, valid, core=(8, 12), halo=1, settings=settings)
        with pytest.raises(AssertionError):
            check(found.outputs, expected, valid, PRODUCTS)


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("blend", ["crop", "hann", "gaussian"])
@pytest.mark.parametrize(("core", "halo"), [((16, 24), 8), ((10, 12), 22)])
def test_blocks_batches_and_order_change_no_bit(
    map_scene: Any, exact_net: torch.nn.Module, random_scene: Any, blend: Any, core: Any, halo: int
) -> None:
    values, valid = random_scene(45, 61)

    def bits(block: tuple[int, int], batch_size: int, seed: int | None) -> list[bytes]:
        settings = Settings(blend=blend, products=PRODUCTS, batch_size=batch_size)
        return map_scene(
            exact_net, values, valid, core=core, halo=halo, settings=settings, block=block, seed=seed
        ).bytes

    reference = bits((1, 1), 1, None)
    ways = [((1, 1), 3), ((2, 3), 1), ((2, 3), 4), ((4, 1), 3), ((9, 9), 1), ((9, 9), 4)]
    for seed, (block, batch_size) in enumerate(ways):
        assert bits(block, batch_size, seed) == reference, f"block {block}, batch size {batch_size}"


@pytest.mark.parametrize("blend", ["crop", "hann", "gaussian"])
@pytest.mark.parametrize(("core", "halo"), LATTICES)
def test_what_is_the_same_everywhere_stays_so(
    map_scene: Any, random_scene: Any, blend: Any, core: Any, halo: int
) -> None:
    """A pixel's weights add up to 1, at the scene's borders too."""

    class Constant(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.tensor([0.0, 2.0, 1.0]).view(1, 3, 1, 1).expand(len(image), 3, *image.shape[2:])

    values, valid = random_scene(59, 77)
    settings = Settings(blend=blend, products=PRODUCTS, batch_size=3)
    found = map_scene(Constant(), values, valid, core=core, halo=halo, settings=settings, block=(2, 2)).outputs
    shares = np.exp([0, 2, 1]) / np.exp([0, 2, 1]).sum()
    steps = np.round(254 * shares).astype(int).tolist()
    for share, step, band in zip(shares, steps, found.probabilities, strict=True):
        assert abs(254 * share - step) < 0.45  # not so near to halfway that rounding could go either way
        assert np.unique(band).tolist() == [step, NODATA]
        assert (band[valid] == step).all()
    assert (found.confidence[valid] == steps[1]).all()
    assert (found.mask[valid] == 1).all()
    assert (found.mask[~valid] == NODATA).all()


@pytest.mark.parametrize("products", [("confidence",), ("probabilities",), PRODUCTS])
def test_products_do_not_change_the_mask_of_the_crop_mode(
    map_scene: Any, exact_net: torch.nn.Module, random_scene: Any, products: Any
) -> None:
    """Also where the two largest logits are so near that their probabilities are equal."""
    values, valid = random_scene(59, 77)

    class Close(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            logits = exact_net(image)
            return torch.cat([logits, logits.nextafter(logits + 1)], dim=1)

    plain = map_scene(Close(), values, valid, core=(16, 24), halo=8)
    found = map_scene(Close(), values, valid, core=(16, 24), halo=8, settings=Settings(products=products))
    assert found.bytes[0] == plain.bytes[0]
    assert (plain.outputs.mask[valid] >= 5).all()
    assert [name for name in PRODUCTS if getattr(found.outputs, name) is not None] == list(products)
    assert plain.bytes[1:] == [None, None]


def test_confidence_is_the_largest_probability(map_scene: Any, float_net: Any, random_scene: Any) -> None:
    values, valid = random_scene(59, 77)
    for blend in ("crop", "hann"):
        settings = Settings(blend=blend, products=PRODUCTS)
        found = map_scene(float_net(), values, valid, core=(16, 24), halo=8, settings=settings).outputs
        np.testing.assert_array_equal(found.confidence, found.probabilities.max(axis=0))


@pytest.mark.parametrize("blend", ["crop", "hann", "gaussian"])
@pytest.mark.parametrize(("core", "halo"), [((8, 12), 4), ((6, 8), 10)])
@pytest.mark.parametrize("block", [(1, 1), (3, 2), (20, 20)])
def test_an_area_changes_no_bit_inside_and_costs_no_window_outside(
    map_scene: Any, exact_net: torch.nn.Module, random_scene: Any, blend: Any, core: Any, halo: int, block: Any
) -> None:
    values, valid = random_scene(59, 77)
    rows, cols = np.indices(valid.shape)
    wanted = (rows - 40) ** 2 + (cols - 40) ** 2 < 15**2
    wanted |= (rows < 9) & (cols > 70)
    settings = Settings(blend=blend, products=PRODUCTS)
    all_of_it: Callable[..., Any] = lambda **area: map_scene(  # noqa: E731
        exact_net, values, valid, core=core, halo=halo, settings=settings, block=block, **area
    )
    whole, part = all_of_it(), all_of_it(wanted=wanted)
    for name in ("mask", *PRODUCTS):
        inside, everywhere = getattr(part.outputs, name), getattr(whole.outputs, name)
        np.testing.assert_array_equal(inside, np.where(wanted, everywhere, NODATA))
    for found, asked in ((whole, valid), (part, wanted & valid)):
        assert found.windows == windows_that_give(asked, core, halo, block, blend != "crop")
    assert part.windows < 0.7 * whole.windows or block == (20, 20)


def windows_that_give(
    asked: np.ndarray, core: tuple[int, int], halo: int, block: tuple[int, int], overlapping: bool
) -> int:
    """Windows that see a pixel asked for, counted anew for each block that owns one of these."""
    height, width = asked.shape
    lattice = Lattice(width, height, core[1], core[0], halo)
    count = 0
    for part in BlockGrid(lattice, *block):
        owned = np.zeros_like(asked)
        owned[part.owned.slices] = asked[part.owned.slices]
        for row, col in product(range(lattice.rows), range(lattice.cols)):
            seen = lattice.window(row, col) if overlapping else lattice.cores(row, col)
            seen = seen.intersection(lattice.scene)
            assert seen is not None
            count += bool(owned[seen.slices].any())
    return count


def test_nothing_wanted_costs_nothing(map_scene: Any, exact_net: torch.nn.Module, random_scene: Any) -> None:
    values, valid = random_scene(30, 40)
    for blend, area in product(("crop", "hann"), (np.zeros_like(valid), ~valid)):
        settings = Settings(blend=blend, products=("confidence",))
        found = map_scene(exact_net, values, valid, core=(16, 16), halo=8, settings=settings, wanted=area)
        assert found.windows == 0
        assert (found.outputs.mask == NODATA).all()
        assert (found.outputs.confidence == NODATA).all()
