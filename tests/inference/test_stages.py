"""The stages on real TIFFs, without an engine: against whole-image prediction, and with damaged files."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import torch
from affine import Affine
from numpy.typing import NDArray

from segbatch.classes import NODATA, ClassTable, LabelMap
from segbatch.errors import SegbatchError
from segbatch.geometry import Window
from segbatch.inference import stages
from segbatch.inference.files import BlockWriter
from segbatch.inference.ledger import LedgerRow, read_ledger
from segbatch.inference.plan import ScenePlan, plan_scene
from segbatch.inference.predictor import Predictor
from segbatch.inference.settings import Settings
from segbatch.inference.work import Work
from segbatch.masks import read_window
from segbatch.models.bundle import Bundle
from segbatch.models.card import Card
from segbatch.scenes import SceneRef, open_scene
from segbatch.scenes.area import SceneArea
from segbatch.scenes.scene import read_padded

MakeRaster = Callable[..., str]

CLASSES = ClassTable.from_items([(f"class {index}", None) for index in range(5)])


class IntegerNet(torch.nn.Module):
    """Exact in float32 for inputs of 0..15; reaches 5 pixels; stride 2."""

    def __init__(self, bands: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.layers = torch.nn.ModuleList(
            [
                torch.nn.Conv2d(bands, 3, 3, padding=1),
                torch.nn.Conv2d(3, 3, 3, stride=2, padding=1),
                torch.nn.Conv2d(3, 5, 3, padding=1),
            ]
        )
        for parameter in self.parameters():
            parameter.data = torch.randint(-2, 3, parameter.shape, generator=generator).float()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        first, strided, last = self.layers
        features = torch.relu(strided(torch.relu(first(image))))
        return last(torch.nn.functional.interpolate(features, scale_factor=2, mode="nearest"))


@pytest.fixture
def use_integer_net(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any bundle is the network whose arithmetic is exact, for two bands."""
    card = Card(CLASSES, ("", ""), "uint8", (0.0, 0.0), (1.0, 1.0), 2, 8, LabelMap(5))
    monkeypatch.setattr("segbatch.inference.load.load_bundle", lambda folder: Bundle(IntegerNet(2), card))


def make_plan(image: str, name: str = "a", **changes: Any) -> ScenePlan:
    label, nodata, bands = changes.pop("label", None), changes.pop("nodata", None), changes.pop("bands", (1, 2))
    with open_scene(image, nodata) as reader:
        info = reader.info
    settings: dict[str, Any] = {
        "stride": 2,
        "core": 16,
        "halo": 8,
        "window_pixels": 1 << 20,
        "block_bytes": 1 << 20,
        "settings": Settings(),
        "num_classes": 5,
    }
    return plan_scene(SceneRef(name, image, label=label), info, bands, **(settings | changes))


def work_for(
    tmp_path: Path, *plans: ScenePlan, settings: Settings | None = None, label_map: LabelMap | None = None
) -> Work:
    settings = settings or Settings()
    (tmp_path / "ledger").mkdir(parents=True, exist_ok=True)
    files = BlockWriter(tmp_path, ["zarr"], "mode", CLASSES, settings.products)
    pending = np.array([(i, b) for i, plan in enumerate(plans) for b in range(len(plan.grid))], np.int64)
    return Work(plans, pending, "unused", files, str(tmp_path / "ledger"), label_map or LabelMap(5), settings)


def run(work: Work) -> list[LedgerRow]:
    read, predict, write = work.reader(), work.predictor(None, "cpu"), work.writer()
    return [write(predict(read(scene, block))) for scene, block in work.pending.tolist()]


def mask_of(tmp_path: Path, plan: ScenePlan) -> NDArray[np.uint8]:
    return read_window(tmp_path / f"{plan.id}.zarr", Window(0, 0, plan.info.width, plan.info.height))


def whole(values: NDArray[Any], valid: NDArray[np.bool_], core: int = 16) -> NDArray[np.uint8]:
    """One forward pass by plain torch, over the scene and zeros up to whole cores on the right and below."""
    height, width = valid.shape
    image = np.where(valid, values, 0).astype(np.float32)
    padded = np.pad(image, ((0, 0), (0, -height % core), (0, -width % core)))
    with torch.inference_mode():
        classes = IntegerNet(len(values))(torch.from_numpy(padded)[None]).argmax(1)[0].numpy()
    return np.where(valid, classes[:height, :width], NODATA).astype(np.uint8)


@pytest.mark.usefixtures("use_integer_net")
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize(("core", "halo"), [(16, 8), (40, 6), (256, 8)])
def test_a_tiff_is_mapped_as_if_seen_whole(
    tmp_path: Path, make_raster: MakeRaster, dtype: str, core: int, halo: int
) -> None:
    rng = np.random.default_rng(5)
    values = rng.integers(1, 16, (2, 117, 83)).astype(dtype)
    valid = rng.random((117, 83)) > 0.05
    valid[:50, :40] = False
    values[:, ~valid] = 0
    image = make_raster(tmp_path / "a.tif", values, nodata=0, tiled=True, blockxsize=32, blockysize=32)
    expected = whole(values, valid, core)
    sums = set()
    for number, (block_bytes, batch_size) in enumerate([(1, 1), (1 << 20, 1), (9_000, 3)]):
        plan = make_plan(image, core=core, halo=halo, block_bytes=block_bytes)
        out = tmp_path / str(number)
        rows = run(work_for(out, plan, settings=Settings(batch_size=batch_size)))
        found = mask_of(out, plan)
        np.testing.assert_array_equal(found, expected)
        sums.add(found.tobytes())
        assert sum(row.nodata_pixels for row in rows) == (~valid).sum()
        assert sum(sum(row.class_pixels) for row in rows) == valid.sum()
    assert len(sums) == 1


@pytest.mark.usefixtures("use_integer_net")
def test_bands_are_taken_in_the_model_s_order(tmp_path: Path, make_raster: MakeRaster) -> None:
    values = np.random.default_rng(1).integers(0, 16, (4, 40, 50), dtype=np.uint8)
    plan = make_plan(make_raster(tmp_path / "a.tif", values, photometric="minisblack"), bands=(3, 1))
    run(work_for(tmp_path, plan))
    np.testing.assert_array_equal(mask_of(tmp_path, plan), whole(values[[2, 0]], np.ones((40, 50), bool)))


@pytest.mark.usefixtures("use_integer_net")
@pytest.mark.parametrize("how", ["mask", "alpha", "nodata option", "nan"])
def test_the_valid_mask_decides_whatever_it_comes_from(tmp_path: Path, make_raster: MakeRaster, how: str) -> None:
    values = np.random.default_rng(2).integers(0, 16, (2, 60, 70), dtype=np.uint8)
    valid = np.random.default_rng(3).random((60, 70)) > 0.3
    path, nodata = tmp_path / "a.tif", None
    if how == "mask":
        image = make_raster(path, values, mask=valid)
    elif how == "alpha":
        alpha = np.where(valid, 255, 0).astype(np.uint8)
        kinds = ["gray", "undefined", "alpha"]
        image = make_raster(path, np.concatenate([values, alpha[None]]), colorinterp=kinds)
    elif how == "nan":
        image = make_raster(path, np.where(valid, values, np.nan).astype(np.float32))
    else:
        image, nodata = make_raster(path, np.where(valid, values, 99).astype(np.uint8)), 99
    plan = make_plan(image, nodata=nodata)
    run(work_for(tmp_path, plan))
    np.testing.assert_array_equal(mask_of(tmp_path, plan), whole(values, valid))


@pytest.mark.usefixtures("use_integer_net")
def test_a_block_without_a_valid_pixel_costs_no_forward_and_no_file(tmp_path: Path, make_raster: MakeRaster) -> None:
    values = np.zeros((2, 64, 32), np.uint8)
    values[:, 33:] = 7
    plan = make_plan(make_raster(tmp_path / "a.tif", values, nodata=0), block_bytes=1, core=32)
    first, second = run(work_for(tmp_path, plan))
    assert (first.windows, first.nodata_pixels) == (0, 32 * 32)
    assert (second.windows, second.nodata_pixels) == (1, 32)
    shards = [path for path in (tmp_path / "a.zarr" / "class_mask").rglob("*") if path.is_file()]
    assert sorted(path.name for path in shards) == ["0", "zarr.json"]
    assert (mask_of(tmp_path, plan)[:33] == NODATA).all()


@pytest.mark.usefixtures("use_integer_net")
def test_a_scene_that_is_damaged_in_the_middle_fails_alone(tmp_path: Path, make_raster: MakeRaster) -> None:
    values = np.random.default_rng(4).integers(0, 16, (2, 128, 128), dtype=np.uint8)
    good = make_raster(tmp_path / "good.tif", values, tiled=True, blockxsize=32, blockysize=32)
    bad = make_raster(tmp_path / "bad.tif", values, tiled=True, blockxsize=32, blockysize=32)
    content = Path(bad).read_bytes()
    Path(bad).write_bytes(content[: len(content) * 9 // 10])
    plans = make_plan(good, "good", block_bytes=1, core=64), make_plan(bad, "bad", block_bytes=1, core=64)
    rows = run(work_for(tmp_path, *plans))
    errors = {(row.scene, row.block): row.error for row in rows}
    assert [errors["good", block] for block in range(4)] == [None] * 4
    assert errors["bad", 0] is None
    assert "bad.tif is damaged" in str(errors["bad", 3])
    assert read_ledger(tmp_path / "ledger") == {(row.scene, row.block): row for row in rows}
    np.testing.assert_array_equal(mask_of(tmp_path, plans[0]), whole(values, np.ones((128, 128), bool)))


@pytest.mark.usefixtures("use_integer_net")
@pytest.mark.parametrize("stage", ["read", "predict", "label"])
@pytest.mark.parametrize("error", [ValueError("cannot reshape"), MemoryError(), RuntimeError("no such kernel")])
def test_an_error_that_nobody_expected_costs_its_block_alone(
    tmp_path: Path, make_raster: MakeRaster, monkeypatch: pytest.MonkeyPatch, stage: str, error: Exception
) -> None:
    values = np.random.default_rng(4).integers(0, 16, (2, 128, 128), dtype=np.uint8)
    label = make_raster(tmp_path / "label.tif", values[0] % 5)
    plan = make_plan(make_raster(tmp_path / "a.tif", values), label=label, block_bytes=1, core=64)
    owner, name = {
        "read": (stages, "read_padded"),
        "predict": (Predictor, "predict"),
        "label": (stages.LabelReader, "read"),
    }[stage]
    plain, calls = getattr(owner, name), itertools.count()

    def once(*given: Any, **named: Any) -> Any:
        if next(calls) == 1:
            raise error
        return plain(*given, **named)

    monkeypatch.setattr(owner, name, once)
    rows = run(work_for(tmp_path, plan))
    assert [row.error is None for row in rows] == [True, False, True, True]
    assert type(error).__name__ in str(rows[1].error)
    assert str(rows[1].error).startswith(
        {"read": plan.info.uri, "predict": "block 1", "label": str(plan.ref.label)}[stage] + " cannot be "
    )


@pytest.mark.usefixtures("use_integer_net")
@pytest.mark.parametrize("lost", ["a.tif", "label.tif"])
def test_a_file_that_vanishes_fails_its_scene(tmp_path: Path, make_raster: MakeRaster, lost: str) -> None:
    values = np.random.default_rng(4).integers(0, 16, (2, 40, 40), dtype=np.uint8)
    label = make_raster(tmp_path / "label.tif", values[0] % 5)
    plan = make_plan(make_raster(tmp_path / "a.tif", values), label=label)
    (tmp_path / lost).unlink()
    (row,) = run(work_for(tmp_path, plan))
    assert row.error == f"{tmp_path / lost} does not exist."
    assert row.checksum == ""


@pytest.mark.usefixtures("use_integer_net")
def test_labels_are_compared_by_their_values(tmp_path: Path, make_raster: MakeRaster) -> None:
    values = np.random.default_rng(4).integers(0, 16, (2, 40, 40), dtype=np.uint8)
    label = np.random.default_rng(5).choice([10, 20, 30], (40, 40)).astype(np.uint8)
    plan = make_plan(make_raster(tmp_path / "a.tif", values), label=make_raster(tmp_path / "l.tif", label))
    (row,) = run(work_for(tmp_path, plan, label_map=LabelMap(5, ((10, 3), (20, 1)))))
    mask = mask_of(tmp_path, plan)
    expected = np.zeros((5, 5), int)
    for value, class_id in ((10, 3), (20, 1)):
        expected[class_id] = np.bincount(mask[label == value], minlength=5)[:5]
    np.testing.assert_array_equal(row.confusion, expected)
    assert row.ignored_pixels == (label == 30).sum()


@pytest.mark.usefixtures("use_integer_net")
def test_a_full_disk_ends_the_run(tmp_path: Path, make_raster: MakeRaster) -> None:
    plan = make_plan(make_raster(tmp_path / "a.tif", np.ones((2, 40, 40), np.uint8)))
    work = work_for(tmp_path, plan)
    work.files.create(plan)
    (tmp_path / "a.zarr" / "class_mask" / "c").write_bytes(b"in the way")
    with pytest.raises(SegbatchError, match=r"a\.zarr.* cannot be written"):
        run(work)
    assert read_ledger(tmp_path / "ledger") == {}


@pytest.mark.usefixtures("use_integer_net")
def test_too_little_gpu_memory_is_said_with_the_way_out(
    tmp_path: Path, make_raster: MakeRaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(make_raster(tmp_path / "a.tif", np.ones((2, 40, 40), np.uint8)))
    work = work_for(tmp_path, plan, settings=Settings(batch_size=4))

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    monkeypatch.setattr(IntegerNet, "forward", fail)
    with pytest.raises(SegbatchError, match=r"does not hold a window of 18 x 18 pixels: lower the core or the halo"):
        run(work)


@pytest.mark.usefixtures("use_integer_net")
def test_what_the_device_s_memory_made_change_is_in_the_ledger(
    tmp_path: Path, make_raster: MakeRaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(4).integers(0, 16, (2, 60, 60), dtype=np.uint8)
    plan = make_plan(make_raster(tmp_path / "a.tif", values), core=32, block_bytes=1)
    work = work_for(tmp_path, plan, settings=Settings(batch_size=2))
    expected = whole(values, np.ones((60, 60), bool))
    plain = IntegerNet.forward

    def limited(self: IntegerNet, image: torch.Tensor) -> torch.Tensor:
        if len(image) * image.shape[2] > 32:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        return plain(self, image)

    monkeypatch.setattr(IntegerNet, "forward", limited)
    rows = run(work)
    assert [row.note for row in rows] == ["the GPU's memory ran out: going on with cores of 16 x 16", "", "", ""]
    assert [row.windows for row in rows] == [4] * 4
    assert all(row.memory > 0 for row in rows)
    np.testing.assert_array_equal(mask_of(tmp_path, plan), expected)


def area_of(*boxes: tuple[float, float, float, float]) -> SceneArea:
    return SceneArea(shapely.to_wkb(shapely.union_all([shapely.box(*box) for box in boxes])))


@pytest.mark.usefixtures("use_integer_net")
@pytest.mark.parametrize("settings", [Settings(), Settings(blend="hann", products=("confidence", "probabilities"))])
def test_blocks_outside_the_area_are_neither_read_nor_predicted(
    tmp_path: Path, make_raster: MakeRaster, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    values = np.random.default_rng(4).integers(0, 16, (2, 96, 128), dtype=np.uint8)
    image = make_raster(tmp_path / "a.tif", values)
    area = area_of((3, 5, 28, 20), (90, 40, 101, 70))
    plan = make_plan(image, core=32, block_bytes=1, settings=settings, area=area)
    inside = np.zeros((96, 128), bool)
    inside[5:20, 3:28] = inside[40:70, 90:101] = True
    touched = [number for number, block in enumerate(plan.grid) if inside[block.owned.slices].any()]
    assert touched == [0, 6, 7, 10, 11]
    read = []

    def spy(reader: Any, window: Window, bands: Any) -> Any:
        read.append(window)
        return read_padded(reader, window, bands)

    monkeypatch.setattr(stages, "read_padded", spy)
    rows = run(work_for(tmp_path / "part", plan, settings=settings))
    assert read == [plan.grid[number].read for number in touched]
    assert [row.block for row in rows if row.windows] == touched
    assert sum(row.nodata_pixels for row in rows) == (~inside).sum()
    everywhere = make_plan(image, core=32, block_bytes=1, settings=settings)
    run(work_for(tmp_path / "whole", everywhere, settings=settings))
    for name in ("class_mask", *settings.products):
        found, full = (
            read_window(tmp_path / folder / "a.zarr", Window(0, 0, 128, 96), name) for folder in ("part", "whole")
        )
        np.testing.assert_array_equal(found, np.where(inside, full, NODATA))


@pytest.mark.usefixtures("use_integer_net")
def test_a_block_whose_area_has_no_valid_pixel_costs_no_forward(tmp_path: Path, make_raster: MakeRaster) -> None:
    values = np.full((2, 40, 40), 7, np.uint8)
    values[:, :20] = 0
    image = make_raster(tmp_path / "a.tif", values, nodata=0)
    plan = make_plan(image, core=64, area=area_of((0, 0, 40, 20)))
    pixels = work_for(tmp_path, plan).reader()(0, 0)
    assert pixels.values.shape == (2, 0, 0)
    assert pixels.valid.shape == (0, 0)
    (row,) = run(work_for(tmp_path, plan))
    assert (row.windows, row.nodata_pixels) == (0, 1600)


@pytest.mark.usefixtures("use_integer_net")
def test_an_area_is_evaluated_alone(tmp_path: Path, make_raster: MakeRaster) -> None:
    values = np.random.default_rng(4).integers(0, 16, (2, 40, 40), dtype=np.uint8)
    label = np.random.default_rng(5).integers(0, 5, (40, 40)).astype(np.uint8)
    images = make_raster(tmp_path / "a.tif", values), make_raster(tmp_path / "l.tif", label)
    plan = make_plan(images[0], label=images[1], core=64, area=area_of((10, 0, 30, 40)))
    (row,) = run(work_for(tmp_path, plan))
    expected = np.zeros((5, 5), int)
    np.add.at(expected, (label[:, 10:30], whole(values, np.ones((40, 40), bool))[:, 10:30]), 1)
    np.testing.assert_array_equal(row.confusion, expected)
    assert row.ignored_pixels == 0


def test_georeferenced_stores_lie_where_the_scene_lies(tmp_path: Path, make_raster: MakeRaster) -> None:
    import xarray as xr

    at = Affine(0.5, 0, 432100.25, 0, -0.5, 5123456.75)
    plan = make_plan(make_raster(tmp_path / "a.tif", np.ones((2, 30, 40), np.uint8), crs="EPSG:25832", transform=at))
    work_for(tmp_path, plan).files.create(plan)
    with xr.open_zarr(tmp_path / "a.zarr", consolidated=False) as store:
        assert Affine.from_gdal(*map(float, store["spatial_ref"].attrs["GeoTransform"].split())) == at
        np.testing.assert_allclose(store["x"][[0, -1]], [432100.5, 432100.25 + 19.75])
