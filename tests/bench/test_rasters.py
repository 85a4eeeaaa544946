"""Virtual rasters hold what they are made of, where it was put."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from segbatch.bench.material import repeated
from segbatch.bench.rasters import dense_vrt, sparse_vrt

MakeRaster = Callable[..., str]
Paint = Callable[..., NDArray[np.uint8]]


def test_a_dense_one_repeats_its_source(tmp_path: Path, make_raster: MakeRaster, paint: Paint) -> None:
    image = paint(20, 30)
    source = Path(make_raster(tmp_path / "base.tif", image, crs="EPSG:32633", names=["a", "b", "c"]))
    dense_vrt(tmp_path / "dense.vrt", source, 6)
    with rasterio.open(tmp_path / "dense.vrt") as file:
        assert file.shape == (2 * 20, 3 * 30)
        assert file.descriptions == ("a", "b", "c")
        assert file.crs.to_epsg() == 32633
        assert np.array_equal(file.read(), np.tile(image, (1, 2, 3)))


def test_a_sparse_one_is_nodata_between_its_tiles(tmp_path: Path, make_raster: MakeRaster, paint: Paint) -> None:
    source = Path(make_raster(tmp_path / "base.tif", paint(16, 16)))
    sparse_vrt(tmp_path / "sparse.vrt", source, 100, 5)
    with rasterio.open(tmp_path / "sparse.vrt") as file:
        assert file.shape == (100, 100)
        assert file.nodata == 0
        assert (file.read_masks(1) > 0).sum() == 5 * 16 * 16
    sparse_vrt(tmp_path / "full.vrt", source, 32, 99)
    with rasterio.open(tmp_path / "full.vrt") as file:
        assert file.read_masks(1).all()


def test_repeating_cuts_what_is_too_much() -> None:
    image = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    assert repeated(image, 4)[0].tolist() == [[0, 1, 2, 0], [3, 4, 5, 3]] * 2
