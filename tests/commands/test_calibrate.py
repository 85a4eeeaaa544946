"""`segbatch calibrate` from its words to the bundle's card."""

import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import segbatch.commands.calibrate as calibrate_module
from segbatch.cli import main
from segbatch.commands.calibrate import calibrate
from segbatch.commands.folder import RunFolder
from segbatch.commands.training_progress import TrainingProgress
from segbatch.errors import InputError
from segbatch.models.card import bundle_hash, read_card
from segbatch.models.halo import HaloCurve

WriteRaster = Callable[..., str]
Paint = Callable[..., NDArray[np.uint8]]


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_bundle, tmp_path / "bundle", ignore=shutil.ignore_patterns(".cache"))
    return tmp_path / "bundle"


@pytest.fixture
def scene(tmp_path: Path, make_raster: WriteRaster, paint: Paint) -> str:
    return make_raster(tmp_path / "scene.tif", paint(250, 300))


def test_the_curve_goes_on_the_card_and_nothing_else_changes(bundle: Path, scene: str) -> None:
    known = bundle_hash(bundle)
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    found = calibrate(bundle, [scene])
    after = {path.name: path.read_bytes() for path in bundle.iterdir()}
    assert after.keys() == before.keys()
    assert [name for name in before if before[name] != after[name]] == ["segbatch.json"]
    assert read_card(bundle) == found.card
    assert found.curve.points[0][1] > found.curve.points[-1][1]
    assert bundle_hash(bundle) == known
    assert calibrate(bundle, [scene]).curve == found.curve


def test_the_table_says_what_each_halo_is_worth_and_costs_and_which_is_taken(bundle: Path, scene: str) -> None:
    found = calibrate(bundle, [scene])
    lines = dict(found.lines(0.5))
    assert lines["measured on"] == f"{found.curve.pixels / 1e6:.1f} million pixels of 1 scene"
    halo, share = found.curve.points[2]
    assert lines[f"halo {halo} px"].startswith(f"{share:.1e} of pixels differ")
    assert f"{((1024 + 2 * halo) / 1024) ** 2:.2f} pixels run" in lines[f"halo {halo} px"]
    assert lines["auto"].startswith("takes 8 px at cores of 1024 px, the smallest halo with at most 5e-01")
    assert "none that is good enough" in dict(found.lines(1e-12))["auto"]


def test_bands_and_nodata_are_read_as_mapping_reads_them(
    bundle: Path, tmp_path: Path, make_raster: WriteRaster, paint: Paint
) -> None:
    image = paint(250, 300)
    image[:, :60] = 0
    expected = calibrate(bundle, [make_raster(tmp_path / "plain.tif", image, nodata=0)]).curve
    turned = make_raster(tmp_path / "turned.tif", np.concatenate([image[:2] * 0 + 9, image[::-1]]))
    assert calibrate(bundle, [turned], bands=[5, 4, 3], nodata=0).curve == expected
    with pytest.raises(InputError, match="turned.tif has 5 bands, but the bundle takes 3"):
        calibrate(bundle, [turned])


def test_scenes_that_are_too_small_are_left_out(
    bundle: Path, scene: str, tmp_path: Path, make_raster: WriteRaster, paint: Paint
) -> None:
    small = make_raster(tmp_path / "small.tif", paint(40, 300))
    assert calibrate(bundle, [small, scene]).curve == calibrate(bundle, [scene]).curve
    with pytest.raises(InputError, match="largest scene has 300 x 40 pixels.* stride 8 takes 48 x 48"):
        calibrate(bundle, [small])


def test_bad_input_leaves_the_card_as_it_is(
    bundle: Path, scene: str, tmp_path: Path, make_raster: WriteRaster, paint: Paint, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (bundle / "segbatch.json").read_bytes()
    empty = make_raster(tmp_path / "empty.tif", np.zeros((3, 250, 300), np.uint8), nodata=0)
    deep = make_raster(tmp_path / "deep.tif", paint(250, 300).astype(np.uint16))
    for images, said in (
        ([empty], "too few valid pixels.*--nodata"),
        ([deep], "deep.tif holds uint16"),
        (
            [str(tmp_path / "gone.tif"), str(tmp_path / "lost.tif")],
            r"gone.tif does not exist. \(The same goes for lost",
        ),
        ([str(tmp_path / "gone*.tif")], "No image matches"),
    ):
        with pytest.raises(InputError, match=said):
            calibrate(bundle, images)
    with pytest.raises(InputError, match="is not a bundle"):
        calibrate(tmp_path, [scene])
    with monkeypatch.context() as patched:
        patched.setattr(calibrate_module.os, "access", lambda path, mode: False)
        with pytest.raises(InputError, match="cannot be written to"):
            calibrate(bundle, [scene])

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(calibrate_module, "write_halo_curve", full)
        with pytest.raises(InputError, match="segbatch.json cannot be written: No space left"):
            calibrate(bundle, [scene])
    assert (bundle / "segbatch.json").read_bytes() == before


@pytest.mark.parametrize(
    ("curve", "said"),
    [
        (None, "halo 64 px: the scenes are too small or too empty"),
        (
            HaloCurve(1024, ((0, 0.1), (32, 1.3e-3), (64, 3e-5)), 10),
            "a halo of 32 px: 1.3e-03, 64 px: 3.0e-05",
        ),
    ],
)
def test_training_says_what_was_found(curve: HaloCurve | None, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    TrainingProgress(("a", "b"), 8)({"kind": "halo", "halo": 64, "curve": curve and curve.to_json()})
    assert said in capsys.readouterr().err


def segbatch(*words: str) -> tuple[object, str]:
    """Call the command line in this process: its exit code, and what it says."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said), pytest.raises(SystemExit) as ended:
        main(list(words))
    return ended.value.code or 0, said.getvalue()


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize("is_measured", [False, True])
def test_sigterm_ends_it_and_leaves_the_bundle_as_it_is(
    bundle: Path, scene: str, monkeypatch: pytest.MonkeyPatch, is_measured: bool
) -> None:
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    measure = calibrate_module._measure

    def terminated(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    def measured(*details: Any) -> HaloCurve:
        monkeypatch.setattr(os, "fsync", terminated)  # of the new card
        return measure(*details)

    monkeypatch.setattr(calibrate_module, "_measure", measured if is_measured else terminated)
    code, said = segbatch("calibrate", str(bundle), scene)
    assert code == 130
    assert "Stopped. Run the same command again" in said
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before


HOLD = """
import sys, time
from pathlib import Path
from segbatch.commands.folder import RunFolder
from segbatch.commands.lock import hold
with hold(RunFolder(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("of_a_run", [False, True])
def test_a_bundle_that_another_command_writes_is_left_alone(
    bundle: Path, scene: str, tmp_path: Path, of_a_run: bool
) -> None:
    """Another calibration; or a training, which holds the whole run."""
    held = bundle
    if of_a_run:
        held = tmp_path
        RunFolder(held).update(training={"state": "running"})
    before = (bundle / "segbatch.json").read_bytes()
    with subprocess.Popen([sys.executable, "-c", HOLD, str(held)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        code, said = segbatch("calibrate", str(bundle), scene)
        other.kill()
    assert code == 2
    assert f"{held} is being written by" in said
    assert f"process {other.pid} on " in said
    assert (bundle / "segbatch.json").read_bytes() == before
    assert segbatch("calibrate", str(bundle), scene)[0] == 0  # the dead hold nothing


def test_the_command_line(bundle: Path, scene: str) -> None:
    code, said = segbatch("calibrate", str(bundle), scene, "--bands", "1,2,3", "--nodata", "0")
    assert code == 0, said
    assert re.search(r"halo 8 px +\d\.\de-\d+ of pixels differ from the whole image's", said)
    assert re.search(r"auto +takes \d+ px at cores of 1024 px", said)
    assert read_card(bundle).halo_curve is not None
    code, said = segbatch("calibrate", str(bundle), scene, "--bands", "1,2")
    assert code == 2
    assert "2 bands of" in said
    assert "but the bundle takes 3" in said
    code, said = segbatch("calibrate", str(bundle / "nothing"), scene)
    assert code == 2
    assert "does not exist" in said
