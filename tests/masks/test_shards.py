"""The shard store against xarray, numpy and the file system."""

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.crs import CRS

from segbatch.classes import ClassTable
from segbatch.errors import InputError, SegbatchError
from segbatch.geometry import Window
from segbatch.masks import clean_partial, create_store, read_classes, read_window, shards, thumbnail, write_block
from segbatch.scenes.raster import RasterScene

CLASSES = ClassTable(("open water", "forest", "bare"), ("#1f78b4", "#33a02c", "#b15928"))
UTM = CRS.from_epsg(32633).to_wkt()
NORTH_UP = Affine(0.6, 0, 399960.3, 0, -0.6, 5000040.7)


def make_store(path: Path, height: int, width: int, **changes: Any) -> Path:
    arguments: dict[str, Any] = {
        "shard": (32, 48),
        "chunk": (16, 16),
        "classes": CLASSES,
        "crs": None,
        "transform": Affine.identity(),
        "pixel_size_um": None,
    }
    create_store(path, width=width, height=height, **(arguments | changes))
    return path


def random_mask(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    values = np.array([0, 1, 2, 255], np.uint8)
    return np.random.default_rng(seed).choice(values, (height, width))


def blocks(height: int, width: int, shard: tuple[int, int] = (32, 48)) -> Iterator[Window]:
    for row, col in itertools.product(range(0, height, shard[0]), range(0, width, shard[1])):
        yield Window(col, row, min(shard[1], width - col), min(shard[0], height - row))


def write_all(path: Path, mask: NDArray[np.uint8], shard: tuple[int, int] = (32, 48)) -> None:
    for window in blocks(mask.shape[0], mask.shape[1], shard):
        write_block(path, window, mask[window.slices])


def files_of(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def shard_files(path: Path) -> list[str]:
    return sorted(name for name in files_of(path / "class_mask") if name != "zarr.json")


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_zarr_reads_what_was_written(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    chunk = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)), "chunk")
    shard = (chunk[0] * data.draw(st.integers(1, 4)), chunk[1] * data.draw(st.integers(1, 4)))
    height, width = data.draw(st.tuples(st.integers(1, 50), st.integers(1, 50)), "height, width")
    mask = random_mask(height, width)
    path = make_store(tmp_path_factory.mktemp("store") / "s.zarr", height, width, shard=shard, chunk=chunk)
    order = data.draw(st.permutations(list(blocks(height, width, shard))))
    for window in order:
        write_block(path, window, mask[window.slices])

    array = zarr.open_array(path / "class_mask", mode="r")
    assert (array.shards, array.chunks) == (shard, chunk)
    np.testing.assert_array_equal(array[:], mask)
    row_off, col_off = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    window = Window(
        col_off, row_off, data.draw(st.integers(1, width - col_off)), data.draw(st.integers(1, height - row_off))
    )
    np.testing.assert_array_equal(read_window(path, window), mask[window.slices])


def test_xarray_opens_a_map_with_coordinates(tmp_path: Path) -> None:
    mask = random_mask(70, 100)
    path = make_store(tmp_path / "s.zarr", 70, 100, crs=UTM, transform=NORTH_UP)
    write_all(path, mask)

    with xr.open_zarr(path, consolidated=False) as dataset:
        variable = dataset["class_mask"]
        assert variable.dims == ("y", "x")
        assert variable.dtype == np.float32
        np.testing.assert_array_equal(variable.values, np.where(mask == 255, np.nan, mask))
        with (
            rasterio.MemoryFile() as file,
            file.open(
                driver="GTiff", width=100, height=70, count=1, dtype="uint8", crs=UTM, transform=NORTH_UP
            ) as raster,
        ):
            expected_x, _ = raster.xy([0] * 100, range(100))
            _, expected_y = raster.xy(range(70), [0] * 70)
        np.testing.assert_allclose(dataset["x"], expected_x, rtol=0, atol=1e-9)
        np.testing.assert_allclose(dataset["y"], expected_y, rtol=0, atol=1e-9)
        assert dataset["x"].attrs["units"] == "metre"
        reference = dataset.coords[variable.attrs["grid_mapping"]].attrs
        assert CRS.from_wkt(reference["crs_wkt"]) == CRS.from_epsg(32633)
        assert Affine.from_gdal(*map(float, reference["GeoTransform"].split())) == NORTH_UP
        assert variable.attrs["flag_values"] == [0, 1, 2]
        assert variable.attrs["flag_meanings"].split() == ["open_water", "forest", "bare"]
    with xr.open_zarr(path, consolidated=False, mask_and_scale=False) as dataset:
        assert dataset["class_mask"].dtype == np.uint8
        np.testing.assert_array_equal(dataset["class_mask"].values, mask)


def test_geographic_coordinates_are_degrees(tmp_path: Path) -> None:
    path = make_store(
        tmp_path / "s.zarr", 5, 6, crs=CRS.from_epsg(4326).to_wkt(), transform=Affine(0.5, 0, 10, 0, -0.5, 50)
    )
    with xr.open_zarr(path, consolidated=False) as dataset:
        assert dataset["x"].attrs["units"] == "degrees_east"
        assert dataset["y"].attrs["units"] == "degrees_north"
        np.testing.assert_array_equal(dataset["y"], [49.75, 49.25, 48.75, 48.25, 47.75])


def test_micrographs_have_micrometres(tmp_path: Path) -> None:
    path = make_store(tmp_path / "s.zarr", 3, 4, pixel_size_um=0.25)
    with xr.open_zarr(path, consolidated=False) as dataset:
        np.testing.assert_array_equal(dataset["x"], [0.125, 0.375, 0.625, 0.875])
        assert dataset["x"].attrs["units"] == dataset["y"].attrs["units"] == "micrometer"
        assert set(dataset.variables) == {"class_mask", "x", "y"}


def test_no_coordinates_without_scale_or_with_rotation(tmp_path: Path) -> None:
    plain = make_store(tmp_path / "plain.zarr", 3, 4)
    rotated = NORTH_UP @ Affine.rotation(30)
    turned = make_store(tmp_path / "turned.zarr", 3, 4, crs=UTM, transform=rotated)
    with xr.open_zarr(plain, consolidated=False) as dataset:
        assert set(dataset.variables) == {"class_mask"}
    with xr.open_zarr(turned, consolidated=False) as dataset:
        assert set(dataset.variables) == {"class_mask", "spatial_ref"}
        stored = Affine.from_gdal(*map(float, dataset["spatial_ref"].attrs["GeoTransform"].split()))
        assert stored == rotated


def test_one_file_a_block_and_none_for_nodata(tmp_path: Path) -> None:
    path = make_store(tmp_path / "s.zarr", 70, 100)
    assert shard_files(path) == []
    assert (read_window(path, Window(0, 0, 100, 70)) == 255).all()

    mask = random_mask(70, 100)
    mask[32:64, 48:96] = 255
    write_all(path, mask)
    assert shard_files(path) == [f"c/{row}/{col}" for row in range(3) for col in range(3) if (row, col) != (1, 1)]

    write_block(path, Window(0, 0, 48, 32), np.full((32, 48), 255, np.uint8))
    assert "c/0/0" not in shard_files(path)
    assert (read_window(path, Window(0, 0, 48, 32)) == 255).all()


def test_writing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    mask = random_mask(70, 100)
    path = make_store(tmp_path / "a.zarr", 70, 100, crs=UTM, transform=NORTH_UP)
    write_all(path, random_mask(70, 100, seed=1))
    write_all(path, mask)
    once = make_store(tmp_path / "b.zarr", 70, 100, crs=UTM, transform=NORTH_UP)
    write_all(once, mask)
    assert files_of(path) == files_of(once)


def truncated(content: bytes) -> bytes:
    return content[:-5]


def flipped(content: bytes) -> bytes:
    return content[:40] + bytes([content[40] ^ 1]) + content[41:]


@pytest.mark.parametrize("damage", [truncated, flipped])
def test_a_damaged_shard_is_named_and_can_be_written_again(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    mask = random_mask(70, 100)
    path = make_store(tmp_path / "s.zarr", 70, 100)
    write_all(path, mask)
    whole = files_of(path)
    shard = path / "class_mask/c/1/1"
    shard.write_bytes(damage(shard.read_bytes()))
    with pytest.raises(SegbatchError, match=r"s\.zarr is damaged"):
        read_window(path, Window(0, 0, 100, 70))
    write_block(path, Window(48, 32, 48, 32), mask[32:64, 48:96])
    assert files_of(path) == whole


@pytest.mark.parametrize(
    "window",
    [
        Window(1, 0, 48, 32),
        Window(0, 16, 48, 32),
        Window(0, 0, 48, 16),
        Window(0, 0, 100, 32),
        Window(96, 0, 48, 32),
        Window(-48, 0, 48, 32),
        Window(144, 0, 48, 32),
        Window(0, 96, 48, 32),
    ],
)
def test_a_window_that_is_no_shard_is_refused(tmp_path: Path, window: Window) -> None:
    path = make_store(tmp_path / "s.zarr", 70, 100)
    with pytest.raises(ValueError, match="not a shard of 32 x 48") as caught:
        write_block(path, window, np.zeros((window.height, window.width), np.uint8))
    assert f"row_off={window.row_off} col_off={window.col_off}" in str(caught.value)
    assert shard_files(path) == []


@pytest.mark.parametrize("mask", [np.zeros((32, 47), np.uint8), np.zeros((32, 48), np.int64)])
def test_a_mask_that_does_not_fit_is_refused(tmp_path: Path, mask: NDArray[Any]) -> None:
    path = make_store(tmp_path / "s.zarr", 70, 100)
    with pytest.raises(ValueError, match=r"uint8 pixels of .* are needed"):
        write_block(path, Window(0, 0, 48, 32), mask)


def random_products(height: int, width: int) -> dict[str, NDArray[np.uint8]]:
    """Class mask, confidence and probabilities, nodata in the same places."""
    mask = random_mask(height, width)
    probabilities = np.random.default_rng(1).integers(0, 255, (len(CLASSES), height, width)).astype(np.uint8)
    probabilities[:, mask == 255] = 255
    return {"class_mask": mask, "confidence": probabilities.max(axis=0), "probabilities": probabilities}


def make_full_store(path: Path, arrays: dict[str, NDArray[np.uint8]], **changes: Any) -> Path:
    height, width = arrays["class_mask"].shape
    make_store(path, height, width, products=tuple(arrays)[1:], **changes)
    for window in blocks(height, width):
        for name, pixels in arrays.items():
            write_block(path, window, pixels[(..., *window.slices)], name)
    return path


@pytest.mark.parametrize(
    "names", [("confidence",), ("probabilities",), ("confidence", "probabilities"), ("probabilities", "confidence")]
)
def test_products_come_back(tmp_path: Path, names: tuple[str, ...]) -> None:
    arrays = random_products(70, 100)
    wanted = {name: arrays[name] for name in ("class_mask", *names)}
    path = make_full_store(tmp_path / "s.zarr", wanted)
    assert set(dict(zarr.open_group(path, mode="r").arrays())) == set(wanted)
    for name, pixels in wanted.items():
        array = zarr.open_array(path / name, mode="r")
        np.testing.assert_array_equal(array[:], pixels)
        for window in (Window(0, 0, 100, 70), Window(40, 20, 33, 25), Window(99, 69, 1, 1)):
            np.testing.assert_array_equal(read_window(path, window, name), pixels[(..., *window.slices)])
    np.testing.assert_array_equal(read_window(path, Window(0, 0, 100, 70)), arrays["class_mask"])


def test_a_file_of_probabilities_holds_all_classes_of_a_block_each_class_read_alone(tmp_path: Path) -> None:
    path = make_full_store(tmp_path / "s.zarr", random_products(70, 100))
    array = zarr.open_array(path / "probabilities", mode="r")
    assert (array.shards, array.chunks) == ((3, 32, 48), (1, 16, 16))
    files = {name for name in files_of(path / "probabilities") if name != "zarr.json"}
    assert files == {f"c/0/{row}/{col}" for row in range(3) for col in range(3)}


def test_xarray_decodes_products_to_probabilities(tmp_path: Path) -> None:
    arrays = random_products(70, 100)
    path = make_full_store(tmp_path / "s.zarr", arrays, crs=UTM, transform=NORTH_UP)
    with xr.open_zarr(path, consolidated=False) as dataset:
        assert dataset["confidence"].dims == ("y", "x")
        assert dataset["probabilities"].dims == ("class", "y", "x")
        assert dataset["probabilities"].attrs["class_names"] == list(CLASSES.names)
        for name in ("confidence", "probabilities"):
            variable = dataset[name]
            assert np.issubdtype(variable.dtype, np.floating)
            expected = np.where(arrays[name] == 255, np.nan, arrays[name] / 254)
            np.testing.assert_allclose(variable.values, expected, rtol=0, atol=1e-6)
            assert np.nanmax(variable.values) == pytest.approx(1, abs=1e-6)
            # GDAL and rioxarray find the map of each array by these.
            reference = dataset.coords[variable.attrs["grid_mapping"]].attrs
            assert CRS.from_wkt(reference["crs_wkt"]) == CRS.from_epsg(32633)
            np.testing.assert_array_equal(variable["x"], dataset["class_mask"]["x"])
    with xr.open_zarr(path, consolidated=False, mask_and_scale=False) as dataset:
        for name, pixels in arrays.items():
            assert dataset[name].dtype == np.uint8
            np.testing.assert_array_equal(dataset[name].values, pixels)


def test_products_of_nodata_blocks_have_no_file(tmp_path: Path) -> None:
    arrays = random_products(70, 100)
    for pixels in arrays.values():
        pixels[..., 32:64, 48:96] = 255
    path = make_full_store(tmp_path / "s.zarr", arrays)
    assert not (path / "confidence/c/1/1").exists()
    assert not (path / "probabilities/c/0/1/1").exists()
    for name, pixels in arrays.items():
        np.testing.assert_array_equal(read_window(path, Window(0, 0, 100, 70), name), pixels)

    write_block(path, Window(0, 0, 48, 32), np.full((3, 32, 48), 255, np.uint8), "probabilities")
    assert not (path / "probabilities/c/0/0/0").exists()
    assert (path / "confidence/c/0/0").exists()
    assert (read_window(path, Window(0, 0, 48, 32), "probabilities") == 255).all()


def test_writing_products_again_gives_the_same_bytes(tmp_path: Path) -> None:
    arrays = random_products(70, 100)
    path = make_full_store(tmp_path / "a.zarr", arrays)
    for window in reversed(list(blocks(70, 100))):
        for name, pixels in arrays.items():
            # Not contiguous, as a slice of a larger array is not.
            write_block(path, window, pixels[(..., *window.slices)], name)
    assert files_of(path) == files_of(make_full_store(tmp_path / "b.zarr", arrays))


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("class_mask", np.zeros((3, 32, 48), np.uint8)),
        ("confidence", np.zeros((1, 32, 48), np.uint8)),
        ("confidence", np.zeros((32, 48), np.float32)),
        ("probabilities", np.zeros((32, 48), np.uint8)),
        ("probabilities", np.zeros((2, 32, 48), np.uint8)),
        ("probabilities", np.zeros((32, 48, 3), np.uint8)),
        ("probabilities", np.zeros((3, 32, 47), np.uint8)),
        ("probabilities", np.zeros((3, 32, 48), np.float32)),
    ],
)
def test_products_that_do_not_fit_are_refused(tmp_path: Path, name: str, pixels: NDArray[Any]) -> None:
    path = make_store(tmp_path / "s.zarr", 70, 100, products=("confidence", "probabilities"))
    with pytest.raises(ValueError, match=r"uint8 pixels of .* are needed"):
        write_block(path, Window(0, 0, 48, 32), pixels, name)
    assert set(files_of(path)) == {
        "zarr.json", "class_mask/zarr.json", "confidence/zarr.json", "probabilities/zarr.json"
    }  # fmt: skip


def test_a_product_that_the_store_lacks_is_named(tmp_path: Path) -> None:
    path = make_store(tmp_path / "s.zarr", 70, 100, products=("confidence",))
    with pytest.raises(InputError, match=r"s\.zarr/probabilities/zarr\.json"):
        read_window(path, Window(0, 0, 48, 32), "probabilities")
    with pytest.raises(InputError, match=r"s\.zarr/probabilities/zarr\.json"):
        write_block(path, Window(0, 0, 48, 32), np.zeros((3, 32, 48), np.uint8), "probabilities")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((), ("confidence",)),
        (("confidence",), ("confidence", "probabilities")),
        (("confidence", "probabilities"), ("probabilities",)),
        (("confidence",), ()),
    ],
)
def test_a_store_with_other_products_is_refused(
    tmp_path: Path, before: tuple[str, ...], after: tuple[str, ...]
) -> None:
    path = make_store(tmp_path / "s.zarr", 70, 100, products=before)
    kept = files_of(path)
    make_store(path, 70, 100, products=before)
    with pytest.raises(InputError, match=r"s\.zarr exists and "):
        make_store(path, 70, 100, products=after)
    assert files_of(path) == kept
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.zarr"]


def test_a_damaged_shard_of_a_product_is_named_and_can_be_written_again(tmp_path: Path) -> None:
    arrays = random_products(70, 100)
    path = make_full_store(tmp_path / "s.zarr", arrays)
    whole = files_of(path)
    shard = path / "probabilities/c/0/1/1"
    shard.write_bytes(truncated(shard.read_bytes()))
    with pytest.raises(SegbatchError, match=r"s\.zarr is damaged"):
        read_window(path, Window(0, 0, 100, 70), "probabilities")
    window = Window(48, 32, 48, 32)
    write_block(path, window, arrays["probabilities"][(..., *window.slices)], "probabilities")
    assert files_of(path) == whole


def test_reading_beyond_the_scene_is_refused(tmp_path: Path) -> None:
    path = make_store(tmp_path / "s.zarr", 70, 100)
    with pytest.raises(ValueError, match="beyond"):
        read_window(path, Window(90, 0, 11, 5))


def test_creating_again_keeps_what_was_written(tmp_path: Path) -> None:
    path = make_store(tmp_path / "s.zarr", 70, 100, crs=UTM, transform=NORTH_UP)
    write_all(path, random_mask(70, 100))
    before = files_of(tmp_path)
    make_store(path, 70, 100, crs=UTM, transform=NORTH_UP)
    assert files_of(tmp_path) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.zarr"]


@pytest.mark.parametrize(
    "change",
    [
        {"shard": (16, 48)},
        {"chunk": (32, 16)},
        {"classes": ClassTable(("a", "b"), ("#000000", "#ffffff"))},
        {"crs": CRS.from_epsg(32634).to_wkt()},
        {"transform": NORTH_UP @ Affine.translation(1, 0)},
    ],
)
def test_another_scenes_store_is_refused_and_left_alone(tmp_path: Path, change: dict[str, Any]) -> None:
    path = make_store(tmp_path / "s.zarr", 70, 100, crs=UTM, transform=NORTH_UP)
    write_all(path, random_mask(70, 100))
    before = files_of(tmp_path)
    with pytest.raises(InputError, match=r"s\.zarr exists and is the class mask of another"):
        make_store(path, 70, 100, **({"crs": UTM, "transform": NORTH_UP} | change))
    assert files_of(tmp_path) == before


def test_a_killed_creation_leaves_nothing_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.zarr"
    with monkeypatch.context() as patched:
        # What SIGKILL leaves: the half-made folder is not removed, and nothing is at the final path.
        patched.setattr(shards, "coordinate_axes", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        patched.setattr("segbatch.storage.staging.shutil.rmtree", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            make_store(path, 70, 100, crs=UTM, transform=NORTH_UP)
    assert not path.exists()
    assert len(list(tmp_path.iterdir())) == 1

    make_store(path, 70, 100, crs=UTM, transform=NORTH_UP)
    expected = make_store(tmp_path / "clean.zarr", 70, 100, crs=UTM, transform=NORTH_UP)
    assert files_of(path) == files_of(expected)
    names = [entry.name for entry in tmp_path.iterdir() if not entry.name.endswith(".partial")]
    assert sorted(names) == ["clean.zarr", "s.zarr"]


def test_concurrent_creation_gives_one_whole_store(tmp_path: Path) -> None:
    path, start = tmp_path / "s.zarr", threading.Barrier(4)

    def create(_: int) -> None:
        start.wait()
        make_store(path, 70, 100, crs=UTM, transform=NORTH_UP)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(create, range(4)))
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.zarr"]
    assert files_of(path) == files_of(make_store(tmp_path / "b.zarr", 70, 100, crs=UTM, transform=NORTH_UP))


def test_clean_partial_removes_leftovers_only(tmp_path: Path) -> None:
    path = make_store(tmp_path / "s.zarr", 70, 100)
    write_all(path, random_mask(70, 100))
    whole = files_of(tmp_path)
    (path / "class_mask/c/0/0.0123456789abcdef0123456789abcdef.partial").write_bytes(b"half")
    np.testing.assert_array_equal(read_window(path, Window(0, 0, 100, 70)), random_mask(70, 100))
    clean_partial(path)
    assert files_of(tmp_path) == whole


def test_a_full_disk_names_the_shard_and_leaves_no_partial_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_store(tmp_path / "s.zarr", 70, 100)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("segbatch.storage.staging.os.fsync", full)
    with pytest.raises(SegbatchError, match=r"c/1/0 cannot be written: No space left on device"):
        write_block(path, Window(0, 32, 48, 32), np.zeros((32, 48), np.uint8))
    assert shard_files(path) == []


def test_a_store_made_in_the_place_of_another_is_not_confused_with_it(tmp_path: Path) -> None:
    path = make_store(tmp_path / "s.zarr", 70, 100)
    write_all(path, random_mask(70, 100))
    path.rename(tmp_path / "old.zarr")
    make_store(path, 20, 30, shard=(16, 16))
    write_block(path, Window(16, 16, 14, 4), np.ones((4, 14), np.uint8))
    expected = np.full((20, 30), 255, np.uint8)
    expected[16:, 16:] = 1
    np.testing.assert_array_equal(read_window(path, Window(0, 0, 30, 20)), expected)


def test_classes_come_back(tmp_path: Path) -> None:
    assert read_classes(make_store(tmp_path / "s.zarr", 70, 100)) == CLASSES


@pytest.mark.parametrize("kind", ["missing", "group", "file"])
def test_what_is_no_store_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "other.zarr"
    if kind == "group":
        zarr.create_group(path)
    elif kind == "file":
        path.write_text("no store")
    with pytest.raises(InputError, match=r"other\.zarr is not a class mask"):
        read_classes(path)
    with pytest.raises(InputError, match=r"other\.zarr is not a class mask"):
        read_window(path, Window(0, 0, 1, 1))


def test_a_chunk_that_does_not_divide_the_shard_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"chunk \(16, 20\) does not divide shard \(32, 48\)"):
        make_store(tmp_path / "s.zarr", 70, 100, chunk=(16, 20))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("height", "width"), [(70, 100), (1, 1), (200, 3), (33, 49)])
@pytest.mark.parametrize("max_side", [1, 7, 50, 1000])
def test_thumbnail_picks_the_scenes_pixels_as_gdal_does(tmp_path: Path, height: int, width: int, max_side: int) -> None:
    mask = random_mask(height, width)
    path = make_store(tmp_path / "s.zarr", height, width)
    write_all(path, mask)
    profile = {"width": width, "height": height, "count": 1, "dtype": "uint8", "transform": NORTH_UP}
    with rasterio.open(tmp_path / "scene.tif", "w", driver="GTiff", **profile) as raster:
        raster.write(mask, 1)
    with RasterScene(str(tmp_path / "scene.tif")) as scene:
        expected = scene.thumbnail(max_side, [1]).values[0]
    np.testing.assert_array_equal(thumbnail(path, max_side), expected)
