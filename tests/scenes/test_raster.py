"""Reading rasters, against rasterio and against the arrays that were written."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from segbatch.errors import InputError, SceneReadError
from segbatch.geometry import Window
from segbatch.scenes import SceneInfo, SceneReader, open_scene
from segbatch.scenes.scene import read_padded

MakeRaster = Callable[..., str]
WIDTH, HEIGHT = 53, 37
KINDS = [("uint8", 1), ("uint8", 4), ("uint16", 7), ("int16", 2), ("int32", 1), ("float32", 3), ("float64", 1)]


def random_pixels(dtype: str, bands: int, height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if np.issubdtype(np.dtype(dtype), np.floating):
        return rng.normal(0, 1000, (bands, height, width)).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, (bands, height, width), dtype, endpoint=True)


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: f"{kind[0]}x{kind[1]}")
def stored(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, make_raster: MakeRaster
) -> tuple[str, np.ndarray]:
    """A raster's path and what was written; odd in size, in tiles that do not divide it."""
    dtype, bands = request.param
    pixels = random_pixels(dtype, bands)
    path = tmp_path_factory.mktemp("rasters") / f"{dtype}_{bands}.tif"
    names = [f"b{band}" for band in range(1, bands + 1)]
    return make_raster(path, pixels, names=names, tiled=True, blockxsize=16, blockysize=16), pixels


def inside(data: st.DataObject) -> Window:
    col_off, row_off = data.draw(st.integers(0, WIDTH - 1)), data.draw(st.integers(0, HEIGHT - 1))
    width = data.draw(st.integers(1, WIDTH - col_off))
    return Window(col_off, row_off, width, data.draw(st.integers(1, HEIGHT - row_off)))


@given(data=st.data())
def test_read_equals_what_rasterio_reads(stored: tuple[str, np.ndarray], data: st.DataObject) -> None:
    path, written = stored
    window = inside(data)
    bands = data.draw(st.lists(st.integers(1, len(written)), min_size=1, max_size=4))
    with open_scene(path) as scene:
        pixels = scene.read(window, bands)
    with rasterio.open(path) as dataset:
        expected = dataset.read(
            bands, window=rasterio.windows.Window(window.col_off, window.row_off, window.width, window.height)
        )
    assert pixels.values.dtype == written.dtype
    np.testing.assert_array_equal(pixels.values, expected)
    np.testing.assert_array_equal(pixels.values, written[np.array(bands) - 1][:, *window.slices])
    assert pixels.valid.dtype == bool
    assert pixels.valid.shape == (window.height, window.width)
    assert pixels.valid.all()


@given(data=st.data())
def test_read_padded_is_zero_and_invalid_outside(stored: tuple[str, np.ndarray], data: st.DataObject) -> None:
    path, written = stored
    offset = st.integers(-40, 80)
    window = Window(data.draw(offset), data.draw(offset), data.draw(st.integers(1, 90)), data.draw(st.integers(1, 90)))
    halo = 140
    canvas = np.pad(written, ((0, 0), (halo, halo), (halo, halo)))
    real = np.pad(np.ones(written.shape[1:], bool), halo)
    rows, cols = window.relative_to(Window(-halo, -halo, 1, 1)).slices
    with open_scene(path) as scene:
        pixels = read_padded(scene, window, scene.info.data_bands)
    assert pixels.values.dtype == written.dtype
    expected = np.zeros((len(written), window.height, window.width), written.dtype)
    part = canvas[:, rows, cols]
    expected[:, : part.shape[1], : part.shape[2]] = part
    valid = np.zeros(expected.shape[1:], bool)
    valid[: part.shape[1], : part.shape[2]] = real[rows, cols]
    np.testing.assert_array_equal(pixels.values, expected)
    np.testing.assert_array_equal(pixels.valid, valid)


def test_info_tells_what_the_file_says(tmp_path: Path, make_raster: MakeRaster) -> None:
    transform = Affine(0.5, 0, 400_000, 0, -0.5, 6_000_000)
    path = make_raster(
        tmp_path / "a.tif",
        random_pixels("uint16", 3),
        crs="EPSG:32632",
        transform=transform,
        nodata=7,
        names=["red", "green", "nir"],
    )
    with open_scene(path) as scene:
        info = scene.info
    assert (info.uri, info.width, info.height, info.dtype) == (path, WIDTH, HEIGHT, "uint16")
    assert (info.band_names, info.data_bands, info.alpha) == (("red", "green", "nir"), (1, 2, 3), None)
    assert (info.nodata, info.transform) == (7, transform)
    assert rasterio.crs.CRS.from_wkt(info.crs or "") == rasterio.crs.CRS.from_epsg(32632)
    assert info.window == Window(0, 0, WIDTH, HEIGHT)
    assert (info.size, info.modified) == (os.stat(path).st_size, os.stat(path).st_mtime_ns)


def test_an_image_without_a_map_gives_no_warning_in_any_thread(tmp_path: Path, make_raster: MakeRaster) -> None:
    path = make_raster(tmp_path / "a.png", random_pixels("uint8", 3))
    # A process of its own, since pytest sets the filters of warnings itself.
    program = """
import sys
from concurrent.futures import ThreadPoolExecutor
from segbatch.scenes import open_scene
with ThreadPoolExecutor(8) as pool:
    infos = list(pool.map(lambda _: open_scene(sys.argv[1]).info, range(64)))
assert all(info.crs is None and info.transform.is_identity for info in infos)
"""
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def read_all(path: str, bands: tuple[int, ...] | None = None, nodata: float | None = None) -> np.ndarray:
    with open_scene(path, nodata) as scene:
        return scene.read(scene.info.window, bands or scene.info.data_bands).valid


def test_nodata_needs_all_selected_bands(tmp_path: Path, make_raster: MakeRaster) -> None:
    pixels = np.ones((3, 2, 3), np.uint8)
    pixels[:, 0, 0] = 0  # all bands
    pixels[0, 0, 1] = 0  # red alone: a dark pixel
    pixels[:2, 0, 2] = 0  # red and green
    path = make_raster(tmp_path / "a.tif", pixels, nodata=0)
    assert read_all(path).tolist() == [[False, True, True], [True, True, True]]
    assert read_all(path, (1, 2)).tolist() == [[False, True, False], [True, True, True]]
    assert read_all(path, (3,)).tolist() == [[False, True, True], [True, True, True]]


def test_without_nodata_zero_is_a_value(tmp_path: Path, make_raster: MakeRaster) -> None:
    path = make_raster(tmp_path / "a.tif", np.zeros((3, 4, 4), np.uint8))
    assert read_all(path).all()


def test_nodata_can_be_overridden(tmp_path: Path, make_raster: MakeRaster) -> None:
    path = make_raster(tmp_path / "a.tif", np.array([[0, 7, 9]], np.int16), nodata=9)
    assert read_all(path).tolist() == [[True, True, False]]
    assert read_all(path, nodata=0).tolist() == [[False, True, True]]
    assert read_all(path, nodata=-9999).tolist() == [[True, True, True]]
    assert read_all(path, nodata=float("nan")).tolist() == [[True, True, True]]
    with open_scene(path, nodata=0) as scene:
        assert scene.info.nodata == 0


def test_nodata_beyond_the_pixel_type_marks_nothing(tmp_path: Path, make_raster: MakeRaster) -> None:
    path = make_raster(tmp_path / "a.tif", np.array([[0, 241, 255]], np.uint8))  # 241 = -9999 modulo 256
    assert read_all(path, nodata=-9999).all()


@pytest.mark.parametrize("nodata", [-3.4028234663852886e38, -9999.1, 1e-3])
def test_nodata_of_floats_is_compared_in_their_precision(
    tmp_path: Path, make_raster: MakeRaster, nodata: float
) -> None:
    path = make_raster(tmp_path / "a.tif", np.array([[nodata, 0, 5]], np.float32), nodata=nodata)
    assert read_all(path).tolist() == [[False, True, True]]


@pytest.mark.parametrize("nodata", [None, -1.0, float("nan")])
def test_a_pixel_that_is_not_finite_in_any_band_is_invalid(
    tmp_path: Path, make_raster: MakeRaster, nodata: float | None
) -> None:
    pixels = np.ones((2, 1, 5), np.float32)
    pixels[0, 0, 0] = np.nan
    pixels[1, 0, 1] = np.inf
    pixels[1, 0, 2] = -np.inf
    pixels[:, 0, 3] = np.nan
    path = make_raster(tmp_path / "a.tif", pixels, nodata=nodata)
    assert read_all(path).tolist() == [[False, False, False, False, True]]
    assert read_all(path, (1,)).tolist() == [[False, True, True, False, True]]


@pytest.mark.parametrize(("bands", "ending"), [(2, "png"), (4, "png"), (2, "tif"), (4, "tif")])
def test_an_alpha_band_is_the_valid_mask(tmp_path: Path, make_raster: MakeRaster, bands: int, ending: str) -> None:
    pixels = random_pixels("uint8", bands)
    pixels[-1] = np.random.default_rng(1).choice([0, 1, 255], pixels.shape[1:])
    kinds = ["gray", "alpha"] if bands == 2 else ["red", "green", "blue", "alpha"]
    path = make_raster(tmp_path / f"a.{ending}", pixels, colorinterp=kinds)
    with open_scene(path) as scene:
        assert scene.info.alpha == bands
        assert scene.info.data_bands == tuple(range(1, bands))
        window = Window(3, 5, 20, 19)
        got = scene.read(window, scene.info.data_bands)
    np.testing.assert_array_equal(got.valid, pixels[-1][window.slices] > 0)
    np.testing.assert_array_equal(got.values, pixels[:-1][:, *window.slices])


def test_an_alpha_band_that_is_asked_for_is_data(tmp_path: Path, make_raster: MakeRaster) -> None:
    """Four bands without names: GDAL calls the fourth alpha, the user knows better."""
    pixels = random_pixels("uint8", 4)
    pixels[3, :10] = 0
    path = make_raster(tmp_path / "a.tif", pixels, colorinterp=["red", "green", "blue", "alpha"])
    assert read_all(path, (1, 2, 3, 4)).all()
    assert not read_all(path, (1, 2, 3))[:10].any()


def test_a_fourth_band_with_a_name_of_its_own_is_data(tmp_path: Path, make_raster: MakeRaster) -> None:
    pixels = random_pixels("uint8", 4)
    pixels[3, :10] = 0
    kinds = ["red", "green", "blue", "alpha"]
    path = make_raster(tmp_path / "nir.tif", pixels, colorinterp=kinds, names=["red", "green", "blue", "nir"])
    with open_scene(path) as scene:
        assert (scene.info.alpha, scene.info.data_bands) == (None, (1, 2, 3, 4))
    assert read_all(path).all()
    path = make_raster(tmp_path / "alpha.tif", pixels, colorinterp=kinds, names=["red", "green", "blue", "Alpha"])
    with open_scene(path) as scene:
        assert scene.info.alpha == 4


def test_a_mask_inside_the_file_counts(tmp_path: Path, make_raster: MakeRaster) -> None:
    mask = np.random.default_rng(3).random((HEIGHT, WIDTH)) > 0.4
    path = make_raster(tmp_path / "a.tif", random_pixels("uint8", 3), mask=mask, photometric="RGB")
    np.testing.assert_array_equal(read_all(path), mask)
    np.testing.assert_array_equal(read_all(path, (2,)), mask)


def test_a_mask_counts_beside_nodata(tmp_path: Path, make_raster: MakeRaster) -> None:
    pixels = random_pixels("uint8", 1)
    mask = np.random.default_rng(3).random((HEIGHT, WIDTH)) > 0.4
    path = make_raster(tmp_path / "a.tif", pixels, mask=mask)
    np.testing.assert_array_equal(read_all(path, nodata=5), mask & (pixels[0] != 5))


@pytest.fixture
def named_bands(tmp_path: Path, make_raster: MakeRaster) -> SceneInfo:
    path = make_raster(tmp_path / "a.tif", random_pixels("uint16", 4), names=["Red", "NIR", "", "nir"])
    with open_scene(path) as scene:
        return scene.info


def test_bands_are_selected_by_number_or_name(named_bands: SceneInfo) -> None:
    assert named_bands.select_bands(None) == (1, 2, 3, 4)
    assert named_bands.select_bands([3, "red", 1]) == (3, 1, 1)


@pytest.mark.parametrize("wanted", [0, 5, -1])
def test_a_band_number_outside_is_refused(named_bands: SceneInfo, wanted: int) -> None:
    with pytest.raises(InputError, match=f"a.tif: band {wanted} asked for, but bands are 1 to 4"):
        named_bands.select_bands([1, wanted])


@pytest.mark.parametrize("wanted", ["blue", "nir"])
def test_a_band_name_that_is_unknown_or_not_unique_is_refused(named_bands: SceneInfo, wanted: str) -> None:
    with pytest.raises(InputError, match=rf"a.tif: no single band is named '{wanted}'; .* Red, NIR, \(no name\), nir"):
        named_bands.select_bands([wanted])


def check_damaged(read: Callable[[SceneReader], object], path: str) -> None:
    with open_scene(path) as scene, pytest.raises(SceneReadError, match="is damaged") as caught:
        read(scene)
    message = str(caught.value)
    assert path in message
    assert "previous exception" not in message
    assert len(message.splitlines()) <= 2


def test_a_tiff_cut_short_fails_when_it_is_read(tmp_path: Path, make_raster: MakeRaster) -> None:
    path = make_raster(
        tmp_path / "a.tif",
        random_pixels("uint8", 3, 300, 300),
        tiled=True,
        blockxsize=64,
        blockysize=64,
        compress="deflate",
    )
    os.truncate(path, os.path.getsize(path) * 2 // 3)
    with open_scene(path) as scene:
        assert scene.read(Window(0, 0, 64, 64), (1, 2, 3)).valid.all()  # what is there can still be read
    check_damaged(lambda scene: scene.read(Window(236, 236, 64, 64), (1, 2, 3)), path)
    check_damaged(lambda scene: scene.thumbnail(100, (1,)), path)


@pytest.mark.parametrize("bands", [1, 2, 3])
def test_a_png_cut_short_fails_when_it_is_read(tmp_path: Path, make_raster: MakeRaster, bands: int) -> None:
    """Also where all of it is read at once, which GDAL's short cut for PNGs passes over in silence."""
    path = make_raster(tmp_path / "a.png", random_pixels("uint8", bands, 300, 300))
    os.truncate(path, os.path.getsize(path) // 2)
    check_damaged(lambda scene: scene.read(scene.info.window, range(1, bands + 1)), path)
    check_damaged(lambda scene: scene.read(Window(0, 200, 300, 100), (1,)), path)


def test_a_jpeg_cut_short_fails_when_it_is_read(tmp_path: Path, make_raster: MakeRaster) -> None:
    path = make_raster(tmp_path / "a.jpg", random_pixels("uint8", 3, 300, 300))
    os.truncate(path, os.path.getsize(path) // 2)
    check_damaged(lambda scene: scene.read(scene.info.window, (1, 2, 3)), path)


def test_what_is_not_there_or_no_image_is_refused_by_name(tmp_path: Path) -> None:
    missing, folder, text, empty = (str(tmp_path / name) for name in ("none.tif", "folder", "text.tif", "empty.tif"))
    os.mkdir(folder)
    Path(text).write_text("no image at all")
    Path(empty).touch()
    for path, what in (
        (missing, "does not exist"),
        (folder, "is a folder"),
        (text, "cannot be read as an image"),
        (empty, "is empty: it has 0 bytes"),
    ):
        with pytest.raises(InputError, match=what) as caught:
            open_scene(path)
        assert path in str(caught.value)
        assert caught.value.exit_code == 2


def test_complex_pixels_are_refused(tmp_path: Path, make_raster: MakeRaster) -> None:
    path = make_raster(tmp_path / "a.tif", np.ones((1, 4, 4), np.complex64))
    with pytest.raises(InputError, match="pixels of type complex64"):
        open_scene(path)


def write_vrt(path: Path, bands: list[tuple[str, str, str]]) -> str:
    """A virtual raster of one-band files: (GDAL's type, file, colour interpretation) by band."""
    xml = "".join(
        f'<VRTRasterBand dataType="{kind}" band="{number}"><ColorInterp>{interp}</ColorInterp><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">{file}</SourceFilename><SourceBand>1</SourceBand>'
        "</SimpleSource></VRTRasterBand>"
        for number, (kind, file, interp) in enumerate(bands, start=1)
    )
    path.write_text(f'<VRTDataset rasterXSize="{WIDTH}" rasterYSize="{HEIGHT}">{xml}</VRTDataset>')
    return str(path)


def test_bands_of_different_types_are_refused(tmp_path: Path, make_raster: MakeRaster) -> None:
    make_raster(tmp_path / "byte.tif", random_pixels("uint8", 1))
    make_raster(tmp_path / "short.tif", random_pixels("uint16", 1))
    path = write_vrt(tmp_path / "a.vrt", [("Byte", "byte.tif", "Gray"), ("UInt16", "short.tif", "Undefined")])
    with pytest.raises(InputError, match=r"a\.vrt has bands of different types \(uint16, uint8\)"):
        open_scene(path)


def test_an_alpha_band_may_have_another_type(tmp_path: Path, make_raster: MakeRaster) -> None:
    alpha = np.random.default_rng(0).choice([0, 255], (HEIGHT, WIDTH)).astype(np.uint8)
    make_raster(tmp_path / "alpha.tif", alpha)
    data = random_pixels("uint16", 1)
    make_raster(tmp_path / "short.tif", data)
    path = write_vrt(tmp_path / "a.vrt", [("UInt16", "short.tif", "Gray"), ("Byte", "alpha.tif", "Alpha")])
    with open_scene(path) as scene:
        assert (scene.info.dtype, scene.info.alpha) == ("uint16", 2)
        pixels = scene.read(scene.info.window, scene.info.data_bands)
    np.testing.assert_array_equal(pixels.values, data)
    np.testing.assert_array_equal(pixels.valid, alpha > 0)


@pytest.mark.parametrize(
    ("height", "width", "max_side", "expected"),
    [
        (37, 53, 20, (14, 20)),
        (53, 37, 20, (20, 14)),
        (37, 53, 53, (37, 53)),
        (37, 53, 1000, (37, 53)),
        (2, 400, 40, (1, 40)),
        (400, 1, 40, (40, 1)),
    ],
)
def test_thumbnails_keep_the_aspect_and_fit(
    tmp_path: Path, make_raster: MakeRaster, height: int, width: int, max_side: int, expected: tuple[int, int]
) -> None:
    written = random_pixels("uint16", 2, height, width)
    with open_scene(make_raster(tmp_path / "a.tif", written)) as scene:
        pixels = scene.thumbnail(max_side, (2, 1))
    assert pixels.values.shape == (2, *expected)
    assert pixels.valid.shape == expected
    # Nearest neighbour: nothing but values of the scene, band by band.
    assert np.isin(pixels.values[0], written[1]).all()
    assert np.isin(pixels.values[1], written[0]).all()
    if max_side >= max(height, width):
        np.testing.assert_array_equal(pixels.values, written[::-1])


def test_a_thumbnail_has_the_valid_mask_of_its_own_pixels(tmp_path: Path, make_raster: MakeRaster) -> None:
    written = random_pixels("uint8", 1, 200, 200)
    written[0, :100] = 0
    with open_scene(make_raster(tmp_path / "a.tif", written, nodata=0)) as scene:
        pixels = scene.thumbnail(50, (1,))
    np.testing.assert_array_equal(pixels.valid, pixels.values[0] != 0)
    assert not pixels.valid[:25].any()
    assert pixels.valid[25:].mean() > 0.9


def test_code_in_a_vrt_is_not_executed(
    tmp_path: Path, make_raster: MakeRaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GDAL_VRT_ENABLE_PYTHON", raising=False)  # who sets it wants it
    source, executed = make_raster(tmp_path / "a.tif", random_pixels("uint8", 1, 8, 8)), tmp_path / "executed"
    code = f"open({str(executed)!r}, 'w')\ndef f(*arguments, **more):\n    pass\n"
    vrt = tmp_path / "a.vrt"
    vrt.write_text(
        '<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1" '
        'subClass="VRTDerivedRasterBand"><PixelFunctionType>f</PixelFunctionType><PixelFunctionLanguage>Python'
        f"</PixelFunctionLanguage><PixelFunctionCode><![CDATA[{code}]]></PixelFunctionCode><SimpleSource>"
        f"<SourceFilename>{source}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with pytest.raises((InputError, SceneReadError)), open_scene(str(vrt)) as scene:
        scene.read(scene.info.window, (1,))
    assert not executed.exists()


def test_the_naip_images_have_four_data_bands(data_dir: Path) -> None:
    """Their fourth band is tagged as alpha and named nir."""
    with open_scene(str(data_dir / "naip" / "m_3707504_ne_image.tif")) as scene:
        assert scene.info.data_bands == scene.info.select_bands(["red", "green", "blue", "nir"]) == (1, 2, 3, 4)
        assert scene.read(Window(1000, 1000, 256, 256), (1, 2, 3, 4)).valid.all()


def test_the_gray_and_alpha_micrograph_has_one_data_band(data_dir: Path) -> None:
    with open_scene(str(data_dir / "sem" / "images" / "sub-rat6_sample-data15_SEM.png")) as scene:
        assert (scene.info.data_bands, scene.info.alpha) == ((1,), 2)
