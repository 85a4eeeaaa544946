"""Options that may stand anywhere, and what --log json makes of a command's standard error."""

import errno
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segbatch.cli import main
from segbatch.commands.entry import chosen_log, run_app
from segbatch.errors import InputError

Call = Callable[..., tuple[int, str, list[dict[str, Any]]]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run a command line; gives exit code, standard output and the objects on standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, list[dict[str, Any]]]:
        capsys.readouterr()
        try:
            main([str(word) for word in words])
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        out, err = capsys.readouterr()
        return code, out, [json.loads(line, parse_constant=pytest.fail) for line in err.splitlines()]

    return run


@pytest.mark.parametrize(
    ("words", "environment", "expected"),
    [
        ("info a", {}, "text"),
        ("--log json info a", {}, "json"),
        ("info --log json a", {}, "json"),
        ("info a --log=json", {"SEGBATCH_LOG": "text"}, "json"),
        ("info a", {"SEGBATCH_LOG": "json"}, "json"),
        ("info a", {"SEGBATCH_LOG": ""}, "text"),
        ("info a --log text", {"SEGBATCH_LOG": "json"}, "text"),
    ],
)
def test_where_the_format_may_stand(words: str, environment: dict[str, str], expected: str) -> None:
    assert chosen_log(words.split(), environment) == (["info", "a"], expected)


@pytest.mark.parametrize(
    ("words", "environment", "message"),
    [
        ("info --log xml", {}, "--log is 'xml': choose text or json."),
        ("info --log", {}, "--log is '': choose text or json."),
        ("info", {"SEGBATCH_LOG": "yes"}, "SEGBATCH_LOG is 'yes': choose text or json."),
    ],
)
def test_another_format_is_refused(words: str, environment: dict[str, str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        chosen_log(words.split(), environment)
    assert str(caught.value) == message


def test_a_wrong_format_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["schema", "--log", "xml"])
    assert end.value.code == 2
    assert capsys.readouterr().err == "Error: --log is 'xml': choose text or json.\n"


@pytest.mark.parametrize(("words", "how"), [([], ""), (["--overwrite"], ", without --overwrite,")])
def test_a_full_disk_is_called_so_and_a_stop_tells_how_to_go_on(
    capsys: pytest.CaptureFixture[str], words: list[str], how: str
) -> None:
    def fail(**_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "run/x.png")

    def stop(**_: object) -> None:
        raise SystemExit(signal.SIGTERM)

    with pytest.raises(SystemExit) as end:
        run_app(fail, words)
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert said == "Error: No space is left for run/x.png: free some and run the same command again.\n"
    with pytest.raises(SystemExit) as end:
        run_app(stop, words)
    assert end.value.code == 130
    assert capsys.readouterr().err == f"\nStopped. Run the same command again{how} to go on.\n"


def test_a_mapping_tells_programs_how_far_it_is(
    call: Call, make_raster: Callable[..., str], paint: Callable[..., Any], tiny_bundle: Path
) -> None:
    name = 'a "b" [red].tif'
    make_raster(name, paint(130, 130))
    arguments = ("predict", tiny_bundle, name, "--out", "out", "--engine", "inline", "--core", 64)
    code, out, lines = call(*arguments, "--log", "json")
    assert code == 0
    assert "Class masks: out/masks" in out
    assert all({"time", "level", "message"} <= set(line) for line in lines)
    (last,) = [line for line in lines if line.get("event") == "blocks" and line["seconds_left"] == 0]
    ledger = [json.loads(line) for path in Path("out/ledger").glob("*.jsonl") for line in path.open()]
    assert last["blocks_done"] == last["blocks"] == len(ledger)
    assert last["failed"] == 0
    assert last["pixels"] == 130 * 130
    assert last["mpx_per_second"] > 0
    code, out, lines = call(*arguments, "--core", 32, "--log", "json")
    assert (code, out) == (2, "")
    assert lines[-1]["level"] == "error"
    assert lines[-1]["message"].startswith("out holds a run that differs in core")


def test_wrong_usage_is_json_too(call: Call) -> None:
    code, out, lines = call("--log=json", "predict", "--speed", 3)
    assert (code, out) == (2, "")
    assert lines[-1]["level"] == "error"
    assert "--speed" in lines[-1]["message"]


def test_unexpected_errors_have_their_traceback_in_the_object(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("segbatch.commands.inform.inform", fail)
    code, _, (line,) = call("info", "x", "--log", "json")
    assert code == 1
    assert line["message"] == "RuntimeError: first line\nAdd --debug for the traceback."
    code, _, (line,) = call("info", "x", "--log", "json", "--debug")
    assert code == 1
    assert line["traceback"].rstrip().endswith("RuntimeError: first line\nsecond line")
