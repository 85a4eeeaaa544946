"""Going on after an interruption: by hand-made states, and after kill -9 at random moments."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from segbatch.commands import predict as command
from segbatch.commands import workers
from segbatch.commands.folder import RunFolder
from segbatch.commands.predict import predict
from segbatch.commands.request import Request
from segbatch.config import load_config
from segbatch.errors import InputError
from segbatch.inference.ledger import read_ledger

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

MakeRaster = Callable[..., str]
Paint = Callable[..., NDArray[np.uint8]]
MakeRequest = Callable[..., Request]
FilesIn = Callable[[Path], dict[str, bytes]]
Leftovers = Callable[[Path], list[Path]]

CLI = [sys.executable, "-c", "from segbatch.cli import main; main()"]


@pytest.fixture
def images(tmp_path: Path, make_raster: MakeRaster, paint: Paint) -> dict[str, str]:
    """Two scenes, of one block and of several."""
    return {
        "one": make_raster(tmp_path / "one.tif", paint(100, 120, 1)),
        "more": make_raster(tmp_path / "more.tif", paint(640, 600, 2)),
    }


def ledger_lines(folder: Path) -> list[str]:
    return sorted(line for file in (folder / "ledger").glob("*.jsonl") for line in file.read_text().splitlines())


SMALL_BLOCKS = {"block_mb": 1}


def test_a_finished_run_does_nothing_and_says_so(
    tmp_path: Path,
    images: dict[str, str],
    make_request: MakeRequest,
    files_in: FilesIn,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("work was begun")

    first = predict(make_request(tmp_path / "run", images))
    monkeypatch.setattr(command, "_engine", fail)
    monkeypatch.setattr(workers, "ray_session", fail)
    before = files_in(tmp_path / "run")
    capsys.readouterr()
    assert predict(make_request(tmp_path / "run", images, inference={"engine": "ray"})) == first
    assert "all 2 blocks are done already" in capsys.readouterr().err
    assert files_in(tmp_path / "run") == before


def test_an_interrupted_run_does_what_is_left(
    tmp_path: Path, images: dict[str, str], make_request: MakeRequest, files_in: FilesIn, leftovers: Leftovers
) -> None:
    request = make_request(tmp_path / "run", images, inference=SMALL_BLOCKS)
    clean = predict(request)
    expected = files_in(tmp_path / "run" / "masks")
    (ledger,) = (tmp_path / "run" / "ledger").glob("*.jsonl")
    lines = ledger.read_bytes().splitlines(keepends=True)
    assert len(lines) == 5
    # As a kill would leave it: the last row torn, its shard there or half there, no COG, temporary files.
    torn = json.loads(lines[-1])
    ledger.write_bytes(b"".join(lines[:-1]) + lines[-1][:-20])
    masks = tmp_path / "run" / "masks"
    (masks / f"{torn['scene']}.tif").unlink()
    shards = masks / f"{torn['scene']}.zarr" / "class_mask" / "c"
    (shards / "0" / f"0.{'a' * 32}.partial").write_bytes(b"half")
    (masks / f".one.tif.{'b' * 32}.partial").mkdir()
    (masks / f".one.tif.{'b' * 32}.partial" / "plain.tif").write_bytes(b"half")
    for name in ("run.json", "ledger/scenes.json"):
        (tmp_path / "run" / name).with_name(f".{Path(name).name}.123.partial").write_bytes(b"{")

    assert predict(request) == clean
    assert files_in(masks) == expected
    assert leftovers(tmp_path / "run") == []
    new = [file for file in (tmp_path / "run" / "ledger").glob("*.jsonl") if file != ledger]
    (again,) = (json.loads(line) for file in new for line in file.read_text().splitlines())
    assert (again["scene"], again["block"]) == (torn["scene"], torn["block"])
    assert again["checksum"] == torn["checksum"]


@pytest.mark.parametrize("formats", [["cog", "zarr"], ["zarr"]])
def test_class_masks_that_have_gone_are_made_again(
    tmp_path: Path, images: dict[str, str], make_request: MakeRequest, files_in: FilesIn, formats: list[str]
) -> None:
    request = make_request(tmp_path / "run", images, inference={**SMALL_BLOCKS, "format": formats})
    predict(request)
    expected = files_in(tmp_path / "run" / "masks")
    shutil.rmtree(tmp_path / "run" / "masks" / "more.zarr")
    predict(request)
    assert files_in(tmp_path / "run" / "masks") == expected


def test_a_kill_while_lost_masks_are_made_again_loses_no_block(
    tmp_path: Path,
    images: dict[str, str],
    make_request: MakeRequest,
    files_in: FilesIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The old rows must not speak for shards that are no longer there."""
    request = make_request(tmp_path / "run", images, inference=SMALL_BLOCKS)
    predict(request)
    expected = files_in(tmp_path / "run" / "masks")
    for file in ("more.zarr", "more.tif", "more.tif.aux.xml"):
        path = tmp_path / "run" / "masks" / file
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with monkeypatch.context() as killed:

        def die(*_: object) -> Iterator[Any]:
            raise KeyboardInterrupt

        killed.setattr(command, "_engine", die)
        with pytest.raises(KeyboardInterrupt):
            predict(request)
    assert {scene for scene, _ in read_ledger(tmp_path / "run" / "ledger")} == {"one"}
    predict(request)
    assert files_in(tmp_path / "run" / "masks") == expected


def test_more_formats_can_be_asked_for_later_and_none_is_thrown_away(
    tmp_path: Path, images: dict[str, str], make_request: MakeRequest, files_in: FilesIn
) -> None:
    def names() -> list[str]:
        return sorted(path.name for path in (tmp_path / "run" / "masks").iterdir() if path.suffix != ".xml")

    def run(*formats: str, **more: Any) -> None:
        predict(make_request(tmp_path / "run", images, inference={"format": list(formats)}, **more))

    run("cog", "zarr")
    both = files_in(tmp_path / "run" / "masks")
    with pytest.raises(InputError, match=r"run holds class masks as cog and zarr\. Say --format cog,zarr, choose"):
        run("cog")
    assert files_in(tmp_path / "run" / "masks") == both
    run("cog", overwrite=True)
    assert names() == ["more.tif", "one.tif"]
    run("zarr", "cog")
    assert files_in(tmp_path / "run" / "masks") == both


@pytest.mark.parametrize("change", ["bundle", "core", "scenes", "file", "label values", "evaluation"])
def test_a_folder_with_something_else_is_refused_unless_overwritten(
    tmp_path: Path,
    images: dict[str, str],
    make_raster: MakeRaster,
    make_request: MakeRequest,
    files_in: FilesIn,
    tiny_bundle: Path,
    change: str,
) -> None:
    images = {"one": images["one"]}
    label = {"one": make_raster(tmp_path / "label.tif", np.zeros((100, 120), np.uint8))}
    folder = tmp_path / "run"
    if change == "evaluation":
        RunFolder(folder).create()
        RunFolder(folder).update(evaluation={"predictions": ["a.tif"]})
        RunFolder(folder).ledger.mkdir()
    else:
        predict(make_request(folder, images, label))
    changes: dict[str, Any] = {}
    if change == "bundle":
        shutil.copytree(tiny_bundle, tmp_path / "other")
        card = json.loads((tiny_bundle / "segbatch.json").read_text())
        (tmp_path / "other" / "segbatch.json").write_text(json.dumps({**card, "mean": [1, 2, 3]}))
        changes["bundle"] = tmp_path / "other"
    elif change == "core":
        changes["inference"] = {"core": 32}
    elif change == "scenes":
        images["new"] = make_raster(tmp_path / "new.tif", np.ones((3, 30, 30), np.uint8))
    elif change == "file":
        os.utime(images["one"], (1, 1))
    elif change == "label values":
        from segbatch.classes import LabelMap

        changes["label_map"] = LabelMap(4, ((0, 1),))
    named = {
        "bundle": "differs in the bundle",
        "core": "differs in core, halo or block size",
        "scenes": "differs in the list of scenes",
        "file": "the file itself of one",
        "label values": "differs in the label values",
        "evaluation": "holds an evaluation",
    }[change]
    before = files_in(folder)
    with pytest.raises(InputError, match=f"{named}.*Choose another output folder, .* --overwrite") as caught:
        predict(make_request(folder, images, label, **changes))
    way_out = {"scenes": "--only-new.", "label values": "segbatch evaluate."}.get(change, "what was mapped.")
    assert str(caught.value).endswith(way_out)
    assert len(str(caught.value).splitlines()) == (1 if way_out == "what was mapped." else 2)
    assert files_in(folder) == before
    predict(make_request(folder, images, label, overwrite=True, **changes))
    predict(make_request(tmp_path / "clean", images, label, **changes))
    assert files_in(folder / "masks") == files_in(tmp_path / "clean" / "masks")
    assert len(ledger_lines(folder)) == len(images)


def test_a_failed_block_is_tried_again(
    tmp_path: Path, make_raster: MakeRaster, paint: Paint, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segbatch.errors import SceneReadError
    from segbatch.inference import stages

    image = {"a": make_raster(tmp_path / "a.tif", paint(60, 60))}

    def fail(*_: object) -> None:
        raise SceneReadError("the network share was away")

    with monkeypatch.context() as broken:
        broken.setattr(stages, "read_padded", fail)
        document = predict(make_request(tmp_path / "run", image))
    assert document["failed"][0]["error"] == "the network share was away"
    assert predict(make_request(tmp_path / "run", image))["failed"] == []
    assert json.loads((tmp_path / "run" / "run.json").read_text())["mapping"]["state"] == "done"


# ---- kill -9 -------------------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path, make_raster: MakeRaster, paint: Paint, tiny_bundle: Path) -> Callable[[str, str], list[str]]:
    """A function (name of the run, engine) that gives the command line for 9 scenes of 13 blocks, wide halos."""
    entries = []
    for number in range(9):
        size = (640, 1050) if number == 4 else (120 + 10 * number, 150)
        image = make_raster(tmp_path / "scenes" / f"s{number}.tif", paint(*size, number), tiled=True)
        label = np.random.default_rng(number).integers(0, 4, size, np.uint8)
        entries.append({"image": image, "label": make_raster(tmp_path / "labels" / f"s{number}.tif", label)})

    def prepare(name: str, engine: str) -> list[str]:
        folder = tmp_path / name
        shutil.copytree(tiny_bundle, folder / "bundle")
        data = {
            "name": "kill",
            "output": str(folder),
            "classes": [{"name": name} for name in ("water", "forest", "field", "town")],
            "scenes": {"predict": entries},
            "inference": {"engine": engine, "core": 64, "halo": 64, "block_mb": 1},
            "cluster": {"address": "local"},
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(data))
        return [*CLI, "predict", "--config", str(path)]

    return prepare


def rows_in(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in (folder / "ledger").glob("*.jsonl")}


def kill_at(arguments: list[str], folder: Path, rows: int, delay: float) -> bool:
    """Start a command and SIGKILL its driver once the ledger has grown by ``rows``; False if it ended before."""
    have = sum(content.count(b"\n") for content in rows_in(folder).values())
    log = folder.with_suffix(".log").open("ab")
    process = subprocess.Popen(arguments, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        while process.poll() is None:
            if sum(content.count(b"\n") for content in rows_in(folder).values()) >= have + rows:
                time.sleep(delay)
                process.send_signal(signal.SIGKILL)
                process.wait()
                return process.returncode == -signal.SIGKILL
            time.sleep(0.005)
        return False
    finally:
        process.kill()
        log.close()


def map_here(arguments: list[str]) -> None:
    """What the command line would do, in this process."""
    predict(Request.from_config(load_config(arguments[-1])))


def check_untouched(before: dict[Path, bytes]) -> None:
    """What had a row was not done again: the files of rows are as they were, and no row is there twice."""
    for file, content in before.items():
        assert file.read_bytes() == content
    (folder,) = {file.parent for file in before}
    blocks = [(row["scene"], row["block"]) for row in map(json.loads, whole_lines(folder))]
    assert len(blocks) == len(set(blocks))


def whole_lines(ledger: Path) -> list[str]:
    lines = (line for file in ledger.glob("*.jsonl") for line in file.read_text().splitlines(keepends=True))
    return [line for line in lines if line.endswith("\n")]


@pytest.mark.slow
def test_a_driver_that_is_killed_again_and_again_ends_with_the_same_bytes(
    tmp_path: Path, config: Callable[[str, str], list[str]], files_in: FilesIn, leftovers: Leftovers
) -> None:
    map_here(config("clean", "inline"))
    arguments, folder = config("killed", "inline"), tmp_path / "killed"
    dice = random.Random(os.urandom(8))
    kills = 0
    for rows in (1, dice.randint(1, 4)):
        before = rows_in(folder)
        kills += kill_at(arguments, folder, rows, dice.uniform(0, 0.3))
        check_untouched(before or rows_in(folder))
    # The last one among the files that are made at the end.
    before = rows_in(folder)
    left = 12 - len(whole_lines(folder / "ledger"))
    kills += kill_at(arguments, folder, max(0, left), dice.uniform(0, 0.3))
    assert kills >= 2
    before = rows_in(folder)
    map_here(arguments)
    check_untouched(before)
    assert files_in(folder / "masks") == files_in(tmp_path / "clean" / "masks")
    assert leftovers(folder) == []
    metrics = [(tmp_path / name / "report" / "metrics.json").read_text() for name in ("clean", "killed")]
    assert metrics[0] == metrics[1]


def descendants(pid: int) -> dict[int, str]:
    """Process id to name of all processes below ``pid``."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                names[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            except (OSError, IndexError):
                continue
            parents[int(entry.name)] = int(fields[1])
    below = {pid}
    while more := {child for child, parent in parents.items() if parent in below} - below:
        below |= more
    return {process: names[process] for process in below - {pid}}


@pytest.mark.ray
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found through /proc")
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.slow
def test_killed_actors_and_workers_cost_no_byte(
    tmp_path: Path, make_raster: MakeRaster, paint: Paint, make_request: MakeRequest, files_in: FilesIn
) -> None:
    images = {f"s{number}": make_raster(tmp_path / f"s{number}.tif", paint(640, 640, number)) for number in range(8)}
    settings = {"block_mb": 1, "halo": 64}
    clean = predict(make_request(tmp_path / "clean", images, inference=settings))
    request = make_request(tmp_path / "ray", images, inference={**settings, "engine": "ray"})
    killed: list[str] = []

    def kill() -> None:
        wanted = [r"ray::MapWorker\(MapBatches\(_Predict\)\)", r"ray::(?!MapWorker)\S*(Read|MapBatches|IDLE|write)"]
        for number, pattern in enumerate(wanted):
            until = time.monotonic() + 120
            while time.monotonic() < until:
                if sum(content.count(b"\n") for content in rows_in(tmp_path / "ray").values()) > number:
                    found = {pid: name for pid, name in descendants(os.getpid()).items() if re.match(pattern, name)}
                    if found:
                        pid, name = sorted(found.items())[0]
                        os.kill(pid, signal.SIGKILL)
                        killed.append(name)
                        break
                time.sleep(0.01)

    assassin = threading.Thread(target=kill, daemon=True)
    assassin.start()
    document = predict(request)
    assassin.join(timeout=1)
    assert len(killed) == 2
    assert "_Predict" in killed[0]
    assert document["failed"] == []
    assert files_in(tmp_path / "ray" / "masks") == files_in(tmp_path / "clean" / "masks")
    assert document["classes"] == clean["classes"]
    assert len(read_ledger(tmp_path / "ray" / "ledger")) == 8 * 4


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.slow
def test_a_killed_driver_on_ray_goes_on(
    tmp_path: Path, config: Callable[[str, str], list[str]], files_in: FilesIn, leftovers: Leftovers
) -> None:
    """The first run has a Ray of its own; the second is in this process and uses the tests' Ray."""
    map_here(config("clean", "inline"))
    arguments, folder = config("killed", "ray"), tmp_path / "killed"
    assert kill_at(arguments, folder, 2, random.Random(os.urandom(8)).uniform(0, 0.5))
    time.sleep(3)  # the workers of the dead driver see that it is gone
    before = rows_in(folder)
    map_here(arguments)
    check_untouched(before)
    assert files_in(folder / "masks") == files_in(tmp_path / "clean" / "masks")
    assert leftovers(folder) == []
