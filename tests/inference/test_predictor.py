"""Windowed against whole-image prediction, bit for bit, with a network whose arithmetic is exact in float32."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from segbatch.classes import NODATA
from segbatch.errors import SegbatchError
from segbatch.geometry import BlockGrid, Lattice, Tiling, Window
from segbatch.inference.predictor import Predictor
from segbatch.inference.settings import Settings
from segbatch.models.backends import eager
from segbatch.models.backends.forward import Forward

REACH = 8
"""Pixels that a class depends on, on each side: 1 (first) + 2 (strided) + 4 + 1 (last)."""

STRIDE = 2


class IntegerNet(torch.nn.Module):
    """Small whole weights: from inputs of 0..15 no sum exceeds 2**24, so float32 holds all of them exactly."""

    def __init__(self, num_classes: int = 5) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)

        def layer(inputs: int, outputs: int, most: int, stride: int = 1) -> torch.nn.Conv2d:
            conv = torch.nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)
            with torch.no_grad():
                conv.weight.copy_(torch.randint(-most, most + 1, conv.weight.shape, generator=generator))
                assert conv.bias is not None
                conv.bias.copy_(torch.randint(-2, 3, conv.bias.shape, generator=generator))
            return conv

        self.first = layer(2, 2, 2)
        self.strided = layer(2, 2, 2, stride=2)
        self.deep = layer(2, 3, 1)
        self.last = layer(3, num_classes, 1)
        self.shapes: set[tuple[int, ...]] = set()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.shapes.add(tuple(image.shape))
        features = torch.relu(self.deep(torch.relu(self.strided(torch.relu(self.first(image))))))
        return self.last(torch.nn.functional.interpolate(features, scale_factor=2, mode="nearest"))


def predictor_of(model: torch.nn.Module, settings: Settings | None = None, stride: int = STRIDE) -> Predictor:
    return Predictor(Forward(model, (0.0, 0.0), (1.0, 1.0)), settings, stride)


def random_scene(height: int, width: int, with_nodata: bool) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    rng = np.random.default_rng(height * width)
    values = rng.integers(0, 16, (2, height, width), dtype=np.uint8)
    valid = np.ones((height, width), bool)
    if with_nodata:
        valid[: height // 3, : width // 2] = False
        valid &= rng.random((height, width)) > 0.02
    return values, valid


def whole(
    values: NDArray[np.uint8], valid: NDArray[np.bool_], multiple: tuple[int, int] = (STRIDE, STRIDE)
) -> NDArray[np.uint8]:
    """One forward pass over the scene, by plain torch; on the right and below zeros up to a multiple of some side."""
    height, width = valid.shape
    image = np.where(valid, values, 0).astype(np.float32)
    padded = np.pad(image, ((0, 0), (0, -height % multiple[0]), (0, -width % multiple[1])))
    with torch.inference_mode():
        classes = IntegerNet()(torch.from_numpy(padded)[None]).argmax(1)[0].numpy().astype(np.uint8)
    return np.where(valid, classes[:height, :width], NODATA).astype(np.uint8)


def inside(valid: NDArray[np.bool_], core: tuple[int, int], halo: int) -> Tiling:
    """A block inside a scene: a halo on all sides."""
    height, width = valid.shape
    cores = Window(halo, halo, width - 2 * halo, height - 2 * halo)
    return Tiling(height, width, cores, core, (core[0] + 2 * halo, core[1] + 2 * halo), halo)


def windowed(
    values: NDArray[np.uint8],
    valid: NDArray[np.bool_],
    core: tuple[int, int],
    halo: int,
    block: tuple[int, int] = (1, 1),
    batch_size: int = 1,
) -> NDArray[np.uint8]:
    """The scene by blocks, put together by hand."""
    height, width = valid.shape
    predictor = predictor_of(IntegerNet(), Settings(batch_size=batch_size))
    grid = BlockGrid(Lattice(width, height, core[1], core[0], halo), *block)
    around = max(core) * max(block) + halo
    # Garbage beyond the scene: what is not valid must not matter.
    far_values = np.pad(values, ((0, 0), (around, around), (around, around)), constant_values=255)
    far_valid = np.pad(valid, around)
    mask = np.full((height, width), 77, np.uint8)
    for part in grid:
        rows, cols = (slice(s.start + around, s.stop + around) for s in part.read.slices)
        tiling = grid.tiling(part)
        mask[part.owned.slices] = predictor.predict(
            far_values[:, rows, cols], far_valid[rows, cols], tiling, kept=part.kept
        ).mask
    return mask


@pytest.mark.parametrize("with_nodata", [False, True])
@pytest.mark.parametrize(
    ("core", "halo"), [((8, 8), 8), ((24, 40), 8), ((64, 32), 10), ((16, 16), 24), ((128, 128), 8), ((2, 6), 8)]
)
def test_windows_give_what_the_whole_image_gives(core: tuple[int, int], halo: int, with_nodata: bool) -> None:
    values, valid = random_scene(75, 101, with_nodata)
    mask = windowed(values, valid, core, halo)
    np.testing.assert_array_equal(mask, whole(values, valid, core))
    inner = slice(0, 75 - REACH), slice(0, 101 - REACH)  # the upper and left border are the scene's for both
    np.testing.assert_array_equal(mask[inner], whole(values, valid)[inner])
    assert len(np.unique(mask[valid])) > 2


def test_a_halo_that_is_too_small_shows() -> None:
    """The oracle above can fail: the network does look beyond the core."""
    values, valid = random_scene(75, 101, False)
    expected = whole(values, valid)
    inner = slice(REACH, -REACH), slice(REACH, -REACH)
    for halo in (0, 2, 4):
        assert (windowed(values, valid, (16, 16), halo)[inner] != expected[inner]).any()


@pytest.mark.parametrize("with_nodata", [False, True])
def test_blocks_and_batches_change_no_byte(with_nodata: bool) -> None:
    values, valid = random_scene(91, 67, with_nodata)
    reference = windowed(values, valid, (16, 16), 8)
    for block, batch_size in product([(1, 1), (2, 3), (6, 5), (1, 4)], [1, 2, 3, 7]):
        mask = windowed(values, valid, (16, 16), 8, block, batch_size)
        np.testing.assert_array_equal(mask, reference, err_msg=f"block {block}, batch size {batch_size}")


def test_a_scene_smaller_than_a_window() -> None:
    values, valid = random_scene(5, 3, False)
    np.testing.assert_array_equal(windowed(values, valid, (32, 32), 8), whole(values, valid, (32, 32)))


def test_every_batch_has_one_shape_and_empty_windows_are_not_run() -> None:
    values, valid = random_scene(48, 64, False)
    valid[:, 32:] = False
    model = IntegerNet()
    predictor = predictor_of(model, Settings(batch_size=4))
    pad = ((8, 8), (8, 8))
    valid = np.pad(valid, pad)
    found = predictor.predict(np.pad(values, ((0, 0), *pad)), valid, inside(valid, (16, 16), 8))
    assert found.windows == 6
    assert model.shapes == {(4, 2, 32, 32)}
    assert (found.mask[:, 32:] == NODATA).all()
    assert (found.mask[:, :32] < 5).all()


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
def test_pixels_of_every_type_are_normalised_on_the_device(dtype: str) -> None:
    rng = np.random.default_rng(1)
    most = 120 if dtype.endswith("int8") else 60_000 if dtype.startswith("u") else 30_000
    values = rng.integers(0, most, (2, 16, 16)).astype(dtype)
    valid = rng.random((16, 16)) > 0.2
    if dtype.startswith("float"):
        values[:, ~valid] = np.nan
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            seen.append(image.clone())
            return image

    mean, std = (10.0, 500.0), (3.0, 0.5)
    Predictor(Forward(Spy(), mean, std)).predict(values, valid, inside(valid, (16, 16), 0))
    expected = (values.astype(np.float64) - np.array(mean)[:, None, None]) / np.array(std)[:, None, None]
    assert seen[0].dtype == torch.float32
    np.testing.assert_allclose(seen[0][0].numpy(), np.where(valid, expected, 0), rtol=2e-6, atol=1e-3)
    assert (seen[0][0].numpy()[:, ~valid] == 0).all()


def test_pixels_of_another_block_are_refused() -> None:
    predictor = predictor_of(IntegerNet())
    tiling = inside(np.ones((40, 40), bool), (16, 16), 4)
    with pytest.raises(ValueError, match="40 x 32 pixels are not those of"):
        predictor.predict(np.zeros((2, 40, 32), np.uint8), np.ones((40, 32), bool), tiling)


def test_kept_pixels_alone_are_given() -> None:
    values, valid = random_scene(80, 96, False)
    predictor = predictor_of(IntegerNet())
    whole_block = predictor.predict(values, valid, inside(valid, (16, 16), 8))
    kept = Window(29, 21, 40, 13)
    part = predictor.predict(values, valid, inside(valid, (16, 16), 8), kept=kept)
    np.testing.assert_array_equal(part.mask, whole_block.mask[13:26, 21:61])
    assert (whole_block.windows, part.windows) == (20, 6)  # rows of cores 0 and 1, columns 1 to 3


@pytest.mark.parametrize(
    ("settings", "functions"),
    [
        (Settings(), 1),
        (Settings(products=("confidence",), batch_size=3), 1),
        (Settings(blend="hann"), 1),
        (Settings(tta="flips"), 1),
        (Settings(tta="d4"), 2),  # windows on their side as well
    ],
)
def test_what_is_prepared_is_what_is_used(monkeypatch: pytest.MonkeyPatch, settings: Settings, functions: int) -> None:
    built = []

    def build(*arguments: Any) -> Any:
        built.append(arguments)
        return eager.build(*arguments)

    forward = Forward(IntegerNet(), (0.0, 0.0), (1.0, 1.0))
    monkeypatch.setattr(forward, "_build", build)
    predictor = Predictor(forward, settings, STRIDE)
    predictor.prepare(2, "uint8", (32, 48))
    assert len(built) == functions
    values, valid = random_scene(48, 48 + 32, False)
    for _ in range(2):
        predictor.predict(values, valid, inside(valid, (16, 32), 8))
    assert len(built) == functions


class Limited(torch.nn.Module):
    """A network whose device holds ``limit`` pixels at the most."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.net, self.limit, self.refused = IntegerNet(), limit, 0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if len(image) * image.shape[2] * image.shape[3] > self.limit:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        return self.net(image)


@pytest.mark.parametrize(
    ("limit", "refused", "note"),
    [
        (4 * 32 * 48, 0, ""),
        (2 * 32 * 48, 1, "2 windows a batch"),
        (1 * 32 * 48, 2, "1 windows a batch"),
        (1 * 32 * 48 - 1, 3, "cores of 8 x 16"),
        (20 * 24, 4, "cores of 4 x 8"),
    ],
)
@pytest.mark.parametrize("settings", [Settings(batch_size=4), Settings(batch_size=4, products=("confidence",))])
def test_a_full_device_gets_smaller_batches_and_then_smaller_cores(
    settings: Settings, limit: int, refused: int, note: str
) -> None:
    values, valid = random_scene(80, 112, True)
    expected = predictor_of(IntegerNet(), settings).predict(values, valid, inside(valid, (16, 32), 8))
    model = Limited(limit)
    predictor = predictor_of(model, settings)
    found = predictor.predict(values, valid, inside(valid, (16, 32), 8))
    np.testing.assert_array_equal(found.mask, expected.mask)
    np.testing.assert_array_equal(found.outputs.confidence, expected.outputs.confidence)
    assert model.refused == refused
    assert note in found.note
    assert bool(found.note) == bool(note)
    # Later blocks start with what was found, and there is nothing to tell any more.
    again = predictor.predict(values[:, ::-1].copy(), valid[::-1].copy(), inside(valid, (16, 32), 8))
    assert (model.refused, again.note) == (refused, "")
    assert again.windows >= found.windows > 0


@pytest.mark.parametrize("blend", ["hann", "gaussian"])
def test_blended_windows_get_smaller_batches_alone(blend: Any) -> None:
    values, valid = random_scene(80, 112, True)
    settings = Settings(blend=blend, batch_size=4, products=("probabilities",))
    expected = predictor_of(IntegerNet(), settings).predict(values, valid, inside(valid, (16, 32), 8))
    found = predictor_of(Limited(32 * 48), settings).predict(values, valid, inside(valid, (16, 32), 8))
    assert "1 windows a batch" in found.note
    np.testing.assert_array_equal(found.mask, expected.mask)
    np.testing.assert_array_equal(found.outputs.probabilities, expected.outputs.probabilities)
    with pytest.raises(SegbatchError, match=r"does not hold a window of 32 x 48 pixels: lower the core or the halo"):
        predictor_of(Limited(32 * 48 - 1), settings).predict(values, valid, inside(valid, (16, 32), 8))


@pytest.mark.parametrize(("stride", "window"), [(2, "18 x 18"), (8, "24 x 24"), (16, "32 x 32")])
def test_cores_stay_whole_strides(stride: int, window: str) -> None:
    values, valid = random_scene(48, 48, False)
    predictor = predictor_of(Limited(0), Settings(batch_size=2), stride)
    with pytest.raises(SegbatchError, match=f"does not hold a window of {window} pixels: lower the core"):
        predictor.predict(values, valid, inside(valid, (16, 16), 8))
