"""The command line as users meet it: exit codes, one-line messages, help."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from segbatch import __version__
from segbatch.cli import main

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

MakeRaster = Callable[..., str]
Paint = Callable[..., NDArray[np.uint8]]

COMMANDS = ("demo", "train", "predict", "plan", "evaluate", "run", "report", "info", "status", "schema", "submit")


class Result(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A function that runs a command line in an empty folder and an 80-column terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def call(*arguments: object) -> Result:
        capsys.readouterr()
        try:
            main([str(argument) for argument in arguments])
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        return Result(code, *capsys.readouterr())

    return call


@pytest.fixture
def scene(tmp_path: Path, make_raster: MakeRaster, paint: Paint) -> str:
    return make_raster(tmp_path / "scene.tif", paint(60, 90))


def test_help_is_complete(run: Run) -> None:
    result = run("--help")
    assert result.code == 0
    for command in COMMANDS:
        assert f"\n  {command} " in result.out
    unwrapped = " ".join(result.out.split())
    for code in ("0 done", "1 the run failed", "2 wrong usage", "3 done, but some scenes failed"):
        assert code in unwrapped
    assert max(map(len, result.out.splitlines())) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained(run: Run, command: str) -> None:
    result = run(command, "-h")
    assert result.code == 0
    assert max(map(len, result.out.splitlines())) <= 80
    lines = result.out.split("Options:\n")[1].splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if re.match(r"  -", line):
            explained = re.search(r"\S {2,}\S", line) or re.match(r" {10,}\S", following)
            assert explained, line


def test_no_arguments_show_the_help(run: Run) -> None:
    result = run()
    assert result.code == 2
    assert "Usage: segbatch" in result.out + result.err


def test_version(run: Run) -> None:
    assert run("--version") == Result(0, f"segbatch {__version__}\n", "")


def test_the_schema_is_json_schema(run: Run) -> None:
    schema = json.loads(run("schema").out)
    assert {"classes", "scenes", "inference", "output"} <= set(schema["properties"])
    assert schema["$defs"]["Inference"]["properties"]["halo"]["description"]


def test_help_answers_without_heavy_libraries() -> None:
    code = (
        "import sys\nfrom segbatch.cli import main\n"
        "try:\n    main(['predict', '--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'ray', 'rasterio', 'zarr', 'pandas', 'numpy'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_mapping_from_the_shell(run: Run, scene: str, tiny_bundle: Path, make_raster: MakeRaster) -> None:
    make_raster("label.tif", np.zeros((60, 90), np.uint8))
    arguments = ("predict", tiny_bundle, scene, "--out", "out", "--label", "label.tif", "--engine", "inline")
    result = run(*arguments, "--core", 64, "--format", "cog")
    assert result.code == 0
    assert "mIoU" in result.out
    assert "Report: out/report/report.html" in result.out
    assert "Mapping 1 scene, 0.0 Mpx in 1 block\n" in result.err
    assert max(map(len, result.out.splitlines())) <= 80
    assert Path("out/masks/scene.tif").is_file()
    assert not Path("out/masks/scene.zarr").exists()
    again = run(*arguments, "--core", 64, "--format", "cog")
    assert again.code == 0
    assert "out: its block is done already." in again.err
    assert again.out == result.out
    assert run("report", "out").out == result.out
    other = run(*arguments, "--core", 32)
    assert other.code == 2
    assert other.err.startswith("Error: out holds a run that differs in core, halo or block size.")
    assert run(*arguments, "--core", 32, "--overwrite").code == 0


def test_mapping_from_a_configuration(run: Run, scene: str, tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "bundle").symlink_to(tiny_bundle)
    data = {
        "name": "by configuration",
        "output": "run",
        "classes": [{"name": name} for name in ("water", "forest", "field", "town")],
        "scenes": {"predict": [{"image": "*.tif"}]},
        "inference": {"engine": "inline", "format": ["zarr"]},
    }
    Path("run.yaml").write_text(yaml.safe_dump(data))
    planned = run("plan", "run.yaml", "--set", "inference.core=32")
    assert planned.code == 0
    assert re.search(r"^cores +32 x 32$", planned.out, re.MULTILINE)
    assert not Path("run/masks").exists()
    result = run("predict", "--config", "run.yaml", "--core", 64, "--set", "name=changed", "--nodata", 7)
    assert result.code == 0
    content = json.loads(Path("run/run.json").read_text())
    assert content["name"] == "changed"
    assert content["config"]["inference"]["core"] == 64
    assert content["config"]["scenes"]["nodata"] == 7
    assert Path("run/masks/scene.zarr").is_dir()
    for option in ("--out", "--label"):
        refused = run("predict", "--config", "run.yaml", option, "x")
        assert refused.code == 2
        assert f"{option} and --config exclude each other" in refused.err
    data["scenes"] = {"predict": []}
    Path("run.yaml").write_text(yaml.safe_dump(data))
    assert run("predict", "--config", "run.yaml") == Result(
        2, "", "Error: scenes.predict is empty: list at least one image.\n"
    )


def test_a_damaged_scene_is_named_and_gives_code_3(
    run: Run, scene: str, tiny_bundle: Path, make_raster: MakeRaster, paint: Paint
) -> None:
    cut = Path(make_raster("cut.tif", paint(200, 200), tiled=True, blockxsize=32, blockysize=32))
    whole = cut.read_bytes()
    cut.write_bytes(whole[: len(whole) * 3 // 4])
    arguments = ("predict", tiny_bundle, scene, "cut.tif", "--out", "out", "--engine", "inline")
    result = run(*arguments)
    assert result.code == 3
    assert "1 of 2 scenes failed:\n  cut: " in result.out
    assert run(*arguments).code == 3
    assert run("report", "out").code == 3
    cut.write_bytes(whole)
    # The damaged file was replaced by a whole one: the scene that is done stays as it is.
    sound = Path("out/masks/scene.tif").stat().st_mtime_ns
    repaired = run(*arguments)
    assert repaired.code == 0
    assert "1 done already" in repaired.err
    assert Path("out/masks/scene.tif").stat().st_mtime_ns == sound
    assert run("predict", tiny_bundle, scene, "cut.tif", "--out", "clean", "--engine", "inline").code == 0
    for mask in ("scene.tif", "cut.tif"):
        assert Path("out/masks", mask).read_bytes() == Path("clean/masks", mask).read_bytes()
    # A sound scene that changes is another run.
    os.utime(scene, (1, 1))
    changed = run(*arguments)
    assert changed.code == 2
    assert "the file itself of scene" in changed.err
    assert "--overwrite" in changed.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("predict BUNDLE missing.tif --out out", "/missing.tif does not exist."),
        ("predict BUNDLE *.nothing --out out", "No image matches"),
        ("predict BUNDLE scene.tif scene.tif --out out", "scene.tif is listed twice."),
        ("predict BUNDLE scene.tif", "Say where the class masks go with --out DIR."),
        ("predict BUNDLE --out out", "Name a bundle and at least one scene, or give --config."),
        ("predict", "Name a bundle and at least one scene, or give --config."),
        ("predict nowhere scene.tif --out out", "The bundle nowhere does not exist."),
        ("predict . scene.tif --out out", ". is not a bundle: it has no config.json."),
        ("predict BUNDLE scene.tif --out scene.tif", "The output scene.tif is a file: name a folder."),
        ("predict BUNDLE scene.tif --out http://host/x", "http://host/x is none of s3://"),
        ("predict BUNDLE scene.tif --out out --core 60", "the nearest are 56 and 64."),
        ("predict BUNDLE scene.tif --out out --format png", "should be 'cog' or 'zarr' (got 'png')"),
        ("predict BUNDLE scene.tif --out out --label a --label b", "1 scene but 2 labels: give one --label"),
        ("predict BUNDLE scene.tif --out out --bands 1,2", "are chosen, but the bundle takes 3."),
        ("predict BUNDLE scene.tif --out out --bands 1,2,red", "no single band is named 'red'"),
        ("predict BUNDLE scene.tif --out out --set a=b", "--set changes a configuration: it needs --config."),
        ("predict BUNDLE scene.tif --config run.yaml", "Give either scenes or --config, not both"),
        ("predict --config nowhere.yaml", "The configuration nowhere.yaml does not exist."),
        ("plan nowhere", "The configuration nowhere does not exist."),
        ("report nowhere", "The run nowhere does not exist."),
        ("report .", "nothing was trained, mapped or evaluated there yet."),
        ("info nowhere", "nowhere does not exist."),
        ("status nowhere", "There is no run in nowhere: it has no run.json."),
        ("info scene.tif --log xml", "--log is 'xml': choose text or json."),
        ("info .", "neither a run nor a bundle nor a class mask."),
        ("evaluate --prediction a --label b --label c --out out", "1 class masks but 2 labels"),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    run: Run, scene: str, tiny_bundle: Path, tmp_path: Path, arguments: str, message: str
) -> None:
    before = sorted(tmp_path.rglob("*"))
    result = run(*(str(tiny_bundle) if word == "BUNDLE" else word for word in arguments.split()))
    assert result.code == 2
    assert result.out == ""
    assert message in result.err
    last = result.err.rstrip("\n").splitlines()[-1]
    assert last.startswith("Error: ")
    assert "Traceback" not in result.err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "arguments",
    ["fly", "predict --speed 3", "predict --core many", "predict --engine dask", "train", "evaluate", "info a b"],
)
def test_wrong_usage_is_code_2(run: Run, arguments: str) -> None:
    result = run(*arguments.split())
    assert result.code == 2
    assert "Error: " in result.err
    assert "Try 'segbatch" in result.err


def test_unexpected_errors_show_a_traceback_on_demand_only(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("segbatch.commands.inform.inform", fail)
    assert run("info", "x") == Result(1, "", "Error: RuntimeError: first line\nAdd --debug for the traceback.\n")
    result = run("info", "x", "--debug")
    assert result.code == 1
    assert result.err.startswith("Traceback ")
    assert result.err.endswith("RuntimeError: first line\nsecond line\n")


def test_ray_that_is_terminated_while_it_starts_says_how_to_go_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it has started, Ray's own handler of SIGTERM leaves with the signal's number."""

    def leave(path: str) -> None:
        sys.exit(signal.SIGTERM)

    monkeypatch.setattr("segbatch.commands.inform.inform", leave)
    result = run("info", "x")
    assert (result.code, result.out) == (130, "")
    assert "Run the same command again" in result.err


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_ctrl_c_says_how_to_go_on(scene: str, tiny_bundle: Path, tmp_path: Path) -> None:
    code = (
        "import time\nfrom segbatch.commands import predict\n"
        "def wait(*_):\n    print('working', flush=True)\n    time.sleep(60)\n"
        "predict.open_request = wait\nfrom segbatch.cli import main\nmain()"
    )
    arguments = [sys.executable, "-c", code, "predict", str(tiny_bundle), scene, "--out", str(tmp_path / "out")]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.startswith("\nStopped. Run the same command again")
    assert len(err.splitlines()) == 2


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_read_that_hangs_does_not_keep_a_stopped_run(
    scene: str, tiny_bundle: Path, tmp_path: Path, how: signal.Signals
) -> None:
    """As from a network drive that is gone."""
    code = (
        "import time\nfrom segbatch.inference import stop\nfrom segbatch.inference.stages import ReadStage\n"
        "def hang(*_):\n    print('reading', flush=True)\n    time.sleep(300)\n"
        "stop.GRACE_SECONDS = 1\nReadStage.__call__ = hang\nfrom segbatch.cli import main\nmain()"
    )
    out = tmp_path / "out"
    words = ["predict", str(tiny_bundle), scene, "--out", str(out), "--engine", "inline"]
    process = subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"reading\n"
    time.sleep(1)
    process.send_signal(how)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 130
    assert err.endswith(b"\nStopped. Run the same command again to go on.\n")
    assert not (out / ".lock").exists()
