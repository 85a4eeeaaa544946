"""The COG against GDAL (through rasterio), rio-cogeo and numpy."""

import json
import subprocess
import sys
import textwrap
import warnings
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rio_cogeo.cogeo import cog_validate

from segbatch.classes import ClassTable
from segbatch.errors import InputError, SegbatchError
from segbatch.geometry import Window
from segbatch.masks import cog, create_store, read_cog_classes, write_block, write_cog

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

CLASSES = ClassTable(("open water", "forêt & <wood>", "bare"), ("#1f78b4", "#33a02c", "#b15928"))
UTM = CRS.from_epsg(32633).to_wkt()
NORTH_UP = Affine(0.6, 0, 399960.3, 0, -0.6, 5000040.7)
SHARD = (160, 96)


def make_store(path: Path, mask: NDArray[np.uint8]) -> Path:
    height, width = mask.shape
    create_store(
        path, width=width, height=height, shard=SHARD, chunk=(32, 96), classes=CLASSES, crs=None,
        transform=Affine.identity(), pixel_size_um=None,
    )  # fmt: skip
    for row in range(0, height, SHARD[0]):
        for col in range(0, width, SHARD[1]):
            window = Window(col, row, min(SHARD[1], width - col), min(SHARD[0], height - row))
            write_block(path, window, mask[window.slices])
    return path


def make_cog(store: Path, out: Path, **changes: Any) -> Path:
    arguments: dict[str, Any] = {
        "classes": CLASSES,
        "crs": UTM,
        "transform": NORTH_UP,
        "pixel_size_um": None,
        "overviews": "mode",
    }
    write_cog(store, out, **(arguments | changes))
    return out


def patchy_mask(height: int, width: int) -> NDArray[np.uint8]:
    rows, cols = np.mgrid[:height, :width]
    mask: NDArray[np.uint8] = ((rows // 7 + cols // 5) % 3).astype(np.uint8)
    mask[np.random.default_rng(0).random((height, width)) < 0.1] = 2
    mask[(rows - height / 2) ** 2 + (cols - width / 2) ** 2 > (0.45 * (height + width)) ** 2 / 2] = 255
    return mask


def names_in_folder(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def category_names_by_gdal(path: Path) -> list[str | None]:
    vrt = path.parent / "names.vrt"
    rasterio.shutil.copy(path, vrt, driver="VRT")
    names = [category.text for category in ET.parse(vrt).iterfind("VRTRasterBand/CategoryNames/Category")]
    vrt.unlink()
    return names


def test_a_map_is_a_valid_cog_that_describes_itself(tmp_path: Path) -> None:
    mask = patchy_mask(1301, 1107)
    out = make_cog(make_store(tmp_path / "s.zarr", mask), tmp_path / "out" / "s.tif")

    assert names_in_folder(out.parent) == ["s.tif", "s.tif.aux.xml"]
    valid, errors, warned = cog_validate(out, strict=True)
    assert (valid, errors, warned) == (True, [], [])
    with rasterio.open(out) as dataset:
        np.testing.assert_array_equal(dataset.read(1), mask)
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert dataset.tags(ns="IMAGE_STRUCTURE")["COMPRESSION"] == "DEFLATE"
        assert dataset.block_shapes == [(512, 512)]
        assert dataset.overviews(1) == [2, 4]
        assert dataset.nodata == 255
        assert dataset.crs == CRS.from_epsg(32633)
        assert dataset.transform == NORTH_UP
        colors = dataset.colormap(1)
        assert [colors[index] for index in range(3)] == [(31, 120, 180, 255), (51, 160, 44, 255), (177, 89, 40, 255)]
        assert colors[255][3] == 0
        assert json.loads(dataset.tags()["SEGBATCH_CLASSES"]) == CLASSES.to_json()
    assert category_names_by_gdal(out) == list(CLASSES.names)


@settings(max_examples=12, deadline=None)
@given(height=st.integers(1, 700), width=st.integers(1, 700))
@example(height=1, width=1)
@example(height=512, width=512)
@example(height=513, width=1)
def test_any_size_gives_a_valid_cog(height: int, width: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("cog")
    mask = np.random.default_rng(height * width).choice(np.array([0, 1, 2, 255], np.uint8), (height, width))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        out = make_cog(make_store(folder / "s.zarr", mask), folder / "s.tif")
        with rasterio.open(out) as dataset:
            np.testing.assert_array_equal(dataset.read(1), mask)
            assert bool(dataset.overviews(1)) == (max(height, width) > 512)
            assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        # rio-cogeo takes an overview's decimation from the widths, which says nothing of a scene one pixel wide.
        if width > 1 or height <= 512:
            assert cog_validate(out, strict=True) == (True, [], [])


def test_windows_smaller_than_the_scene_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = patchy_mask(1301, 1107)
    store = make_store(tmp_path / "s.zarr", mask)
    whole = make_cog(store, tmp_path / "whole.tif")
    monkeypatch.setattr(cog, "_STRIDE", 512)
    pieces = make_cog(store, tmp_path / "pieces.tif")
    assert pieces.read_bytes() == whole.read_bytes()
    with rasterio.open(pieces) as dataset:
        np.testing.assert_array_equal(dataset.read(1), mask)


def test_a_scene_of_nodata_alone(tmp_path: Path) -> None:
    out = make_cog(make_store(tmp_path / "s.zarr", np.full((600, 700), 255, np.uint8)), tmp_path / "s.tif")
    with rasterio.open(out) as dataset:
        assert (dataset.read(1) == 255).all()
        assert not dataset.read_masks(1).any()
    assert cog_validate(out, strict=True) == (True, [], [])


def mode_without_ties(mask: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Most frequent valid class of each 2 x 2 pixels, and where it is the only one."""
    height, width = mask.shape
    cells = mask.reshape(height // 2, 2, width // 2, 2).swapaxes(1, 2).reshape(height // 2, width // 2, 4)
    counts = np.stack([(cells == class_id).sum(axis=-1) for class_id in range(3)], axis=-1)
    mode = counts.argmax(axis=-1).astype(np.uint8)
    mode[counts.max(axis=-1) == 0] = 255
    ordered = np.sort(counts, axis=-1)
    return mode, (ordered[..., -1] > ordered[..., -2]) | (mode == 255)


def test_mode_overviews_hold_the_most_frequent_valid_class(tmp_path: Path) -> None:
    mask = np.random.default_rng(1).choice(np.array([0, 1, 2, 255], np.uint8), (600, 640), p=[0.4, 0.2, 0.1, 0.3])
    out = make_cog(make_store(tmp_path / "s.zarr", mask), tmp_path / "s.tif", overviews="mode")
    expected, decided = mode_without_ties(mask)
    assert decided.mean() > 0.5
    assert (expected == 255).any()
    with rasterio.open(out, overview_level=0) as overview:
        np.testing.assert_array_equal(overview.read(1)[decided], expected[decided])


def test_nearest_overviews_hold_pixels_of_the_mask(tmp_path: Path) -> None:
    mask = np.random.default_rng(1).choice(np.array([0, 1, 2, 255], np.uint8), (600, 640))
    out = make_cog(make_store(tmp_path / "s.zarr", mask), tmp_path / "s.tif", overviews="nearest")
    with rasterio.open(out, overview_level=0) as overview:
        small = overview.read(1)
    assert any(np.array_equal(small, mask[row::2, col::2]) for row in (0, 1) for col in (0, 1))


def test_a_micrograph_has_resolution_tags_and_no_map(tmp_path: Path) -> None:
    mask = patchy_mask(600, 700)
    out = make_cog(
        make_store(tmp_path / "s.zarr", mask), tmp_path / "s.tif", crs=None, transform=Affine.identity(),
        pixel_size_um=0.25,
    )  # fmt: skip
    with rasterio.open(out) as dataset:
        np.testing.assert_array_equal(dataset.read(1), mask)
        assert dataset.crs is None
        assert dataset.transform == Affine.identity()
        assert dataset.overviews(1) == [2]
        tags = dataset.tags()
    assert (float(tags["TIFFTAG_XRESOLUTION"]), float(tags["TIFFTAG_YRESOLUTION"])) == (40000, 40000)
    assert tags["TIFFTAG_RESOLUTIONUNIT"].startswith("3")  # pixels per centimetre


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (UTM, NORTH_UP @ Affine.rotation(30)),
        (CRS.from_epsg(4326).to_wkt(), Affine(1 / 3600, 0, 10.123456789, 0, -1 / 3600, 50)),
        (CRS.from_proj4("+proj=laea +lat_0=52.1 +lon_0=10.3 +ellps=bessel +units=m").to_wkt(), NORTH_UP),
        (None, Affine(2, 0, 7, 0, 2, 9)),
    ],
)
def test_crs_and_transform_are_the_scenes(tmp_path: Path, crs: str | None, transform: Affine) -> None:
    store = make_store(tmp_path / "s.zarr", patchy_mask(60, 70))
    out = make_cog(store, tmp_path / "s.tif", crs=crs, transform=transform)
    with rasterio.open(out) as dataset:
        assert dataset.transform == transform
        assert dataset.crs == (None if crs is None else CRS.from_wkt(crs))


def test_the_same_mask_gives_the_same_bytes(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", patchy_mask(700, 600))
    first, second = make_cog(store, tmp_path / "a" / "s.tif"), make_cog(store, tmp_path / "b" / "s.tif")
    for name in names_in_folder(first.parent):
        assert (first.parent / name).read_bytes() == (second.parent / name).read_bytes()


def test_leftovers_of_a_killed_process_are_removed_and_the_file_replaced(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", patchy_mask(700, 600))
    clean = make_cog(store, tmp_path / "clean" / "s.tif")
    folder = tmp_path / "out"
    killed = textwrap.dedent(
        """
        import os, signal, sys
        from affine import Affine
        from segbatch.masks import cog, read_classes, write_cog
        cog._verify = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        write_cog(sys.argv[1], sys.argv[2], classes=read_classes(sys.argv[1]), crs=None,
                  transform=Affine.identity(), pixel_size_um=None, overviews="mode")
        """
    )
    command = [sys.executable, "-c", killed, str(store), str(folder / "s.tif")]
    root = Path(__file__).parents[2]
    assert subprocess.run(command, cwd=root, capture_output=True, check=False).returncode == -9
    (leftover,) = names_in_folder(folder)
    assert leftover.startswith(".s.tif.")
    (folder / "s.tif").write_bytes(b"an older file")

    make_cog(store, folder / "s.tif")
    assert names_in_folder(folder) == names_in_folder(clean.parent)
    for name in names_in_folder(folder):
        assert (folder / name).read_bytes() == (clean.parent / name).read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
@pytest.mark.parametrize("missing", [1, 2_000, 40_000])
def test_a_full_disk_is_an_error_that_names_the_file(tmp_path: Path, missing: int) -> None:
    # GDAL is silent about the last few kilobytes, which it writes as it closes the file.
    mask = np.random.default_rng(0).integers(0, 3, (900, 900)).astype(np.uint8)
    store = make_store(tmp_path / "s.zarr", mask)
    plain = make_cog(store, tmp_path / "plain" / "s.tif", crs=None, transform=Affine.identity())
    limited = textwrap.dedent(
        """
        import resource, signal, sys
        from affine import Affine
        import rasterio.shutil
        from segbatch.errors import SegbatchError
        from segbatch.masks import cog, read_classes, write_cog
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        copy = rasterio.shutil.copy
        def limited_copy(*arguments, **options):
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
            try:
                copy(*arguments, **options)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        rasterio.shutil.copy = limited_copy
        try:
            write_cog(sys.argv[1], sys.argv[2], classes=read_classes(sys.argv[1]), crs=None,
                      transform=Affine.identity(), pixel_size_um=None, overviews="mode")
        except SegbatchError as error:
            print(error)
        """
    )
    folder = tmp_path / "out"
    limit = plain.stat().st_size - missing
    command = [sys.executable, "-c", limited, str(store), str(folder / "s.tif"), str(limit)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert f"{folder / 's.tif'} cannot be written: " in done.stdout
    assert names_in_folder(folder) == []


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", patchy_mask(60, 70))
    (tmp_path / "out").write_text("a file")
    with pytest.raises(SegbatchError, match=r"out/s\.tif cannot be written"):
        make_cog(store, tmp_path / "out" / "s.tif")


def test_a_missing_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.zarr is not a class mask"):
        make_cog(tmp_path / "none.zarr", tmp_path / "s.tif")
    assert names_in_folder(tmp_path) == []


def write_tiff(path: Path, colors: dict[int, tuple[int, int, int]] | None, names: list[str] | None) -> Path:
    """Somebody else's TIFF."""
    with rasterio.open(path, "w", driver="GTiff", width=4, height=4, count=1, dtype="uint8") as dataset:
        if colors is not None:
            dataset.write_colormap(1, colors)
        dataset.write(np.zeros((4, 4), np.uint8), 1)
    if names is not None:
        root = ET.Element("PAMDataset")
        categories = ET.SubElement(ET.SubElement(root, "PAMRasterBand", band="1"), "CategoryNames")
        for name in names:
            ET.SubElement(categories, "Category").text = name
        ET.ElementTree(root).write(path.with_name(f"{path.name}.aux.xml"))
    return path


def test_classes_come_back_without_the_sidecar(tmp_path: Path) -> None:
    out = make_cog(make_store(tmp_path / "s.zarr", patchy_mask(60, 70)), tmp_path / "s.tif")
    (tmp_path / "s.tif.aux.xml").unlink()
    assert read_cog_classes(out) == CLASSES


def test_classes_of_others_come_from_category_names_and_colours(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", {0: (0, 0, 0), 1: (31, 120, 180)}, ["", "water", "", ""])
    assert read_cog_classes(path) == ClassTable(("0", "water"), ("#000000", "#1f78b4"))


def test_classes_without_colours_get_some(tmp_path: Path) -> None:
    classes = read_cog_classes(write_tiff(tmp_path / "a.tif", None, ["land", "water"]))
    assert classes is not None
    assert classes.names == ("land", "water")
    assert len(set(classes.colors)) == 2


@pytest.mark.parametrize("names", [None, ["only one"]])
def test_a_tiff_without_class_table(tmp_path: Path, names: list[str] | None) -> None:
    assert read_cog_classes(write_tiff(tmp_path / "a.tif", {0: (1, 2, 3)}, names)) is None


def test_unusable_category_names_are_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", None, ["same", "same"])
    with pytest.raises(InputError, match=r"a\.tif cannot be used: Class name 'same' is given twice"):
        read_cog_classes(path)


def test_a_missing_tiff_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.tif cannot be read"):
        read_cog_classes(tmp_path / "none.tif")
