"""Pictures: stretch, colours, sizes, and what cannot be read."""

import base64
import io

import numpy as np
import pytest
from affine import Affine
from PIL import Image

from segbatch.classes import IGNORE_INDEX, NODATA, ClassTable, LabelMap
from segbatch.geometry import Window
from segbatch.masks import CogSpec, Pyramid, create_store, write_block, write_cog, write_part
from segbatch.report.figures import class_rgb, image_rgb, panel_png, scene_tiles, tile_uri
from segbatch.scenes import Pixels

CLASSES = ClassTable.from_items([("water", "#1f78b4"), ("forest", "#33a02c"), ("road", "#444444")])
COLORS = np.array([[0x1F, 0x78, 0xB4], [0x33, 0xA0, 0x2C], [0x44, 0x44, 0x44]], np.uint8)
LABELS = LabelMap(3)


def is_light_grey(rgb):
    return (rgb >= 220).all() and (rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 1] == rgb[..., 2]).all()


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_bands_are_stretched_between_percentiles_of_valid_pixels(dtype):
    values = np.linspace(100, 5000, 100 * 100).reshape(1, 100, 100).astype(dtype)
    valid = np.ones((100, 100), bool)
    valid[:50] = False
    values[0, :50] = 30000  # a fill value, which must not count
    rgb = image_rgb(Pixels(values, valid))
    low, high = np.percentile(values[0, 50:], (2, 98))
    expected = np.clip((values[0, 50:].astype(float) - low) / (high - low), 0, 1) * 255
    assert rgb.dtype == np.uint8
    assert (rgb[..., 0] == rgb[..., 2]).all()  # one band is grey
    np.testing.assert_allclose(rgb[50:, :, 0], expected, atol=0.51)
    assert is_light_grey(rgb[:50])


def test_bright_uint8_is_shown_as_it_is_and_dark_uint8_is_stretched(random_ids):
    bright = np.random.default_rng(0).integers(0, 256, (3, 20, 20), dtype=np.uint8)
    valid = np.ones((20, 20), bool)
    np.testing.assert_array_equal(image_rgb(Pixels(bright, valid)), np.moveaxis(bright, 0, -1))
    dark = image_rgb(Pixels(bright // 10, valid))
    assert (dark.min(), dark.max()) == (0, 255)


@pytest.mark.parametrize("value", [0.0, 7.5, -3.0])
def test_constant_and_invalid_images_are_shown(value):
    constant = image_rgb(Pixels(np.full((1, 4, 4), value, np.float32), np.ones((4, 4), bool)))
    assert (constant == 128).all()
    assert is_light_grey(image_rgb(Pixels(np.full((1, 4, 4), np.nan, np.float32), np.zeros((4, 4), bool))))


def test_classes_have_their_colours():
    ids = np.array([[0, 1, 2], [IGNORE_INDEX, 1, NODATA]], np.uint8)
    rgb = class_rgb(ids, CLASSES)
    np.testing.assert_array_equal(rgb[0], COLORS)
    assert is_light_grey(rgb[1, [0, 2]])


@pytest.fixture
def scene(tmp_path, make_scene, make_raster):
    """A scene of 90 x 60 pixels whose label is the class mask but for one corner."""
    mask = np.repeat(np.arange(3, dtype=np.uint8), 30)[None].repeat(60, axis=0)
    mask[:10, :10] = NODATA
    label = np.where(mask == NODATA, 1, mask).astype(np.uint8)
    image = np.zeros((4, 60, 90), np.uint8)
    image[0], image[1], image[2] = 200, 150, 100
    return make_scene(
        mask,
        label,
        image=make_raster(tmp_path / "image.tif", image, names=("red", "green", "blue", "nir")),
        label_path=make_raster(tmp_path / "label.tif", label),
        mask_path=make_raster(tmp_path / "mask.tif", mask, nodata=NODATA),
    )


def test_tiles_show_image_label_and_class_mask(scene):
    image, label, mask = scene_tiles(scene, CLASSES, LABELS)
    assert [tile.caption for tile in (image, label, mask)] == ["image", "label", "class mask"]
    assert {tile.pixels.shape for tile in (image, label, mask)} == {(60, 90, 3)}
    assert (image.pixels == [200, 150, 100]).all()
    assert (label.pixels[0, 0] == COLORS[1]).all()
    assert is_light_grey(mask.pixels[:10, :10])
    np.testing.assert_array_equal(mask.pixels[10:], label.pixels[10:])


def test_large_scenes_shrink_to_one_size(scene):
    tiles = scene_tiles(scene, CLASSES, LABELS, max_side=30)
    assert {tile.pixels.shape for tile in tiles} == {(20, 30, 3)}
    picture = Image.open(io.BytesIO(panel_png(tiles)))
    assert picture.height == 20
    assert 3 * 30 < picture.width < 3 * 30 + 40


def test_bands_to_show_are_chosen_by_name(scene):
    image = scene_tiles(scene, CLASSES, LABELS, bands=["blue", "green", "red"])[0]
    assert (image.pixels == [100, 150, 200]).all()


def test_fill_value_of_the_configuration_is_nodata(tmp_path, make_scene, make_raster):
    values = np.full((1, 20, 20), 180, np.uint8)
    values[0, :5] = 9
    scene = make_scene(np.zeros((20, 20), np.uint8), image=make_raster(tmp_path / "image.tif", values))
    image = scene_tiles(scene, CLASSES, LABELS, nodata=9)[0]
    assert is_light_grey(image.pixels[:5])
    assert (image.pixels[5:] == 180).all()


def test_zarr_and_cog_masks_give_one_picture(tmp_path, make_scene, random_ids):
    mask = random_ids(0, [0, 1, 2, NODATA], (150, 200))
    store, cog = tmp_path / "mask.zarr", tmp_path / "mask.tif"
    about = {"classes": CLASSES, "crs": None, "transform": Affine.identity(), "pixel_size_um": None}
    create_store(store, width=200, height=150, shard=(128, 128), chunk=(64, 64), **about)
    for row in (0, 128):
        for col in (0, 128):
            part = mask[row : row + 128, col : col + 128]
            write_block(store, Window(col, row, part.shape[1], part.shape[0]), part)
    pyramid = Pyramid(200, 150, (150, 200), resampling="nearest")
    write_part(tmp_path / "parts", pyramid, Window(0, 0, 200, 150), mask)
    write_cog(tmp_path / "parts", cog, pyramid, CogSpec.class_mask(CLASSES, None, Affine.identity(), None))
    for path in (store, cog):
        tile = scene_tiles(make_scene(mask, mask_path=str(path)), CLASSES, LABELS)[-1]
        assert tile.problem is None
        np.testing.assert_array_equal(tile.pixels, class_rgb(mask, CLASSES))


def test_what_cannot_be_read_says_why(tmp_path, make_scene):
    (tmp_path / "label.tif").write_bytes(b"not a TIFF")
    scene = make_scene(
        np.zeros((300, 400), np.uint8),
        image=str(tmp_path / "gone.tif"),
        label_path=str(tmp_path / "label.tif"),
        mask_path=None,
    )
    image, label, mask = scene_tiles(scene, CLASSES, LABELS)
    assert image.problem == f"{tmp_path / 'gone.tif'} does not exist."
    assert "cannot be read as an image" in label.problem
    assert mask.problem == "no class mask was kept"
    picture = np.asarray(Image.open(io.BytesIO(panel_png([image, label, mask]))))
    assert picture.shape[0] == 300
    assert (picture[:, :400] < 120).any()  # the reason is lettered onto the grey


def test_tile_uri_decodes_to_the_tile(scene):
    image, _, mask = scene_tiles(scene, CLASSES, LABELS)
    head, data = tile_uri(mask).split(",")
    assert head == "data:image/png;base64"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), mask.pixels)
    head, data = tile_uri(image).split(",")
    assert head == "data:image/jpeg;base64"
    decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).astype(int)
    assert abs(decoded - image.pixels).max() <= 4
