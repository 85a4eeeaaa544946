"""Labels: what does not fit its scene is refused, the rest is read as class ids."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject, transform

from segbatch.classes import LabelMap
from segbatch.errors import InputError, SceneReadError
from segbatch.geometry import Window
from segbatch.scenes import LabelReader, SceneInfo, check_label, open_scene
from segbatch.scenes.raster_labels import same_grid

MakeRaster = Callable[..., str]
SHAPE = (30, 41)
GRID: dict[str, Any] = {"crs": "EPSG:26918", "transform": Affine(1, 0, 400_000, 0, -1, 4_000_000)}
THREE = LabelMap(3)


def class_ids(shape: tuple[int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 3, shape, np.uint8)


@pytest.fixture
def scene(tmp_path: Path, make_raster: MakeRaster) -> SceneInfo:
    path = make_raster(tmp_path / "scene.tif", np.zeros((3, *SHAPE), np.uint8), **GRID)
    with open_scene(path) as reader:
        return reader.info


def info_of(path: str) -> SceneInfo:
    """Of a scene on the very grid of its label."""
    with open_scene(path) as reader:
        return reader.info


def refusal(scene: SceneInfo, label: str, label_map: LabelMap = THREE) -> str:
    with pytest.raises(InputError) as caught:
        check_label(scene, label, label_map)
    assert label in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("grid", [GRID, {}], ids=["same grid", "no map"])
def test_a_label_that_fits_is_accepted(
    tmp_path: Path, make_raster: MakeRaster, scene: SceneInfo, grid: dict[str, object]
) -> None:
    label = make_raster(tmp_path / "label.tif", class_ids(), **grid)
    check_label(scene, label, THREE)
    assert "values without a class: 2" in refusal(scene, label, LabelMap(2))  # so it was looked at


def test_without_a_map_another_size_is_refused(tmp_path: Path, make_raster: MakeRaster, scene: SceneInfo) -> None:
    message = refusal(scene, make_raster(tmp_path / "label.tif", class_ids((41, 30))))
    assert "is 30 x 41 pixels" in message
    assert "41 x 30" in message


def test_a_label_of_another_place_is_refused(tmp_path: Path, make_raster: MakeRaster, scene: SceneInfo) -> None:
    label = make_raster(tmp_path / "label.tif", class_ids(), **{**GRID, "crs": "EPSG:26917"})
    assert "lies elsewhere" in refusal(scene, label)
    beside = {**GRID, "transform": Affine(1, 0, 400_041, 0, -1, 4_000_000)}
    assert "lies elsewhere" in refusal(scene, make_raster(tmp_path / "beside.tif", class_ids(), **beside))


def test_a_label_of_the_whole_world_is_not_elsewhere(tmp_path: Path, make_raster: MakeRaster, scene: SceneInfo) -> None:
    world = {"crs": "EPSG:4326", "transform": Affine(0.5, 0, -180, 0, -0.5, 90)}
    label = make_raster(tmp_path / "label.tif", class_ids((360, 720)), **world)
    assert "resampling" in check_label(scene, label, THREE)
    with LabelReader(label, THREE, scene) as reader:
        found = reader.read(scene.window)
    longitude, latitude = transform(CRS.from_wkt(str(scene.crs)), "EPSG:4326", [400_020], [3_999_985])
    assert (found == class_ids((360, 720))[int((90 - latitude[0]) * 2), int((longitude[0] + 180) * 2)]).all()


GEOGRAPHIC = Affine(1e-5, 0, -76.1115, 0, -1e-5, 36.1398)
"""Of some 1 m a pixel, where the scene is."""


@pytest.mark.parametrize("nodata", [None, 0, 255], ids=lambda value: f"nodata {value}")
@pytest.mark.parametrize(
    "grid",
    [
        {"transform": Affine(1, 0, 400_001.5, 0, -1, 4_000_000)},
        {"transform": Affine(1, 0, 400_000, 0, -1, 4_000_000.3)},
        {"transform": Affine(1.7, 0, 399_990, 0, -1.3, 4_000_000)},
        {"transform": Affine(1, 0, 400_000, 0, 1, 3_999_980)},
        {"transform": GEOGRAPHIC, "crs": "EPSG:4326"},
    ],
    ids=["shifted", "shifted by a third", "coarser", "flipped", "another CRS"],
)
def test_a_label_on_another_grid_is_resampled(
    tmp_path: Path, make_raster: MakeRaster, scene: SceneInfo, grid: dict[str, Any], nodata: int | None
) -> None:
    """Against GDAL's warper on the whole label, and read in windows."""
    values, placed = class_ids((64, 53)), {**GRID, **grid}
    path = make_raster(tmp_path / "label.tif", values, nodata=nodata, **placed)
    label_map = LabelMap(3) if nodata != 0 else LabelMap(2, ((1, 0), (2, 1)))
    assert "resampling it by nearest neighbour" in check_label(scene, path, label_map)
    assert scene.crs is not None
    expected = np.full(SHAPE, 255, np.uint8)
    reproject(
        values, expected, src_crs=placed["crs"], src_transform=placed["transform"], dst_crs=CRS.from_wkt(scene.crs),
        dst_transform=scene.transform, resampling=Resampling.nearest, init_dest_nodata=False, tolerance=0,
    )  # fmt: skip
    if nodata == 0:
        expected = np.array([255, 0, 1] + [255] * 253, np.uint8)[expected]
    assert 0.2 < (expected != 255).mean() <= 1
    with LabelReader(path, label_map, scene) as reader:
        found = reader.read(scene.window)
        np.testing.assert_array_equal(found, expected)
        for part in (Window(0, 0, 7, 9), Window(20, 11, 21, 19), Window(40, 29, 1, 1)):
            np.testing.assert_array_equal(reader.read(part), expected[part.slices])
        assert reader.thumbnail(20).shape == (15, 20)


@pytest.mark.parametrize(
    ("at", "shape", "covered"),
    [
        ((0, 0), (15, 41), "50.0%"),
        ((11, 10), (20, 30), "48.8%"),
        ((-3, -2), (20, 20), "24.9%"),
        ((0, 0), (30, 40), "97.6%"),
        ((-5, -5), (60, 60), None),
        ((0, 0), SHAPE, None),
    ],
)
def test_a_label_on_the_scene_s_own_grid_is_cut_and_not_resampled(
    tmp_path: Path,
    make_raster: MakeRaster,
    scene: SceneInfo,
    at: tuple[int, int],
    shape: tuple[int, int],
    covered: str | None,
) -> None:
    """Which is no news where it covers the scene."""
    values, grid = class_ids(shape), {**GRID, "transform": GRID["transform"] @ Affine.translation(*at)}
    label = make_raster(tmp_path / "label.tif", values, **grid)
    note = f"Label {label} covers {covered} of its scene: the other pixels have no label."
    assert check_label(scene, label, THREE) == ("" if covered is None else note)
    expected = np.full((100, 100), 255, np.uint8)
    expected[20 + at[1] :, 20 + at[0] :][: shape[0], : shape[1]] = values
    with LabelReader(label, THREE, scene) as reader:
        np.testing.assert_array_equal(reader.read(scene.window), expected[20:, 20:][: SHAPE[0], : SHAPE[1]])


def test_a_label_that_lacks_a_line_of_a_large_scene_does_not_cover_all_of_it(
    tmp_path: Path, make_raster: MakeRaster, scene: SceneInfo
) -> None:
    large = replace(scene, width=9000, height=9000)
    label = make_raster(tmp_path / "label.tif", np.zeros((9000, 8999), np.uint8), compress="deflate", **GRID)
    assert "covers 99.9% of its scene" in check_label(large, label, THREE)


def test_what_a_label_on_another_grid_hides_or_does_not_reach_is_ignored(
    tmp_path: Path, make_raster: MakeRaster, scene: SceneInfo
) -> None:
    """Also where nodata is a class by label_values: outside the label there is none."""
    values, shown = class_ids(), np.random.default_rng(1).random(SHAPE) > 0.3
    placed = {**GRID, "transform": Affine(1, 0, 400_003, 0, -1, 4_000_000)}
    expected = np.full(SHAPE, 255, np.uint8)
    expected[:, 3:] = np.where(shown, values, 255)[:, :-3]
    with LabelReader(make_raster(tmp_path / "masked.tif", values, mask=shown, **placed), THREE, scene) as reader:
        np.testing.assert_array_equal(reader.read(scene.window), expected)
    mapped = LabelMap(3, ((0, 0), (1, 1), (2, 2)))
    with LabelReader(make_raster(tmp_path / "label.tif", values, nodata=0, **placed), mapped, scene) as reader:
        found = reader.read(scene.window)
    np.testing.assert_array_equal(found[:, 3:], values[:, :-3])
    assert (found[:, :3] == 255).all()


def test_a_transform_rounded_by_another_program_is_the_same_grid(
    tmp_path: Path, make_raster: MakeRaster, scene: SceneInfo
) -> None:
    rounded = {**GRID, "transform": Affine(1, 0, 400_000.004, 0, -1, 3_999_999.996)}
    with open_scene(make_raster(tmp_path / "label.tif", class_ids(), **rounded)) as label:
        assert same_grid(scene, label.info)


def test_float_labels_are_refused(tmp_path: Path, make_raster: MakeRaster, scene: SceneInfo) -> None:
    label = make_raster(tmp_path / "label.tif", class_ids().astype(np.float32), **GRID)
    assert "holds float32" in refusal(scene, label)


@pytest.mark.parametrize(("bands", "dtype"), [(2, np.uint8), (3, np.uint16), (5, np.uint8)])
def test_labels_of_bands_that_are_no_colours_are_refused(
    tmp_path: Path, make_raster: MakeRaster, scene: SceneInfo, bands: int, dtype: type
) -> None:
    label = make_raster(tmp_path / "label.tif", np.zeros((bands, *SHAPE), dtype), **GRID)
    assert f"has {bands} bands of {np.dtype(dtype)}" in refusal(scene, label)


def test_unknown_values_are_refused_by_value(tmp_path: Path, make_raster: MakeRaster, scene: SceneInfo) -> None:
    values = class_ids().astype(np.int16)
    values[0, :5] = [-1, 7, 300, 255, 9]
    label = make_raster(tmp_path / "label.tif", values, **GRID)
    message = refusal(scene, label)
    assert "without a class: -1, 7, 9, 300." in message
    assert "Classes are 0 to 2" in message
    assert "label_values" in message
    check_label(scene, label, LabelMap(3, ((7, 0), (300, 1))))


def test_many_unknown_values_are_cut_short(tmp_path: Path, make_raster: MakeRaster, scene: SceneInfo) -> None:
    values = np.arange(SHAPE[0] * SHAPE[1], dtype=np.uint16).reshape(SHAPE)
    message = refusal(scene, make_raster(tmp_path / "label.tif", values, **GRID))
    assert "without a class: 3, 4, 5, 6, 7, 8, 9, 10, ...." in message


def test_a_missing_or_damaged_label_is_refused(tmp_path: Path, make_raster: MakeRaster, scene: SceneInfo) -> None:
    assert "does not exist" in refusal(scene, str(tmp_path / "none.tif"))
    # Deflated noise in more than one strip, so that something is missing behind the header.
    noise = np.random.default_rng(0).integers(0, 3, SHAPE, np.uint8)
    damaged = make_raster(tmp_path / "label.tif", noise, compress="deflate", blockysize=8, **GRID)
    os.truncate(damaged, os.path.getsize(damaged) - 200)
    assert "is damaged" in refusal(scene, damaged)


@given(data=st.data())
def test_windows_are_read_as_class_ids(
    tmp_path_factory: pytest.TempPathFactory, make_raster: MakeRaster, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "windows_of_labels.tif"
    stored = np.random.default_rng(1).integers(-3, 9, SHAPE).astype(np.int16)
    if not path.exists():
        make_raster(path, stored)
    col_off, row_off = data.draw(st.integers(0, SHAPE[1] - 1)), data.draw(st.integers(0, SHAPE[0] - 1))
    width, height = data.draw(st.integers(1, SHAPE[1] - col_off)), data.draw(st.integers(1, SHAPE[0] - row_off))
    window = Window(col_off, row_off, width, height)
    with LabelReader(str(path), LabelMap(2, ((-3, 1), (8, 0))), info_of(str(path))) as reader:
        ids = reader.read(window)
    part = stored[window.slices]
    assert ids.dtype == np.uint8
    np.testing.assert_array_equal(ids, np.select([part == -3, part == 8], [1, 0], 255))


def test_nodata_is_ignored_unless_it_is_mapped(tmp_path: Path, make_raster: MakeRaster) -> None:
    path = make_raster(tmp_path / "label.tif", np.array([[0, 1, 2]], np.uint8), nodata=0)
    row = Window(0, 0, 3, 1)
    assert LabelReader(path, THREE, info_of(path)).read(row).tolist() == [[255, 1, 2]]
    assert LabelReader(path, LabelMap(2, ((0, 1), (2, 0))), info_of(path)).read(row).tolist() == [[1, 255, 0]]


def test_what_alpha_or_a_mask_hides_is_ignored(tmp_path: Path, make_raster: MakeRaster, scene: SceneInfo) -> None:
    """Whatever is stored beneath, be it a class, a mapped value or no class at all."""
    values, shown = class_ids(), np.random.default_rng(1).random(SHAPE) > 0.3
    values[~shown] = np.random.default_rng(2).choice([0, 1, 77], np.count_nonzero(~shown))
    masked = make_raster(tmp_path / "masked.tif", values, mask=shown, **GRID)
    alpha = np.stack([values, shown * np.uint8(255)])
    with_alpha = make_raster(tmp_path / "alpha.png", alpha, colorinterp=["gray", "alpha"])
    for path in (masked, with_alpha):
        check_label(scene, path, THREE)
        with LabelReader(path, THREE, info_of(path)) as reader:
            np.testing.assert_array_equal(reader.read(scene.window), np.where(shown, values, 255))
        with LabelReader(path, LabelMap(2, ((1, 0), (2, 1))), info_of(path)) as reader:
            expected = np.select([~shown, values == 1, values == 2], [255, 0, 1], 255)
            np.testing.assert_array_equal(reader.read(scene.window), expected)


def test_a_rare_unknown_value_is_found_when_it_is_read(tmp_path: Path, make_raster: MakeRaster) -> None:
    """The check before a run looks at a shrunken copy; a single pixel slips through it."""
    shape = (2500, 2500)
    values = np.zeros(shape, np.uint8)
    values[1201, 1201] = 9
    path = make_raster(tmp_path / "label.tif", values, compress="deflate")
    with open_scene(make_raster(tmp_path / "scene.tif", np.zeros(shape, np.uint8), compress="deflate")) as reader:
        check_label(reader.info, path, THREE)
    with LabelReader(path, THREE, info_of(path)) as reader:
        assert not reader.read(Window(0, 0, 500, 500)).any()
        with pytest.raises(SceneReadError, match=r"label\.tif has values without a class: 9"):
            reader.read(Window(1000, 1000, 500, 500))


def test_a_thumbnail_holds_class_ids(tmp_path: Path, make_raster: MakeRaster) -> None:
    values = np.repeat(np.array([[10], [20]], np.uint16), 50, axis=0) * np.ones((1, 60), np.uint16)
    path = make_raster(tmp_path / "label.tif", values)
    with LabelReader(path, LabelMap(2, ((10, 0), (20, 1))), info_of(path)) as reader:
        small = reader.thumbnail(30)
    assert (small.dtype, small.shape) == (np.dtype(np.uint8), (30, 18))
    assert not small[:15].any()
    assert (small[15:] == 1).all()


def test_a_class_id_that_is_also_nodata_must_be_settled_by_label_values(
    tmp_path: Path, make_raster: MakeRaster, scene: SceneInfo
) -> None:
    label = make_raster(tmp_path / "label.tif", class_ids(), nodata=0, **GRID)
    assert "0 is nodata, but it is a class id too" in refusal(scene, label)
    check_label(scene, label, LabelMap(3, ((0, 0), (1, 1), (2, 2))))
