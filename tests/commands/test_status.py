"""`segbatch status`: what it tells of runs that go on, were killed, failed or are done, from their files alone."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from segbatch.cli import main
from segbatch.commands.folder import RunFolder
from segbatch.commands.inform import inform
from segbatch.commands.lock import hold
from segbatch.commands.look import Counted, Status, look
from segbatch.commands.predict import predict
from segbatch.commands.request import Request
from segbatch.commands.status_lines import status_lines
from segbatch.errors import InputError
from segbatch.inference.ledger import LedgerRow, LedgerWriter, forget_scenes, read_ledger
from segbatch.storage import place, write_whole

MakeRaster = Callable[..., str]
MakeRequest = Callable[..., Request]
FilesIn = Callable[[Path], dict[str, bytes]]


_FINISHED: list[Path] = []
"""The run that all tests have a copy of."""


@pytest.fixture
def mapped(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    make_raster: MakeRaster,
    paint: Callable[..., Any],
    make_request: MakeRequest,
) -> RunFolder:
    """A run of a scene of four blocks and one that is damaged, of one block. The images are gone since."""
    if not _FINISHED:
        folder = tmp_path_factory.mktemp("finished")
        good = make_raster(folder / "good.tif", paint(640, 600, 1))
        cut = make_raster(folder / "cut.tif", paint(160, 160, 2), tiled=True, blockxsize=32, blockysize=32)
        Path(cut).write_bytes(Path(cut).read_bytes()[: Path(cut).stat().st_size * 3 // 4])
        predict(make_request(folder / "run", {"good": good, "cut": cut}, inference={"block_mb": 1}))
        for image in (good, cut):
            Path(image).unlink()
        _FINISHED.append(folder / "run")
    shutil.copytree(_FINISHED[0], tmp_path / "run")
    return RunFolder(tmp_path / "run")


def ledger_file(folder: RunFolder) -> Path:
    (file,) = folder.ledger.glob("*.jsonl")
    return file


def cut_short(folder: RunFolder, rows: int) -> None:
    """The run as it was when so many rows were written and the next was half there."""
    lines = ledger_file(folder).read_bytes().splitlines(keepends=True)
    ledger_file(folder).write_bytes(b"".join(lines[:rows]) + lines[rows][: len(lines[rows]) // 2])
    folder.update(mapping={**folder.read()["mapping"], "state": "running"})


def lines_of(found: Status) -> dict[str, str]:
    return dict(status_lines(found))


def test_a_run_that_is_over(mapped: RunFolder, files_in: FilesIn) -> None:
    before = files_in(mapped.path)
    rows = read_ledger(mapped.ledger).values()
    found = look(mapped)
    assert found.state == "failed"
    assert found.holder is None
    assert found.mapping is not None
    bad = sum(row.error is not None for row in rows)
    assert bad > 0
    assert (found.mapping.blocks, found.mapping.done, found.mapping.failed) == (len(rows), len(rows) - bad, bad)
    assert found.mapping.pixels == sum(sum(row.class_pixels) + row.nodata_pixels for row in rows)
    assert found.mapping.scenes == {"whole": 1, "at_work": 0, "failed": 1, "waiting": 0}
    text = lines_of(found)
    assert text["state"] == "failed"
    assert text["failed"].startswith("cut: ")
    assert "speed" not in text
    assert files_in(mapped.path) == before


def test_a_run_that_was_killed(mapped: RunFolder, files_in: FilesIn) -> None:
    cut_short(mapped, 3)
    before = files_in(mapped.path)
    found = look(mapped)
    assert found.state == "stopped"
    assert found.mapping is not None
    assert found.mapping.done == 3
    assert found.mapping.seconds_left is None
    assert "run the same command again" in lines_of(found)["state"]
    assert lines_of(found)["scenes"] == "1 begun, 1 not begun"  # nothing is at work
    assert ("mapping", "stopped") in inform(str(mapped.path))
    assert files_in(mapped.path) == before


def test_a_run_that_goes_on(mapped: RunFolder) -> None:
    cut_short(mapped, 2)
    attempts = mapped.ledger / "attempts"
    attempts.mkdir()
    # The first was left by an earlier command, whose process was lost.
    for name, age in (("map-cut-1", 200), ("predict-good-2", 30), ("read-cut-0", 0)):
        (attempts / name).write_bytes(b".")
        os.utime(attempts / name, (time.time() - age,) * 2)
    with hold(mapped):
        first = look(mapped)
        # No row is of this call.
        assert first.state == "waiting for its next block"
        line = ledger_file(mapped).read_bytes().splitlines()[0]
        row = {**json.loads(line), "block": 3, "started": time.time() + 1}
        with ledger_file(mapped).open("ab") as file:
            file.write(b"\n" + json.dumps(row).encode() + b"\n")
        found = look(mapped)
    assert (found.state, found.doing) == ("running", "mapping")
    assert found.holder is not None
    assert found.holder["process"] == os.getpid()
    assert found.mapping is not None
    assert found.mapping.done == first.mapping.done + 1 == 3  # type: ignore[union-attr]
    assert found.mapping.seconds_left is not None
    assert found.at_work == "predicting block 2 of good for 30 s (2 blocks are at work)"
    text = lines_of(found)
    assert text["state"] == "running: mapping"
    assert f"process {os.getpid()}" in text["by"]
    assert "Mpx/s" in text["speed"]
    assert " left" in text["speed"]


def test_all_blocks_done_is_not_all(mapped: RunFolder) -> None:
    folder = mapped
    folder.update(mapping={**folder.read()["mapping"], "state": "running"})
    with hold(folder):
        assert look(folder).doing == "writing the scenes' files"


KILLED = """
import os, signal, sys
from pathlib import Path
from segbatch.commands.folder import RunFolder
from segbatch.commands.lock import hold
with hold(RunFolder(Path(sys.argv[1]))):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_lock_of_a_killed_command_is_no_command(mapped: RunFolder) -> None:
    cut_short(mapped, 2)
    assert subprocess.run([sys.executable, "-c", KILLED, str(mapped.path)], check=False).returncode == -9
    assert (mapped.path / ".lock").exists()
    found = look(mapped)
    assert found.state == "stopped"
    assert "was killed; run the same command again" in lines_of(found)["state"]
    assert (mapped.path / ".lock").exists()  # it is not for a look to take it away


def lock_of_another_machine(folder: RunFolder) -> Path:
    """A lock as a living command elsewhere has it."""
    path = folder.path / ".lock"
    with hold(folder):
        text = path.read_text()
    path.write_text("".join("host=elsewhere\n" if line.startswith("host=") else f"{line}\n" for line in text.split()))
    return path


def test_a_lock_of_another_machine_counts_as_long_as_it_is_refreshed(mapped: RunFolder) -> None:
    cut_short(mapped, 2)
    path = lock_of_another_machine(mapped)
    found = look(mapped)
    assert found.is_held
    assert lines_of(found)["by"] == f"process {os.getpid()} on elsewhere"
    os.utime(path, (time.time() - 500,) * 2)
    assert not look(mapped).is_held


def test_a_command_that_has_not_come_to_anything_yet(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    with hold(folder):
        found = look(folder)
    assert (found.state, found.doing, found.mapping, found.training) == ("running", "getting ready", None, None)
    assert lines_of(found)["state"] == "running: getting ready"


@pytest.mark.parametrize("what", ["nothing", "empty", "file"])
def test_where_there_is_no_run(tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run"
    if what == "empty":
        path.mkdir()
    elif what == "file":
        path.write_text("no run")
    with pytest.raises(InputError):
        look(RunFolder(path))
    with pytest.raises(SystemExit) as end:
        main(["status", str(path)])
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("Error: ")
    assert len(err.splitlines()) == 1


def training_run(folder: RunFolder, state: str) -> None:
    folder.create()
    config = {"training": {"epochs": 4, "batch_size": 8}}
    folder.update(name="fields", config=config, training={"state": state, "fingerprint": "x"})
    rows = [
        {"kind": "epoch", "epoch": 1, "global_step": 10, "loss": 0.9, "miou": 0.4, "train_seconds": 20.0,
         "validate_seconds": 4.0, "time": time.time() - 30},
        {"kind": "step", "epoch": 2, "epochs": 4, "step": 5, "steps": 10, "global_step": 15, "global_steps": 40,
         "loss": 0.5, "tiles_per_second": 9.0, "time": time.time() - 8},
    ]  # fmt: skip
    folder.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"kind": "ste')


def test_a_training(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    training_run(folder, "running")
    assert look(folder).state == "stopped"
    assert ("training", "stopped") in inform(str(folder.path))
    with hold(folder):
        found = look(folder)
        assert ("training", "running") in inform(str(folder.path))
    assert (found.state, found.doing) == ("running", "training")
    text = lines_of(found)
    assert text["run"].startswith("fields (")
    assert text["training"] == "1 of 4 epochs, step 5 of 10 of the next"
    assert text[""] == "loss 0.500, miou 0.400, best 0.400 in epoch 1, 9.0 tiles/s, 60 s left"
    assert text["latest news"] == "8 s ago"
    folder.update(training={"state": "done"})
    done = lines_of(look(folder))
    assert (done["state"], done["training"]) == ("done", "1 of 4 epochs")


def test_a_search(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    folder.update(name="search", tune={"state": "running", "drawn": 4})
    folder.tune.mkdir()
    events = [{"kind": "start", "trial": 1}, {"kind": "end", "trial": 1}, {"kind": "epoch", "trial": 2}]
    (folder.tune / "trials.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events) + '{"kind')
    with hold(folder):
        text = lines_of(look(folder))
    assert text["state"] == "running: looking for settings"
    assert text["tuning"] == "running: 1 of 4 trials ended, 2 begun"


def test_what_a_schedule_maps_is_told_beside_what_it_has_mapped(
    tmp_path: Path, make_raster: MakeRaster, paint: Callable[..., Any], make_request: MakeRequest
) -> None:
    from segbatch.commands.only_new import map_new

    image = make_raster(tmp_path / "a.tif", paint(100, 100))
    map_new(make_request(tmp_path / "run", {"a": image}))
    folder = RunFolder(tmp_path / "run")
    text = lines_of(look(folder))
    assert text["state"] == "done"
    assert text["schedule"].startswith("1 mapped; run 1 of 20")
    assert text["schedule"].endswith("1 new, exit code 0")
    # A night that was killed in the middle.
    shutil.copytree(folder.ledger, folder.next / "ledger")
    record = json.loads((folder.next / "ledger" / "scenes.json").read_text())
    record["scenes"][0]["blocks"] = 4
    (folder.next / "ledger" / "scenes.json").write_text(json.dumps(record))
    folder.update(mapping={**folder.read()["mapping"], "state": "running"})
    found = look(folder)
    assert found.is_next
    assert found.state == "stopped"
    assert lines_of(found)["new blocks"].startswith("1 of 4 done (25%)")


def run_command(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    main_ended = 0
    try:
        main([str(word) for word in words])
    except SystemExit as end:
        main_ended = int(end.code or 0)
    assert main_ended == 0
    return capsys.readouterr().out


def test_the_command_in_80_columns_and_as_json(mapped: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    text = run_command(capsys, "status", mapped.path)
    assert re_names(text) == ["run", "state", "blocks", "scenes", "latest news", "failed"]
    (line,) = run_command(capsys, "status", mapped.path, "--json").splitlines()
    data = json.loads(line, parse_constant=pytest.fail)
    assert (data["state"], data["mapping"]["failed"], data["mapping"]["scenes"]["whole"]) == (
        "failed", look(mapped).mapping.failed, 1,  # type: ignore[union-attr]
    )  # fmt: skip


def re_names(text: str) -> list[str]:
    return [line[:11].strip() for line in text.splitlines()]


def test_watching_ends_when_nobody_is_at_it(
    mapped: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_short(mapped, 2)
    path, looks = lock_of_another_machine(mapped), list[float]()

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            path.unlink()

    monkeypatch.setattr("segbatch.commands.status.time.sleep", sleep)
    lines = run_command(capsys, "status", mapped.path, "--watch", 7, "--json").splitlines()
    assert looks == [7.0, 7.0]
    states = [json.loads(line)["state"] for line in lines]
    assert states == ["running", "running", "stopped"]


def test_ctrl_c_ends_a_watch_in_peace(
    mapped: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("segbatch.commands.status.time.sleep", interrupt)
    lock_of_another_machine(mapped)
    assert "state" in run_command(capsys, "status", mapped.path, "--watch", 1)


@pytest.fixture
def writing(mapped: RunFolder) -> Iterator[subprocess.Popen[bytes]]:
    """A process that adds rows in pieces as long as it lives."""
    program = (
        "import sys, time\n"
        "line = open(sys.argv[1], 'rb').readline()\n"
        "with open(sys.argv[1] + '.new.jsonl', 'ab', buffering=0) as file:\n"
        "    while True:\n"
        "        for start in range(0, len(line), 40):\n"
        "            file.write(line[start : start + 40])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(ledger_file(mapped))])
    yield process
    process.kill()
    process.wait()


def test_rows_that_are_being_written_do_no_harm(mapped: RunFolder, writing: subprocess.Popen[bytes]) -> None:
    expected = look(mapped).mapping
    assert expected is not None
    for _ in range(5):
        found = look(mapped).mapping
        assert found is not None
        assert (found.done, found.failed, found.pixels) == (expected.done, expected.failed, expected.pixels)


@pytest.mark.parametrize("where", ["folder", "store"])
def test_later_looks_see_what_the_first_would(
    mapped: RunFolder, where: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, folder = list(read_ledger(mapped.ledger).values()), mapped
    if where == "store":
        folder = RunFolder(place(request.getfixturevalue("remote")))
        for path in (Path("run.json"), Path("ledger", "scenes.json")):
            write_whole(folder.path / path, (mapped.path / path).read_bytes())
    else:
        ledger_file(mapped).unlink()
    parsed: list[str] = []
    parse = LedgerRow.from_json
    monkeypatch.setattr(LedgerRow, "from_json", lambda line: parsed.append(line) or parse(line))
    writer, counted = LedgerWriter(folder.ledger), Counted()
    for number, row in enumerate(rows, 1):
        writer.append(row)
        parsed.clear()
        found = look(folder, counted).mapping
        assert len(parsed) == 1
        assert found is not None
        assert found.done + found.failed == number
        assert found == look(folder).mapping
    forget_scenes(folder.ledger, {"cut"})
    found = look(folder, counted).mapping
    assert found is not None
    assert (found.done, found.failed) == (4, 0)


def test_reading_it_needs_neither_ray_nor_torch(mapped: RunFolder) -> None:
    code = (
        "import sys\nfrom segbatch.cli import main\n"
        "try:\n    main(['status', sys.argv[1]])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'ray'} & set(sys.modules)), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, str(mapped.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "state" in done.stdout
