"""The demo's files, read with rasterio."""

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from segbatch.classes import IGNORE_INDEX
from segbatch.demo import CLASSES, DemoFiles, LabelledImage, make_landscape, write_demo
from segbatch.demo.places import PREDICT, TRAIN, VALIDATE
from segbatch.errors import InputError
from segbatch.scenes import open_scene

PLACES = (*TRAIN, *VALIDATE, *PREDICT)


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> DemoFiles:
    return write_demo(tmp_path_factory.mktemp("demo"))


def _all(demo: DemoFiles) -> list[LabelledImage]:
    return [*demo.train, *demo.validate, *demo.predict]


def test_there_are_places_for_each_role(demo):
    assert len(demo.train) >= 2
    assert len(demo.validate) == len(demo.predict) == 1
    files = [path for place in _all(demo) for path in (place.image, place.label)]
    assert len(set(files)) == 2 * len(PLACES)


def test_files_hold_the_landscape(demo):
    place, files = TRAIN[0], demo.train[0]
    image, label = make_landscape(place.seed, place.width, place.height)
    with rasterio.open(files.image) as source:
        np.testing.assert_array_equal(source.read(), image)
    with rasterio.open(files.label) as source:
        np.testing.assert_array_equal(source.read(1), label)


def test_images_say_what_they_are(demo):
    for place, files in zip(PLACES, _all(demo), strict=True):
        with rasterio.open(files.image) as source:
            assert (source.driver, source.width, source.height) == ("GTiff", place.width, place.height)
            assert source.dtypes == ("uint8",) * 4
            assert source.descriptions == ("red", "green", "blue", "nir")
            assert source.nodatavals == (0.0,) * 4
            assert source.colorinterp[:3] == (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
            assert ColorInterp.alpha not in source.colorinterp
            assert source.block_shapes == [(256, 256)] * 4
            assert source.compression.name == "deflate"


def test_labels_say_what_they_are(demo):
    palette = CLASSES.palette()
    for place, files in zip(PLACES, _all(demo), strict=True):
        with rasterio.open(files.label) as source:
            assert (source.count, source.width, source.height) == (1, place.width, place.height)
            assert source.nodata == IGNORE_INDEX
            colors = source.colormap(1)
            assert [colors[i][:3] for i in range(len(CLASSES))] == [tuple(palette[i]) for i in range(len(CLASSES))]


def test_image_and_label_lie_on_each_other_and_places_apart(demo):
    bounds = []
    for files in _all(demo):
        with rasterio.open(files.image) as image, rasterio.open(files.label) as label:
            assert image.crs.to_epsg() == label.crs.to_epsg() == 32632
            assert image.transform == label.transform
            assert image.res == (0.5, 0.5)
            # The data mask that any reader derives from nodata is where the label is known.
            np.testing.assert_array_equal(image.dataset_mask() > 0, label.read(1) != IGNORE_INDEX)
            bounds.append(image.bounds)
    for index, a in enumerate(bounds):
        for b in bounds[index + 1 :]:
            assert rasterio.coords.disjoint_bounds(a, b)


def test_segbatch_reads_four_bands_and_the_valid_mask(demo):
    files = demo.predict[0]
    with open_scene(str(files.image)) as scene, rasterio.open(files.label) as label:
        assert scene.info.data_bands == (1, 2, 3, 4)
        pixels = scene.read(scene.info.window, scene.info.data_bands)
        np.testing.assert_array_equal(pixels.valid, label.read(1) != IGNORE_INDEX)


@pytest.fixture
def small(monkeypatch):
    """The demo shrunk to two quick places."""
    from dataclasses import replace

    from segbatch.demo import places

    monkeypatch.setattr(places, "TRAIN", (replace(TRAIN[0], width=300, height=260),))
    monkeypatch.setattr(places, "VALIDATE", ())
    monkeypatch.setattr(places, "PREDICT", (replace(PREDICT[0], width=261, height=300),))


def _stamps(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.rglob("*") if path.is_file()}


def test_a_second_run_leaves_whole_files_alone(small, tmp_path):
    first = write_demo(tmp_path)
    before = _stamps(tmp_path)
    assert len(before) == 4, "two images, two labels and nothing partial"
    assert write_demo(tmp_path) == first
    assert _stamps(tmp_path) == before


@pytest.mark.parametrize("damage", ["missing", "truncated", "other pixels", "not an image"])
def test_a_damaged_file_is_made_anew(small, tmp_path, damage):
    files = write_demo(tmp_path).train[0]
    with rasterio.open(files.image) as source:
        image = source.read()
    untouched = _stamps(tmp_path / "images")
    if damage == "missing":
        files.image.unlink()
    elif damage == "truncated":
        files.image.write_bytes(files.image.read_bytes()[:-5000])
    elif damage == "other pixels":
        with rasterio.open(files.image, "r+") as target:
            target.write(255 - image)
    else:
        files.image.write_text("not an image")
    write_demo(tmp_path)
    with rasterio.open(files.image) as source:
        np.testing.assert_array_equal(source.read(), image)
    del untouched[files.image]
    assert untouched.items() <= _stamps(tmp_path / "images").items()


def test_a_folder_that_cannot_be_written_is_named(small, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(InputError, match=r"file cannot be written"):
        write_demo(blocked)
