"""Commands whose process is lost again and again at the same block or scene, as a decoder's that crashes."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from numpy.typing import NDArray

from segbatch.commands import predict as module
from segbatch.commands.predict import predict
from segbatch.commands.request import Request
from segbatch.config import load_config
from segbatch.inference.ledger import read_ledger

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

MakeRaster = Callable[..., str]
Paint = Callable[..., NDArray[Any]]
FilesIn = Callable[[Path], dict[str, bytes]]
Command = Callable[..., list[str]]
MakeRequest = Callable[..., Request]

PROGRAM = """
import os, signal, time
from segbatch.cli import main
from segbatch.inference import finish, stop
from segbatch.inference.work import Work

def crash(*_):
    os.kill(os.getpid(), signal.SIGSEGV)

def hang(*_):
    open("hangs", "w").close()
    time.sleep(600)

def use_memory(*_):
    with open(os.environ["NOTES"], "a") as file:
        file.write(".")
    held = []
    for _ in range(48):
        held.append(b"x" * (64 << 20))
        time.sleep(0.02)
    time.sleep(60)
    raise MemoryError("nobody minds 3 GB")

def at_blocks(blocks, fault):
    plain = Work.reader

    def reader(self):
        read, names = plain(self), [scene.id for scene in self.scenes]
        return lambda scene, block: (fault if (names[scene], block) in blocks else read)(scene, block)

    Work.reader = reader

def at_load(fault):
    Work.predictor = lambda self, *_: fault()

def at_files(name, fault):
    plain = finish._write_cog
    finish._write_cog = lambda scene, *more: (fault if scene.id == name else plain)(scene, *more)

"""
"""The command with faults at its beck and call."""


@pytest.fixture
def command(tmp_path: Path, make_raster: MakeRaster, paint: Paint, tiny_bundle: Path) -> Command:
    """A function (folder, fault, engine) that gives the command line to map three scenes, of 4, 4 and 1 blocks."""
    sizes = {"first": (640, 600), "bad": (640, 610), "last": (100, 120)}
    images = [make_raster(tmp_path / f"{name}.tif", paint(*size, len(name))) for name, size in sizes.items()]

    def make(name: str, fault: str = "", engine: str = "inline") -> list[str]:
        folder, config = tmp_path / name, tmp_path / f"{name}.yaml"
        if not folder.exists():
            shutil.copytree(tiny_bundle, folder / "bundle")
        data = {
            "name": "lost",
            "output": str(folder),
            "classes": [{"name": name} for name in ("water", "forest", "field", "town")],
            "scenes": {"predict": [{"image": image} for image in images]},
            "inference": {"engine": engine, "core": 64, "halo": 64, "block_mb": 1, "backend": "eager"},
            "cluster": {"address": "local"},
        }
        config.write_text(yaml.safe_dump(data))
        return [sys.executable, "-c", f"{PROGRAM}{fault}\nmain()", "predict", "--config", str(config)]

    return make


def run(command: list[str], **environment: str) -> tuple[int, str]:
    """The exit code of a command, and what it said."""
    done = subprocess.run(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def names_in(folder: Path) -> set[str]:
    """All but the ledger's files, whose names are drawn by lot."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix != ".jsonl")
    return {path.as_posix() for path in paths}


def done_blocks(folder: Path, scene: str) -> set[int]:
    rows = read_ledger(folder / "ledger").values()
    return {row.block for row in rows if row.scene == scene and row.error is None}


def cogs(folder: Path) -> set[str]:
    return {path.name for path in (folder / "masks").glob("*.tif")}


def test_scenes_at_which_a_process_was_lost_come_after_the_others(
    tmp_path: Path,
    make_raster: MakeRaster,
    paint: Paint,
    make_request: MakeRequest,
    files_in: FilesIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = {
        "more": make_raster(tmp_path / "more.tif", paint(640, 600, 2)),
        "one": make_raster(tmp_path / "one.tif", paint(100, 120, 1)),
    }
    small_blocks = {"block_mb": 1}
    predict(make_request(tmp_path / "clean", images, inference=small_blocks))
    attempts = tmp_path / "run" / "ledger" / "attempts"
    request = make_request(tmp_path / "run", images, inference=small_blocks)
    done: list[tuple[str, int]] = []
    engine = module._engine

    def observe(*arguments: Any) -> Iterator[Any]:
        for row in engine(*arguments):
            done.append((row.scene, row.block))
            yield row

    def begin(*_: Any) -> Iterator[Any]:
        attempts.mkdir()
        (attempts / "map-more-2").write_bytes(b".")
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_engine", begin)
    with pytest.raises(KeyboardInterrupt):
        predict(request)
    monkeypatch.setattr(module, "_engine", observe)
    predict(request)
    assert done == [("one", 0), *(("more", block) for block in (0, 1, 3, 2))]
    assert files_in(tmp_path / "run" / "masks") == files_in(tmp_path / "clean" / "masks")
    assert not attempts.exists()


def test_a_block_that_crashes_the_command_costs_no_other_scene_and_is_given_up_by_the_fourth_run(
    tmp_path: Path, command: Command, files_in: FilesIn
) -> None:
    predict(Request.from_config(load_config(command("clean")[-1])))
    folder, crashing = tmp_path / "run", command("run", 'at_blocks({("bad", 2)}, crash)')
    assert run(crashing)[0] == -signal.SIGSEGV
    assert run(crashing)[0] == -signal.SIGSEGV
    assert cogs(folder) == {"first.tif", "last.tif"}
    assert done_blocks(folder, "bad") == {0, 1, 3}
    code, said = run(crashing)
    assert code == -signal.SIGSEGV
    assert "was killed, or crashed, at 1 scene, last at bad: they come at the end" in said
    code, said = run(crashing)
    assert code == 3
    assert "bad: block 2 was given up: 3 processes that were to map it were lost." in said
    assert names_in(folder / "ledger") == {"scenes.json"}
    # Whoever runs it again has it tried again.
    assert run(command("run"))[0] == 0
    assert files_in(folder / "masks") == files_in(tmp_path / "clean" / "masks")
    assert names_in(folder) == names_in(tmp_path / "clean")


@pytest.mark.slow
def test_a_file_all_of_whose_blocks_crash_the_command_is_given_up_as_a_whole(tmp_path: Path, command: Command) -> None:
    folder, crashing = tmp_path / "run", command("run", 'at_blocks({("bad", block) for block in range(4)}, crash)')
    codes = [run(crashing)[0] for _ in range(2)]
    assert cogs(folder) == {"first.tif", "last.tif"}
    codes += [run(crashing)[0] for _ in range(2)]
    code, said = run(crashing)
    assert [*codes, code] == [*[-signal.SIGSEGV] * 4, 3]
    assert "block 0 was given up: 3 processes that were to begin its scene were lost." in said
    assert done_blocks(folder, "bad") == set()
    assert not (folder / "ledger" / "attempts").exists()


@pytest.mark.slow
def test_what_was_given_up_is_not_tried_again_while_another_file_still_crashes(
    tmp_path: Path, command: Command, files_in: FilesIn
) -> None:
    predict(Request.from_config(load_config(command("clean")[-1])))
    fault = 'at_blocks({("bad", block) for block in range(4)} | {("first", 1)}, crash)'
    folder, crashing = tmp_path / "run", command("run", fault)
    codes = []
    while not codes or codes[-1] == -signal.SIGSEGV:
        code, said = run(crashing)
        codes.append(code)
        assert len(codes) < 12
    assert codes[-1] == 3
    assert "first: block 1 was given up" in said
    assert "bad: block 0 was given up" in said
    assert done_blocks(folder, "first") == {0, 2, 3}
    assert run(command("run"))[0] == 0
    assert files_in(folder / "masks") == files_in(tmp_path / "clean" / "masks")
    assert names_in(folder) == names_in(tmp_path / "clean")


@pytest.mark.slow
def test_no_block_is_blamed_for_a_model_that_crashes_the_command(tmp_path: Path, command: Command) -> None:
    crashing = command("run", "at_load(crash)")
    assert [run(crashing)[0] for _ in range(5)] == [-signal.SIGSEGV] * 5
    code, said = run(command("run"))
    assert code == 0, said


def test_no_block_is_suspected_where_what_is_done_with_it_fails(
    tmp_path: Path, make_raster: MakeRaster, paint: Paint, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise BrokenPipeError

    request = make_request(
        tmp_path / "run", {"a": make_raster(tmp_path / "a.tif", paint(640, 600, 2))}, inference={"block_mb": 1}
    )
    monkeypatch.setattr(module.Account, "add", fail)
    with pytest.raises(BrokenPipeError):
        predict(request)
    assert list((tmp_path / "run" / "ledger" / "attempts").iterdir()) == []


@pytest.mark.slow
def test_files_that_crash_the_command_are_given_up_and_those_of_other_scenes_are_written(
    tmp_path: Path, command: Command, files_in: FilesIn
) -> None:
    predict(Request.from_config(load_config(command("clean")[-1])))
    folder, crashing = tmp_path / "run", command("run", 'at_files("bad", crash)')
    assert [run(crashing)[0] for _ in range(2)] == [-signal.SIGSEGV] * 2
    assert cogs(folder) == {"first.tif", "last.tif"}
    assert run(crashing)[0] == -signal.SIGSEGV
    code, said = run(crashing)
    assert code == 1
    assert "The files of bad were not written: 3 processes that put them together were lost" in said
    assert run(command("run"))[0] == 0
    assert files_in(folder / "masks") == files_in(tmp_path / "clean" / "masks")
    assert names_in(folder) == names_in(tmp_path / "clean")


def test_a_block_that_hangs_when_the_command_is_stopped_is_not_suspected(tmp_path: Path, command: Command) -> None:
    folder, hanging = tmp_path / "run", command("run", 'stop.GRACE_SECONDS = 0.5\nat_blocks({("bad", 2)}, hang)')
    with subprocess.Popen(hanging, cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and not (tmp_path / "hangs").exists():
            time.sleep(0.02)
        assert (folder / "ledger" / "attempts" / "map-bad-2").exists()
        process.terminate()
        assert process.wait(60) == 130
    assert list((folder / "ledger" / "attempts").iterdir()) == []


@pytest.mark.ray
@pytest.mark.slow
def test_a_block_that_takes_all_memory_on_ray_is_given_up_and_the_others_are_done(
    tmp_path: Path, command: Command, files_in: FilesIn
) -> None:
    """Ray counts no attempts that end so."""
    memory, limit = psutil.virtual_memory(), Path("/sys/fs/cgroup/memory.max")
    if memory.available < 8 * 2**30 or (limit.exists() and limit.read_text().strip() != "max"):
        pytest.skip("too little memory, or nobody knows how much")
    predict(Request.from_config(load_config(command("clean")[-1])))
    # Ray and its processes take some 2 GB themselves.
    threshold = (memory.total - memory.available + 3.5 * 2**30) / memory.total
    code, said = run(
        command("run", 'at_blocks({("bad", 2)}, use_memory)', "ray"),
        NOTES=str(tmp_path / "begun"),
        RAY_memory_usage_threshold=f"{threshold:.3f}",
        RAY_memory_monitor_refresh_ms="50",
    )
    assert code == 3, said
    assert re.search(r"bad: block 2 was given up: 3 processes that were to read it were lost", said)
    assert (tmp_path / "begun").read_text() == "..."
    assert done_blocks(tmp_path / "run", "bad") == {0, 1, 3}
    assert cogs(tmp_path / "run") == {"first.tif", "last.tif"}
    assert not (tmp_path / "run" / "ledger" / "attempts").exists()
