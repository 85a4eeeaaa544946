"""The COG put together from parts, against GDAL (through rasterio), rio-cogeo and numpy."""

import errno
import json
import random
import resource
import struct
import subprocess
import sys
import textwrap
import tracemalloc
import xml.etree.ElementTree as ET
from collections.abc import Iterator
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
from rasterio.windows import Window as RasterioWindow
from rio_cogeo.cogeo import cog_validate

from segbatch.classes import ClassTable
from segbatch.errors import SegbatchError
from segbatch.masks import CogSpec, assemble, read_cog_classes, tiff, write_cog, write_small_cog
from segbatch.masks.parts import PartError, part_path, write_part
from segbatch.masks.pyramid import Pyramid, halved
from segbatch.storage import PARTIAL

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

CLASSES = ClassTable(("open water", "forêt & <wood>", "bare"), ("#1f78b4", "#33a02c", "#b15928"))
UTM = CRS.from_epsg(32633).to_wkt()
NORTH_UP = Affine(0.6, 0, 399960.3, 0, -0.6, 5000040.7)
MASK = CogSpec.class_mask(CLASSES, UTM, NORTH_UP, None)
PROBABILITIES = CogSpec.probabilities(CLASSES, UTM, NORTH_UP, None)


def patchy_mask(height: int, width: int) -> NDArray[np.uint8]:
    rows, cols = np.mgrid[:height, :width]
    mask: NDArray[np.uint8] = ((rows // 7 + cols // 5) % 3).astype(np.uint8)
    mask[np.random.default_rng(0).random((height, width)) < 0.1] = 2
    mask[(rows - height / 2) ** 2 + (cols - width / 2) ** 2 > (0.45 * (height + width)) ** 2 / 2] = 255
    return mask


def random_pixels(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).choice(np.array([0, 1, 2, 255], np.uint8), shape)


def write_parts(folder: Path, pyramid: Pyramid, pixels: NDArray[np.uint8], seed: int | None = None) -> Path:
    order = list(np.ndindex(pyramid.grid))
    if seed is not None:
        random.Random(seed).shuffle(order)
    for block in order:
        window = pyramid.block_window(*block)
        write_part(folder, pyramid, window, pixels[..., window.slices[0], window.slices[1]])
    return folder


def make_cog(
    folder: Path, pixels: NDArray[np.uint8], block: tuple[int, int], spec: CogSpec = MASK, **changes: Any
) -> tuple[Path, Pyramid]:
    bands = 1 if pixels.ndim == 2 else len(pixels)
    pyramid = Pyramid(pixels.shape[-1], pixels.shape[-2], block, bands, **changes)
    out = folder / "out" / "s.tif"
    write_cog(write_parts(folder / "parts", pyramid, pixels), out, pyramid, spec)
    return out, pyramid


def by_gdal(path: Path, pixels: NDArray[np.uint8], spec: CogSpec) -> Path:
    """The same file as GDAL's COG driver makes it."""
    bands = pixels.reshape(-1, *pixels.shape[-2:])
    profile: dict[str, Any] = {"crs": None if spec.crs is None else CRS.from_wkt(spec.crs)}
    if spec.crs is not None or spec.transform != Affine.identity():
        profile["transform"] = spec.transform
    with rasterio.open(
        path.with_suffix(".plain.tif"), "w", driver="GTiff", width=bands.shape[2], height=bands.shape[1],
        count=len(bands), dtype="uint8", nodata=255, photometric="MINISBLACK", **profile,
    ) as dataset:  # fmt: skip
        dataset.write(bands)
        if spec.classes is not None:
            colors = {index: (*spec.classes.palette()[index].tolist(), 255) for index in range(len(spec.classes))}
            dataset.write_colormap(1, colors)
            dataset.update_tags(SEGBATCH_CLASSES=json.dumps(spec.classes.to_json()))
        if spec.pixel_size_um is not None:
            resolution = repr(1e4 / spec.pixel_size_um)
            dataset.update_tags(
                TIFFTAG_XRESOLUTION=resolution, TIFFTAG_YRESOLUTION=resolution, TIFFTAG_RESOLUTIONUNIT="3"
            )
        if spec.scale is not None:
            dataset.scales = [spec.scale] * len(bands)
            dataset.offsets = [0] * len(bands)
        if any(spec.bands):
            dataset.descriptions = spec.bands
    rasterio.shutil.copy(path.with_suffix(".plain.tif"), path, driver="COG", COMPRESS="DEFLATE", BLOCKSIZE=512)
    return path


def what_gdal_sees(path: Path) -> dict[str, Any]:
    with rasterio.open(path) as dataset:
        seen = {
            name: getattr(dataset, name)
            for name in (
                "crs", "transform", "nodata", "nodatavals", "descriptions", "scales", "offsets", "colorinterp",
                "mask_flag_enums", "dtypes", "count", "shape", "compression", "interleaving", "gcps", "units",
            )
        }  # fmt: skip
        seen["tags"] = dataset.tags()
        seen["structure"] = dataset.tags(ns="IMAGE_STRUCTURE")
        seen["colors"] = dataset.colormap(1) if seen["colorinterp"][0].name == "palette" else None
    # GDAL names the predictor, which is ours to choose.
    seen["structure"].pop("PREDICTOR", None)
    return seen


def overview(path: Path, level: int) -> NDArray[np.uint8]:
    with rasterio.open(path, overview_level=level - 1) as dataset:
        return dataset.read()


def names_in_folder(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def category_names_by_gdal(path: Path) -> list[str | None]:
    vrt = path.parent / "names.vrt"
    rasterio.shutil.copy(path, vrt, driver="VRT")
    names = [category.text for category in ET.parse(vrt).iterfind("VRTRasterBand/CategoryNames/Category")]
    vrt.unlink()
    return names


def test_a_map_is_a_valid_cog_that_describes_itself(tmp_path: Path) -> None:
    mask = patchy_mask(2301, 2107)
    out, pyramid = make_cog(tmp_path, mask, (1024, 1024))

    assert names_in_folder(out.parent) == ["s.tif", "s.tif.aux.xml"]
    assert cog_validate(out, strict=True) == (True, [], [])
    with rasterio.open(out) as dataset:
        np.testing.assert_array_equal(dataset.read(1), mask)
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert dataset.tags(ns="IMAGE_STRUCTURE")["COMPRESSION"] == "DEFLATE"
        assert dataset.block_shapes == [(512, 512)]
        assert dataset.overviews(1) == [2, 4, 8]
        assert dataset.nodata == 255
        assert dataset.crs == CRS.from_epsg(32633)
        assert dataset.transform == NORTH_UP
        colors = dataset.colormap(1)
        assert [colors[index] for index in range(3)] == [(31, 120, 180, 255), (51, 160, 44, 255), (177, 89, 40, 255)]
        assert colors[255][3] == 0
        assert json.loads(dataset.tags()["SEGBATCH_CLASSES"]) == CLASSES.to_json()
    assert pyramid.local_levels < pyramid.levels
    assert category_names_by_gdal(out) == list(CLASSES.names)
    assert read_cog_classes(out) == CLASSES


@pytest.mark.parametrize("resampling", ["mode", "nearest", "average"])
@pytest.mark.parametrize("block", [(1024, 1024), (512, 2048), (1536, 96), (2304, 2304), (160, 304)])
def test_every_level_is_half_the_one_before(tmp_path: Path, resampling: str, block: tuple[int, int]) -> None:
    pixels = random_pixels(2301, 1107)
    out, pyramid = make_cog(tmp_path, pixels, block, resampling=resampling)
    assert cog_validate(out, strict=True) == (True, [], [])
    for level in range(1, pyramid.levels):
        pixels = halved(pixels, resampling)  # type: ignore[arg-type]
        np.testing.assert_array_equal(overview(out, level)[0], pixels)


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
    out, _ = make_cog(tmp_path, mask, (128, 256), resampling="mode")
    expected, decided = mode_without_ties(mask)
    assert decided.mean() > 0.5
    assert (expected == 255).any()
    np.testing.assert_array_equal(overview(out, 1)[0][decided], expected[decided])


def test_nearest_overviews_hold_pixels_of_the_mask(tmp_path: Path) -> None:
    mask = random_pixels(600, 640)
    out, _ = make_cog(tmp_path, mask, (128, 256), resampling="nearest")
    np.testing.assert_array_equal(overview(out, 1)[0], mask[::2, ::2])


sides = st.integers(1, 40).map(lambda count: 16 * count)


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 700), width=st.integers(1, 700), block=st.tuples(sides, sides), bands=st.integers(1, 4))
@example(height=1, width=1, block=(16, 16), bands=1)
@example(height=5, width=3, block=(2048, 2048), bands=1)
@example(height=512, width=512, block=(512, 512), bands=1)
@example(height=513, width=512, block=(512, 512), bands=1)
@example(height=513, width=1, block=(256, 16), bands=2)
def test_any_size_gives_a_valid_cog(
    height: int, width: int, block: tuple[int, int], bands: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pixels = random_pixels(bands, height, width, seed=height * width)
    spec = CogSpec(UTM, NORTH_UP, bands=("",) * bands)
    out, pyramid = make_cog(tmp_path_factory.mktemp("cog"), pixels, block, spec)
    with rasterio.open(out) as dataset:
        np.testing.assert_array_equal(dataset.read(), pixels)
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert dataset.block_shapes[0] == pyramid.tile
    for level in range(1, pyramid.levels):
        pixels = halved(pixels, "mode")
        np.testing.assert_array_equal(overview(out, level), pixels)
    # rio-cogeo and rasterio take an overview's decimation from the widths, which says nothing of one pixel.
    if pyramid.size(max(pyramid.levels - 2, 0))[1] > 1:
        assert cog_validate(out, strict=True) == (True, [], [])


@pytest.mark.parametrize(("height", "width"), [(2000, 1024), (700, 512), (4000, 1024)])
def test_narrow_scenes_pass_for_tiled(tmp_path: Path, height: int, width: int) -> None:
    out, _ = make_cog(tmp_path, random_pixels(height, width), (2048, 2048) if height < 2048 else (1024, 1024))
    assert cog_validate(out, strict=True) == (True, [], [])


@pytest.mark.parametrize(
    "spec",
    [
        MASK,
        CogSpec.class_mask(CLASSES, None, Affine.identity(), None),
        CogSpec.class_mask(CLASSES, None, Affine.identity(), 0.25),
        CogSpec.class_mask(CLASSES, UTM, NORTH_UP @ Affine.rotation(30), None),
        CogSpec.class_mask(CLASSES, None, Affine(2, 0, 7, 0, 2, 9), None),
        CogSpec.class_mask(
            CLASSES, CRS.from_epsg(4326).to_wkt(), Affine(1 / 3600, 0, 10.123456789, 0, -1 / 3600, 50), None
        ),
        CogSpec.class_mask(
            CLASSES,
            CRS.from_proj4("+proj=laea +lat_0=52.1 +lon_0=10.3 +ellps=bessel +units=m").to_wkt(),
            NORTH_UP,
            None,
        ),
        CogSpec.class_mask(CLASSES, CRS.from_proj4("+proj=wintri +lon_0=7").to_wkt(), NORTH_UP, None),
        CogSpec.class_mask(CLASSES, CRS.from_epsg(5972).to_wkt(), NORTH_UP, None),
        CogSpec.confidence(UTM, NORTH_UP, None),
        PROBABILITIES,
        CogSpec.probabilities(ClassTable.from_items([(f"c{i}", None) for i in range(4)]), None, NORTH_UP, 2.5),
    ],
)
def test_gdal_sees_what_it_would_have_written_itself(tmp_path: Path, spec: CogSpec) -> None:
    shape = (700, 600) if len(spec.bands) == 1 else (len(spec.bands), 700, 600)
    pixels = random_pixels(*shape)
    out, _ = make_cog(tmp_path, pixels, (512, 512), spec)
    expected = by_gdal(tmp_path / "gdal.tif", pixels, spec)
    assert what_gdal_sees(out) == what_gdal_sees(expected)
    assert category_names_by_gdal(out) == ([] if spec.classes is None else list(spec.classes.names))
    with rasterio.open(out) as dataset:
        assert dataset.transform == spec.transform
        assert dataset.crs == (None if spec.crs is None else CRS.from_wkt(spec.crs))


def test_a_micrograph_has_resolution_tags_and_no_map(tmp_path: Path) -> None:
    mask = patchy_mask(600, 700)
    out, _ = make_cog(tmp_path, mask, (512, 512), CogSpec.class_mask(CLASSES, None, Affine.identity(), 0.25))
    assert cog_validate(out, strict=True) == (True, [], [])
    with rasterio.open(out) as dataset:
        np.testing.assert_array_equal(dataset.read(1), mask)
        assert dataset.crs is None
        assert dataset.transform == Affine.identity()
        assert dataset.overviews(1)[0] == 2
        tags = dataset.tags()
    assert (float(tags["TIFFTAG_XRESOLUTION"]), float(tags["TIFFTAG_YRESOLUTION"])) == (40000, 40000)
    assert tags["TIFFTAG_RESOLUTIONUNIT"].startswith("3")  # pixels per centimetre


def test_probabilities_have_a_named_band_each_and_a_scale(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 1200, 700)).astype(np.uint8)
    pixels[:, 300:700] = 255
    out, pyramid = make_cog(tmp_path, pixels, (512, 512), PROBABILITIES, resampling="average")
    assert names_in_folder(out.parent) == ["s.tif"]
    assert cog_validate(out, strict=True) == (True, [], [])
    with rasterio.open(out) as dataset:
        np.testing.assert_array_equal(dataset.read(), pixels)
        assert dataset.descriptions == CLASSES.names
        assert dataset.scales == (1 / 254,) * 3
        assert dataset.offsets == (0,) * 3
        assert dataset.nodata == 255
        assert [color.name for color in dataset.colorinterp] == ["gray", "undefined", "undefined"]
    for level in range(1, pyramid.levels):
        pixels = halved(pixels, "average")
        np.testing.assert_array_equal(overview(out, level), pixels)


def test_255_classes(tmp_path: Path) -> None:
    classes = ClassTable.from_items([(f"class {index}", None) for index in range(255)])
    mask = np.random.default_rng(0).integers(0, 256, (300, 300)).astype(np.uint8)
    out, _ = make_cog(tmp_path, mask, (160, 160), CogSpec.class_mask(classes, UTM, NORTH_UP, None))
    with rasterio.open(out) as dataset:
        np.testing.assert_array_equal(dataset.read(1), mask)
    assert read_cog_classes(out) == classes


def tile_places(path: Path, level: int = 0) -> NDArray[np.int64]:
    """(rows, columns, 2) offset and size of each tile, by GDAL; 0 where it knows of none."""
    with rasterio.open(path) as dataset:
        overview_level = None if level == 0 else level - 1
        rows, cols = dataset.block_shapes[0]
        height, width = overview(path, level).shape[1:] if level else dataset.shape
        return np.array(
            [
                [
                    [
                        int(dataset.get_tag_item(f"{item}_{col}_{row}", "TIFF", bidx=1, ovr=overview_level) or 0)
                        for item in ("BLOCK_OFFSET", "BLOCK_SIZE")
                    ]
                    for col in range(-(-width // cols))
                ]
                for row in range(-(-height // rows))
            ]
        )


def test_tiles_of_nodata_take_no_bytes(tmp_path: Path) -> None:
    mask = np.full((2048, 2048), 255, np.uint8)
    mask[:512, 512:1024] = 1
    out, _ = make_cog(tmp_path, mask, (1024, 1024))
    places = tile_places(out)
    assert (places[..., 0] > 0).sum() == 1
    assert (places[places[..., 0] == 0] == 0).all()
    with rasterio.open(out) as dataset:
        np.testing.assert_array_equal(dataset.read(1), mask)
        np.testing.assert_array_equal(dataset.read_masks(1), np.where(mask == 255, 0, 255))
    assert cog_validate(out, strict=True) == (True, [], [])


@pytest.mark.parametrize("bands", [1, 3])
def test_a_scene_of_nodata_alone(tmp_path: Path, bands: int) -> None:
    spec = MASK if bands == 1 else PROBABILITIES
    out, _ = make_cog(tmp_path, np.full((bands, 1600, 700), 255, np.uint8), (512, 512), spec)
    with rasterio.open(out) as dataset:
        assert (dataset.read() == 255).all()
        assert not dataset.read_masks().any()
    assert cog_validate(out, strict=True) == (True, [], [])
    assert out.stat().st_size < 20_000


def test_blocks_without_part_are_nodata(tmp_path: Path) -> None:
    mask = random_pixels(1500, 1400)
    mask[512:1024, :512] = mask[1024:, 1024:] = 255
    whole, pyramid = make_cog(tmp_path, mask, (512, 512))
    for block in ((1, 0), (2, 2)):
        part_path(tmp_path / "parts", *block).unlink()
    out = tmp_path / "again" / "s.tif"
    write_cog(tmp_path / "parts", out, pyramid, MASK, without_part={(1, 0), (2, 2)})
    assert out.read_bytes() == whole.read_bytes()


def test_tiles_lie_row_by_row_smallest_overview_first_and_framed(tmp_path: Path) -> None:
    out, pyramid = make_cog(tmp_path, random_pixels(2301, 1107), (512, 512))
    content = out.read_bytes()
    places = np.concatenate([tile_places(out, level).reshape(-1, 2) for level in reversed(range(pyramid.levels))])
    ends = places[:, 0] + places[:, 1] + 4
    np.testing.assert_array_equal(places[1:, 0], ends[:-1] + 4)
    assert ends[-1] == len(content)
    for offset, size in places.tolist():
        assert struct.unpack_from("<I", content, offset - 4) == (size,)
        assert content[offset + size : offset + size + 4] == content[offset + size - 4 : offset + size]


def test_the_order_of_blocks_leaves_no_trace(tmp_path: Path) -> None:
    mask = patchy_mask(1500, 1400)
    pyramid = Pyramid(1400, 1500, (512, 512))
    contents = set()
    for seed in range(3):
        out = tmp_path / str(seed) / "s.tif"
        write_cog(write_parts(tmp_path / f"parts{seed}", pyramid, mask, seed), out, pyramid, MASK)
        contents.add((out.read_bytes(), out.with_name("s.tif.aux.xml").read_bytes()))
    assert len(contents) == 1


def test_the_size_of_blocks_leaves_no_trace_where_tiles_are_the_same(tmp_path: Path) -> None:
    mask = patchy_mask(2301, 2107)
    files = [make_cog(tmp_path / str(rows), mask, (rows, 1024))[0] for rows in (1024, 2048, 2301)]
    assert len({file.read_bytes() for file in files}) == 1


def test_writing_again_replaces_the_file_and_leaves_the_parts(tmp_path: Path) -> None:
    out, pyramid = make_cog(tmp_path, patchy_mask(700, 600), (512, 512))
    expected = out.read_bytes()
    out.write_bytes(b"an older file")
    write_cog(tmp_path / "parts", out, pyramid, MASK)
    assert out.read_bytes() == expected
    # The names of classes that an older file had are none of the new one's.
    write_cog(tmp_path / "parts", out, pyramid, CogSpec.confidence(UTM, NORTH_UP, None))
    assert names_in_folder(out.parent) == ["s.tif"]


@pytest.mark.parametrize("damage", [lambda content: content[:-3], lambda content: content[:-3] + b"abc"])
def test_a_damaged_part_is_named_and_nothing_is_left(tmp_path: Path, damage: Any) -> None:
    out, pyramid = make_cog(tmp_path, random_pixels(1100, 1100), (512, 512))
    whole = out.read_bytes()
    file = part_path(tmp_path / "parts", 1, 2)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(PartError, match=r"parts/1/2\.part is damaged.*Run the same command") as caught:
        write_cog(tmp_path / "parts", tmp_path / "new" / "s.tif", pyramid, MASK)
    assert caught.value.block == (1, 2)
    assert names_in_folder(tmp_path / "new") == []

    window = pyramid.block_window(1, 2)
    write_part(tmp_path / "parts", pyramid, window, random_pixels(1100, 1100)[window.slices])
    write_cog(tmp_path / "parts", out, pyramid, MASK)
    assert out.read_bytes() == whole


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    out, pyramid = make_cog(tmp_path, random_pixels(1100, 1100), (512, 512))
    part_path(tmp_path / "parts", 2, 0).unlink()
    before = out.read_bytes()
    with pytest.raises(PartError, match=r"parts/2/0\.part is missing"):
        write_cog(tmp_path / "parts", out, pyramid, MASK)
    assert out.read_bytes() == before


def test_another_number_of_bands_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3 bands are described, but there are 2"):
        write_cog(tmp_path, tmp_path / "s.tif", Pyramid(5, 5, (16, 16), 2), PROBABILITIES)


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(SegbatchError, match=r"out/s\.tif cannot be written"):
        make_cog(tmp_path, patchy_mask(60, 70), (64, 64))


def test_a_disk_that_fails_at_the_end_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyramid = Pyramid(70, 60, (64, 64))
    parts = write_parts(tmp_path / "parts", pyramid, patchy_mask(60, 70))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("segbatch.storage.staging.os.fsync", full)
    with pytest.raises(SegbatchError, match=r"out/s\.tif cannot be written: .*No space left on device"):
        write_cog(parts, tmp_path / "out" / "s.tif", pyramid, MASK)
    assert names_in_folder(tmp_path / "out") == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
@pytest.mark.parametrize("missing", [1, 2_000, 40_000])
def test_a_full_disk_is_an_error_that_names_the_file(
    tmp_path: Path, missing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, pyramid = make_cog(tmp_path, random_pixels(1100, 1100), (512, 512))
    write, before = assemble.write_whole, out.read_bytes()

    def limited(file: Path, content: Any) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        # Python ignores the signal, so that writing is an error as it is on a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) - missing, hard))
        try:
            write(file, content)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    monkeypatch.setattr(assemble, "write_whole", limited)
    with pytest.raises(SegbatchError, match=r"out/s\.tif cannot be written: "):
        write_cog(tmp_path / "parts", out, pyramid, MASK)
    assert names_in_folder(out.parent) == ["s.tif", "s.tif.aux.xml"]
    assert out.read_bytes() == before


def test_the_leftovers_of_a_killed_process_are_in_nobodys_way(tmp_path: Path) -> None:
    clean, pyramid = make_cog(tmp_path, patchy_mask(1100, 600), (512, 512))
    folder = tmp_path / "killed"
    killed = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        from affine import Affine
        from segbatch.masks import CogSpec, assemble
        from segbatch.masks.pyramid import Pyramid
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        spec = CogSpec(None, Affine.identity())
        assemble.write_cog(sys.argv[1], sys.argv[2], Pyramid(600, 1100, (512, 512)), spec)
        """
    )
    command = [sys.executable, "-c", killed, str(tmp_path / "parts"), str(folder / "s.tif")]
    root = Path(__file__).parents[2]
    assert subprocess.run(command, cwd=root, capture_output=True, check=False).returncode == -9
    leftovers = names_in_folder(folder)
    assert leftovers
    assert all(name.endswith(PARTIAL) for name in leftovers)
    (folder / "s.tif").write_bytes(b"an older file")
    write_cog(tmp_path / "parts", folder / "s.tif", pyramid, MASK)
    assert names_in_folder(folder) == sorted([*leftovers, *names_in_folder(clean.parent)])
    for name in names_in_folder(clean.parent):
        assert (folder / name).read_bytes() == (clean.parent / name).read_bytes()


def test_a_kill_before_the_names_are_in_place_leaves_nothing_but_a_leftover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyramid = Pyramid(70, 60, (64, 64))
    parts, out = write_parts(tmp_path / "parts", pyramid, patchy_mask(60, 70)), tmp_path / "out" / "s.tif"
    with monkeypatch.context() as patched:
        # What SIGKILL leaves: the folder that is being filled is not removed.
        patched.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        patched.setattr("segbatch.storage.staging.shutil.rmtree", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            write_cog(parts, out, pyramid, MASK)
    leftovers = names_in_folder(out.parent)
    assert all(name.endswith(PARTIAL) for name in leftovers)
    write_cog(parts, out, pyramid, MASK)
    assert names_in_folder(out.parent) == sorted([*leftovers, "s.tif", "s.tif.aux.xml"])


def test_a_file_beyond_the_limit_is_a_bigtiff_with_the_same_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = random_pixels(1100, 1300)
    classic, pyramid = make_cog(tmp_path, mask, (512, 512))
    size = classic.stat().st_size
    for limit, magic in ((size, 42), (size - 1, 43)):
        monkeypatch.setattr(tiff, "CLASSIC_LIMIT", limit)
        out = tmp_path / str(magic) / "s.tif"
        write_cog(tmp_path / "parts", out, pyramid, MASK)
        assert struct.unpack_from("<H", out.read_bytes(), 2) == (magic,)
        assert cog_validate(out, strict=True) == (True, [], [])
        assert what_gdal_sees(out) == what_gdal_sees(classic)
        with rasterio.open(out) as dataset:
            np.testing.assert_array_equal(dataset.read(1), mask)
        for level in range(1, pyramid.levels):
            np.testing.assert_array_equal(overview(out, level), overview(classic, level))


def test_a_file_of_more_than_four_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # All tiles of the full resolution but two are said to be of 80 MiB: their streams, and then a hole in the file.
    tile_bytes = 80 << 20
    mask = random_pixels(2048, 2048)
    pyramid = Pyramid(2048, 2048, (512, 512))
    assert pyramid.tiles(0) == (8, 8)
    gather_counts, pieces_of_level = assemble._gather_counts, assemble._level

    def gather(parts: Any, pyramid: Pyramid, level: int) -> NDArray[np.uint32]:
        counts = gather_counts(parts, pyramid, level)
        if level == 0:
            counts.flat[1:-1] = tile_bytes
        return counts

    def pieces(parts: Any, pyramid: Pyramid, level: int, is_far: bool) -> Iterator[bytes]:
        run = b"".join(pieces_of_level(parts, pyramid, level, is_far))
        if level > 0:
            yield run
            return
        last = pyramid.tiles(0)[0] * pyramid.tiles(0)[1] - 1
        for number in range(last + 1):
            (size,) = struct.unpack_from("<I", run)
            framed, run = run[: size + 8], run[size + 8 :]
            if number in (0, last):
                yield framed
            else:
                yield struct.pack("<I", tile_bytes) + framed[4:-4]
                yield bytes(tile_bytes - size + 4)

    def write_sparse(file: Path, content: bytes | Iterator[bytes]) -> None:
        file.parent.mkdir(exist_ok=True)
        with file.open("wb") as stream:
            for piece in [content] if isinstance(content, bytes) else content:
                if len(piece) > tile_bytes // 2:
                    stream.seek(len(piece), 1)
                else:
                    stream.write(piece)

    monkeypatch.setattr(assemble, "_gather_counts", gather)
    monkeypatch.setattr(assemble, "_level", pieces)
    monkeypatch.setattr(assemble, "write_whole", write_sparse)
    out = tmp_path / "s.tif"
    write_cog(write_parts(tmp_path / "parts", pyramid, mask), out, pyramid, MASK)

    status = out.stat()
    assert status.st_size > 1 << 32
    assert status.st_blocks * 512 < 1 << 24
    with out.open("rb") as stream:
        assert struct.unpack("<2sH", stream.read(4)) == (b"II", 43)
    assert cog_validate(out, strict=True) == (True, [], [])
    assert tile_places(out)[-1, -1, 0] > 1 << 32
    with rasterio.open(out) as dataset:
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        for start in (0, 1792):
            window = RasterioWindow(start, start, 256, 256)
            np.testing.assert_array_equal(dataset.read(1, window=window), mask[window.toslices()])
    for level in range(1, pyramid.levels):
        mask = halved(mask, "mode")
        np.testing.assert_array_equal(overview(out, level)[0], mask)


def test_memory_does_not_grow_with_the_height(tmp_path: Path) -> None:
    peaks = []
    for height in (4096, 16384):
        mask = np.tile(patchy_mask(512, 512), (height // 512, 4))
        pyramid = Pyramid(2048, height, (1024, 1024))
        parts = write_parts(tmp_path / str(height), pyramid, mask)
        tracemalloc.start()
        write_cog(parts, tmp_path / "s.tif", pyramid, MASK)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Not equal: a taller scene has more levels, each with a strip of its own.
    assert peaks[1] < 2 * peaks[0]


@pytest.mark.parametrize(
    ("pixels", "spec"),
    [
        (patchy_mask(300, 1100), MASK),
        (np.full((70, 60), 255, np.uint8), MASK),
        (random_pixels(3, 90, 70), PROBABILITIES),
    ],
)
def test_the_cog_of_a_scene_of_one_block_needs_no_part(
    tmp_path: Path, pixels: NDArray[np.uint8], spec: CogSpec
) -> None:
    height, width = pixels.shape[-2:]
    clean, pyramid = make_cog(tmp_path, pixels, (height, width), spec, resampling="nearest")
    out = tmp_path / "small" / "s.tif"
    write_small_cog(out, pyramid, spec, pyramid.block_window(0, 0), pixels)
    assert names_in_folder(out.parent) == names_in_folder(clean.parent)
    for name in names_in_folder(out.parent):
        assert (out.parent / name).read_bytes() == (clean.parent / name).read_bytes()


def test_a_scene_of_several_blocks_is_no_small_one(tmp_path: Path) -> None:
    pyramid, window = Pyramid(64, 100, (64, 64)), Pyramid(64, 100, (64, 64)).block_window(0, 0)
    with pytest.raises(ValueError, match="2 x 1 blocks"):
        write_small_cog(tmp_path / "s.tif", pyramid, MASK, window, patchy_mask(64, 64))
