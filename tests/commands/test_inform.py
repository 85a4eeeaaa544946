"""What `info` and `plan` tell."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from numpy.typing import NDArray

from segbatch.commands.forecast import forecast, plan_lines
from segbatch.commands.inform import inform
from segbatch.commands.plan import plan
from segbatch.commands.predict import predict
from segbatch.commands.request import Request
from segbatch.commands.workers import local_workers
from segbatch.errors import InputError
from segbatch.models.profile import Profile, Speed, write_profile

MakeRaster = Callable[..., str]
Paint = Callable[..., NDArray[np.uint8]]

AT = Affine(0.6, 0, 399960.35, 0, -0.6, 5000040.75)


@pytest.fixture
def scene(tmp_path: Path, make_raster: MakeRaster, paint: Paint) -> str:
    return make_raster(
        tmp_path / "a.tif", paint(100, 200), crs="EPSG:32633", transform=AT, nodata=0, names=["red", "green", "blue"]
    )


def test_a_scene(scene: str) -> None:
    lines = dict(inform(scene))
    assert lines["what"] == "scene"
    assert lines["size"].startswith("200 x 100 px")
    assert lines["bands"] == "3 (red, green, blue), uint8"
    assert lines["nodata"] == "0"
    assert lines["CRS"] == "EPSG:32633"
    assert lines["pixel size"] == "0.6 x 0.6 metre"
    assert lines["upper left"] == "399960.35, 5000040.75"
    assert "classes" not in lines


def test_a_scene_without_a_map(tmp_path: Path, make_raster: MakeRaster) -> None:
    lines = dict(inform(make_raster(tmp_path / "a.png", np.zeros((4, 10, 20), np.uint8))))
    assert lines["CRS"] == "none"
    assert lines["alpha"] == "band 4 says which pixels are real"


def test_a_bundle(tiny_bundle: Path) -> None:
    lines = dict(inform(str(tiny_bundle)))
    assert lines["what"] == "bundle"
    assert lines["network"] == "Unet with resnet18"
    assert lines["classes"] == "water, forest, field, town"
    assert (lines["stride"], lines["halo"]) == ("8 px", "16 px, not measured")
    assert lines["mean"] == "100, 110, 90"


def test_a_run_and_its_masks(tmp_path: Path, scene: str, make_request: Callable[..., Request]) -> None:
    predict(make_request(tmp_path / "run", {"a": scene}))
    lines = dict(inform(str(tmp_path / "run")))
    assert lines["what"] == "run"
    assert (lines["mapping"], lines["blocks"]) == ("done", "1 done")
    assert Path(lines["report"]).is_file()
    for name, what in (("a.zarr", "class mask (Zarr)"), ("a.tif", "class mask")):
        mask = dict(inform(str(tmp_path / "run" / "masks" / name)))
        assert mask["what"] == what
        assert mask["classes"] == "water, forest, field, town"
        assert mask["CRS"] == "EPSG:32633"
        assert mask["upper left"] == "399960.35, 5000040.75"


def test_a_configuration(tmp_path: Path) -> None:
    path = tmp_path / "land cover.yaml"
    path.write_text("name: land cover\noutput: runs/land\nclasses: [{name: a}, {name: b}]\n")
    assert inform(str(path)) == [
        ("what", "configuration"),
        ("name", "land cover"),
        ("output", "runs/land"),
        ("next", f"segbatch plan '{path}' says what a run would do and cost"),
    ]
    with pytest.raises(InputError, match="The configuration .* does not exist"):
        inform(str(tmp_path / "x.yml"))


def test_what_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("no image")
    for path, message in [(tmp_path, "neither a run nor"), (tmp_path / "x", "does not exist"), (tmp_path / "text.txt", "cannot be read")]:  # fmt: skip  # noqa: E501
        with pytest.raises(InputError, match=message):
            inform(str(path))


def test_a_plan_s_costs(scene: str, tmp_path: Path, make_request: Callable[..., Request]) -> None:
    request = make_request(tmp_path / "run", {"a": scene}, inference={"batch_size": 2})
    lines = dict(plan_lines(request, plan(request)))
    assert lines["cores"] == "64 x 64"
    assert lines["windows"].startswith("8,")  # 2 x 4 cores
    assert lines["waste"].startswith(f"{8 * 80 * 96 / (100 * 200):.2f} ")
    assert lines["model input"].startswith("2 x 0.01 Mpx")
    assert lines["class masks"] == "20 KB before compression"
    assert lines["time"].startswith("not known yet")


def test_a_forecast_knows_the_time_once_the_bundle_was_measured(
    scene: str, tmp_path: Path, tiny_bundle: Path, make_request: Callable[..., Request]
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, bundle)
    request = make_request(tmp_path / "run", {"a": scene}, bundle=bundle)
    before = forecast(request, plan(request))
    assert (before.seconds, before.basis) == (None, "")
    write_profile(bundle, Profile(local_workers().device, 100.0, {"eager/float32": Speed(1.0, 0.0, 1.0)}))
    after = forecast(request, plan(request))
    assert after.costs == before.costs
    assert after.actor_bytes < before.actor_bytes  # 100 bytes a pixel are less than what is taken where none is known
    assert after.seconds is not None
    assert after.seconds > after.costs.pixels_run / 1e6  # at a million pixels a second
