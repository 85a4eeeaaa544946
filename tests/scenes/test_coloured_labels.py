"""Labels whose colours stand for classes: RGB(A) masks and palettes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from PIL import Image, ImageColor

from segbatch.classes import ClassTable, LabelMap
from segbatch.errors import InputError, SceneReadError
from segbatch.geometry import Window
from segbatch.scenes import LabelReader, SceneInfo, check_label, open_scene

MakeRaster = Callable[..., str]
SHAPE = (40, 60)
CLASSES = ClassTable.from_items([("water", "#1f78b4"), ("forest", "#33a02c"), ("town", "#e31a1c")])
OWN = LabelMap.from_names(None, CLASSES)
GIVEN = LabelMap.from_names({"#0000FF": "water", "#00ff00": "forest", "#ff0000": "town"}, CLASSES)
PAINTS = ("#0000ff", "#00ff00", "#ff0000")
IDS = np.random.default_rng(0).integers(0, 3, SHAPE, np.uint8)


@pytest.fixture
def scene(tmp_path: Path, make_raster: MakeRaster) -> SceneInfo:
    with open_scene(make_raster(tmp_path / "scene.tif", np.zeros(SHAPE, np.uint8))) as reader:
        return reader.info


def painted(ids: np.ndarray, colors: tuple[str, ...]) -> np.ndarray:
    """(3, height, width) uint8."""
    table = np.array([ImageColor.getrgb(color) for color in colors], np.uint8)
    return np.moveaxis(table[ids], -1, 0)


def ids_of(scene: SceneInfo, label: str, label_map: LabelMap, note: str = "") -> np.ndarray:
    assert check_label(scene, label, label_map) == note
    with LabelReader(label, label_map, scene) as reader:
        found = reader.read(scene.window)
        part = Window(7, 5, 20, 30)
        np.testing.assert_array_equal(reader.read(part), found[part.slices])
        np.testing.assert_array_equal(reader.thumbnail(100), found)
    assert found.dtype == np.uint8
    return found


def refusal(scene: SceneInfo, label: str, label_map: LabelMap) -> str:
    with pytest.raises(InputError) as caught:
        check_label(scene, label, label_map)
    assert label in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize(("label_map", "colors"), [(OWN, CLASSES.colors), (GIVEN, PAINTS)], ids=["own", "given"])
def test_colours_are_classes(
    tmp_path: Path, make_raster: MakeRaster, scene: SceneInfo, ending: str, label_map: LabelMap, colors: tuple[str, ...]
) -> None:
    label = make_raster(tmp_path / f"label.{ending}", painted(IDS, colors))
    np.testing.assert_array_equal(ids_of(scene, label, label_map), IDS)


@pytest.mark.parametrize("tagged", ["alpha", "undefined"])
def test_what_is_transparent_has_no_label(
    tmp_path: Path, make_raster: MakeRaster, scene: SceneInfo, tagged: str
) -> None:
    """Whatever colour lies beneath; half transparent edges are visible."""
    alpha = np.random.default_rng(1).choice(np.array([0, 90, 255], np.uint8), SHAPE)
    colors = painted(IDS, CLASSES.colors)
    colors[:, alpha == 0] = 77
    path = make_raster(
        tmp_path / "label.tif", np.concatenate([colors, alpha[None]]), colorinterp=["red", "green", "blue", tagged]
    )
    np.testing.assert_array_equal(ids_of(scene, path, OWN), np.where(alpha == 0, 255, IDS))


def test_unknown_colours_are_refused_unless_colours_are_given(
    tmp_path: Path, make_raster: MakeRaster, scene: SceneInfo
) -> None:
    colors = painted(IDS, PAINTS)
    colors[:, 3, 4] = (1, 2, 3)
    label = make_raster(tmp_path / "label.png", colors)
    message = refusal(scene, label, OWN)
    assert "colours without a class: #0000ff, #00ff00, #010203, #ff0000." in message
    assert "Classes are water #1f78b4, forest #33a02c, town #e31a1c; map others with label_values, in quotes" in message
    expected = IDS.copy()
    expected[3, 4] = 255
    np.testing.assert_array_equal(ids_of(scene, label, GIVEN), expected)


def test_a_rare_unknown_colour_is_found_when_it_is_read(tmp_path: Path, make_raster: MakeRaster) -> None:
    shape = (2500, 2500)
    colors = painted(np.zeros(shape, np.uint8), CLASSES.colors)
    colors[:, 1201, 1201] = 9
    label = make_raster(tmp_path / "label.tif", colors, compress="deflate")
    with open_scene(make_raster(tmp_path / "scene.tif", np.zeros(shape, np.uint8), compress="deflate")) as reader:
        info = reader.info
    check_label(info, label, OWN)
    with (
        LabelReader(label, OWN, info) as reader,
        pytest.raises(SceneReadError, match="colours without a class: #090909"),
    ):
        reader.read(Window(1000, 1000, 500, 500))


@pytest.mark.parametrize("how", ["jpg", "tif"])
@pytest.mark.parametrize(("label_map", "colors"), [(OWN, CLASSES.colors), (GIVEN, PAINTS)], ids=["own", "given"])
def test_lossy_files_are_refused_even_where_colours_are_given(
    tmp_path: Path, make_raster: MakeRaster, scene: SceneInfo, how: str, label_map: LabelMap, colors: tuple[str, ...]
) -> None:
    options: dict[str, Any] = {"compress": "jpeg", "photometric": "ycbcr"} if how == "tif" else {}
    label = make_raster(tmp_path / f"label.{how}", painted(IDS, colors), **options)
    message = refusal(scene, label, label_map)
    assert message.endswith("It is compressed with loss, which changes colours: save labels as PNG or TIFF.")


def test_lossy_values_are_refused_too(tmp_path: Path, make_raster: MakeRaster, scene: SceneInfo) -> None:
    label = make_raster(tmp_path / "label.jpg", IDS * 100)
    message = refusal(scene, label, LabelMap.from_names({0: "water", 100: "forest", 200: "town"}, CLASSES))
    assert "It is compressed with loss, which changes values" in message


def test_noise_of_a_lossy_past_is_told(tmp_path: Path, make_raster: MakeRaster, scene: SceneInfo) -> None:
    noisy = np.clip(painted(IDS, PAINTS).astype(int) + np.random.default_rng(0).integers(-2, 3, (3, *SHAPE)), 0, 255)
    noisy[:, :20] = painted(IDS, PAINTS)[:, :20]
    label = make_raster(tmp_path / "label.png", noisy.astype(np.uint8))
    assert "So many come of smoothed edges or lossy compression" in refusal(scene, label, OWN)
    note = check_label(scene, label, GIVEN)
    assert "colours that label_values does not name (#0000fd, " in note
    assert "they are ignored" in note


def test_nodata_is_ignored_unless_it_is_a_given_colour(
    tmp_path: Path, make_raster: MakeRaster, scene: SceneInfo
) -> None:
    colors = painted(IDS, ("#000000", "#00ff00", "#ff0000"))
    label = make_raster(tmp_path / "label.tif", colors, nodata=0)
    np.testing.assert_array_equal(ids_of(scene, label, GIVEN), np.where(IDS == 0, 255, IDS))
    black = LabelMap.from_names({"#000000": "water", "#00ff00": "forest", "#ff0000": "town"}, CLASSES)
    np.testing.assert_array_equal(ids_of(scene, label, black), IDS)


def test_a_coloured_mask_on_another_grid_is_resampled(tmp_path: Path, make_raster: MakeRaster) -> None:
    at = Affine(1, 0, 400_000, 0, -1, 4_000_000)
    place = {"crs": "EPSG:26918"}
    with open_scene(make_raster(tmp_path / "scene.tif", np.zeros(SHAPE, np.uint8), transform=at, **place)) as reader:
        info = reader.info
    shifted = at @ Affine.translation(3, 0)
    alpha = np.where(IDS == 2, 0, 255).astype(np.uint8)[None]
    for name, bands in (("rgb", painted(IDS, PAINTS)), ("rgba", np.concatenate([painted(IDS, PAINTS), alpha]))):
        label = make_raster(tmp_path / f"{name}.tif", bands, transform=shifted, photometric="rgb", **place)
        found = ids_of(info, label, GIVEN, f"Label {label} covers 95.0% of its scene: the other pixels have no label.")
        expected = IDS[:, :-3] if name == "rgb" else np.where(IDS == 2, 255, IDS)[:, :-3]
        np.testing.assert_array_equal(found[:, 3:], expected)
        assert (found[:, :3] == 255).all()


# --- palettes ---


@pytest.fixture
def palette(tmp_path: Path) -> str:
    """A PNG whose values 4, 7 and 9 have the colours of PAINTS."""
    picture = Image.fromarray(np.array([4, 7, 9], np.uint8)[IDS])
    table = np.arange(768, dtype=np.uint8).reshape(256, 3)
    for value, color in zip((4, 7, 9), PAINTS, strict=True):
        table[value] = ImageColor.getrgb(color)
    picture.putpalette(table.tobytes())
    picture.save(tmp_path / "label.png")
    return str(tmp_path / "label.png")


def test_a_palette_goes_by_colours_where_only_colours_are_given(scene: SceneInfo, palette: str) -> None:
    np.testing.assert_array_equal(ids_of(scene, palette, GIVEN), IDS)
    two = LabelMap.from_names({"#0000ff": "town", "#ff0000": "water", "lake": "water"}, CLASSES)
    np.testing.assert_array_equal(ids_of(scene, palette, two), np.array([2, 255, 0], np.uint8)[IDS])


def test_a_palette_goes_by_values_otherwise(scene: SceneInfo, palette: str) -> None:
    both = LabelMap.from_names({4: "town", 9: "water", "#00ff00": "forest"}, CLASSES)
    np.testing.assert_array_equal(ids_of(scene, palette, both), np.array([2, 255, 0], np.uint8)[IDS])
    message = refusal(scene, palette, OWN)
    assert "values without a class: 4, 7, 9. Classes are 0 to 2" in message


def test_colours_given_do_not_change_rasters_without_a_palette(
    tmp_path: Path, make_raster: MakeRaster, scene: SceneInfo
) -> None:
    """So that one configuration may have coloured masks and class ids."""
    np.testing.assert_array_equal(ids_of(scene, make_raster(tmp_path / "ids.tif", IDS), GIVEN), IDS)
