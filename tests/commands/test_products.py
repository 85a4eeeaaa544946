"""Blending, test-time augmentation, products and areas of interest, from the request to the files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import zarr
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import geometry_mask
from rio_cogeo import cog_validate

from segbatch.commands.predict import predict
from segbatch.commands.request import Request
from segbatch.errors import InputError

MakeRequest = Callable[..., Request]
AT = Affine(2.0, 0, 400_000, 0, -2.0, 5_000_000)
# No edge goes through the centre of a pixel: there GDAL may decide otherwise.
CORNERS = [(400_050.3, 4_999_960.7), (400_310.9, 4_999_941.2), (400_260.4, 4_999_721.8), (400_090.6, 4_999_800.1)]
RING = [list(corner) for corner in (*CORNERS, CORNERS[0])]


@pytest.fixture
def scene(tmp_path: Path, make_raster: Callable[..., str], paint: Callable[..., NDArray[np.uint8]]) -> str:
    values = paint(200, 230)
    values[:, :40, :60] = 0
    tiles = {"tiled": True, "blockxsize": 64, "blockysize": 64}
    return make_raster(tmp_path / "a.tif", values, crs="EPSG:32633", transform=AT, nodata=0, **tiles)


@pytest.fixture
def area(tmp_path: Path) -> str:
    path = tmp_path / "area.geojson"
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    geometry = {"type": "Polygon", "coordinates": [RING]}
    feature = {"type": "Feature", "properties": {}, "geometry": geometry}
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": [feature]}))
    return str(path)


def read(path: Path) -> NDArray[np.uint8]:
    with rasterio.open(path) as dataset:
        return dataset.read().squeeze()


@pytest.mark.parametrize("how", [{}, {"blend": "hann"}, {"blend": "gaussian", "tta": "flips"}, {"tta": "d4"}])
def test_products_are_what_they_say_in_all_modes(
    tmp_path: Path, scene: str, make_request: MakeRequest, how: dict[str, Any]
) -> None:
    wanted = {"confidence": True, "probabilities": True, **how}
    predict(make_request(tmp_path / "run", {"a": scene}, inference=wanted))
    masks = tmp_path / "run" / "masks"
    mask, confidence, shares = (
        read(path) for path in (masks / "a.tif", masks / "confidence" / "a.tif", masks / "probabilities" / "a.tif")
    )
    assert shares.shape == (4, 200, 230)
    valid = mask != 255
    assert (valid == (read(Path(scene)) != 0).any(axis=0)).all()
    assert (confidence[~valid] == 255).all()
    assert (shares[:, ~valid] == 255).all()
    assert (shares.max(axis=0)[valid] == confidence[valid]).all()
    assert np.abs(shares[:, valid].sum(axis=0, dtype=int) - 254).max() <= 2  # rounding of four shares
    assert (np.take_along_axis(shares, np.where(valid, mask, 0)[None], 0)[0][valid] == confidence[valid]).all()
    for path in masks.rglob("*.tif"):
        good, errors, warnings = cog_validate(path, strict=True, quiet=True)
        assert good, (path, errors, warnings)
    store = zarr.open_group(masks / "a.zarr", mode="r")
    for name, found in (("class_mask", mask), ("confidence", confidence), ("probabilities", shares)):
        np.testing.assert_array_equal(store[name][...], found)
    assert not (masks / ".parts").exists()


def test_products_change_no_class_mask(tmp_path: Path, scene: str, make_request: MakeRequest) -> None:
    predict(make_request(tmp_path / "plain", {"a": scene}))
    predict(make_request(tmp_path / "more", {"a": scene}, inference={"probabilities": True}))
    plain, more = ((tmp_path / run / "masks" / "a.tif").read_bytes() for run in ("plain", "more"))
    assert plain == more


@pytest.mark.parametrize("blend", ["crop", "hann"])
def test_an_area_of_interest_cuts_and_changes_nothing_inside(
    tmp_path: Path, scene: str, area: str, make_request: MakeRequest, blend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    predict(make_request(tmp_path / "all", {"a": scene}, inference={"blend": blend}))
    predict(make_request(tmp_path / "part", {"a": scene}, inference={"blend": blend, "aoi": area}))
    inside = geometry_mask([{"type": "Polygon", "coordinates": [RING]}], (200, 230), AT, invert=True)
    everything, part = (read(tmp_path / run / "masks" / "a.tif") for run in ("all", "part"))
    np.testing.assert_array_equal(part, np.where(inside, everything, 255))
    with pytest.raises(InputError, match="differs in .*area of interest"):
        predict(make_request(tmp_path / "part", {"a": scene}, inference={"blend": blend}))


def test_areas_that_make_no_sense_are_refused_before_work_begins(
    tmp_path: Path, scene: str, area: str, make_request: MakeRequest
) -> None:
    far = tmp_path / "far.geojson"
    far.write_text(Path(area).read_text().replace("4999", "3999").replace("40", "30"))
    for aoi, message in ((str(far), "touches none of the scenes"), (str(tmp_path / "no.gpkg"), "does not exist")):
        with pytest.raises(InputError, match=message):
            predict(make_request(tmp_path / "run", {"a": scene}, inference={"aoi": aoi}))
    assert not (tmp_path / "run" / "masks").exists()


def test_blending_needs_an_overlap(tmp_path: Path, scene: str, make_request: MakeRequest) -> None:
    with pytest.raises(InputError, match="blend hann needs windows that overlap"):
        predict(make_request(tmp_path / "run", {"a": scene}, inference={"blend": "hann", "halo": 0}))
