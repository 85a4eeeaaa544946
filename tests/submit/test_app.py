"""The command line of submit and jobs, against a cluster that is not there."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from segbatch.cli import main
from segbatch.submit import client
from segbatch.submit.job import Job

SUBMIT = ("submit", "run", "land.yaml", "--address", "http://head:8265")


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(
    cluster, configuration: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    monkeypatch.chdir(configuration.parent)
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(client, "RayCluster", lambda address: cluster)

    def call(*arguments: str) -> Result:
        capsys.readouterr()
        try:
            main(list(arguments))
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        return Result(code, *capsys.readouterr())

    return call


@pytest.mark.parametrize(
    ("state", "code", "said"),
    [
        ({"status": "SUCCEEDED"}, 0, "is done."),
        ({"status": "FAILED", "exit_code": 2}, 2, "failed with exit code 2."),
        ({"status": "FAILED", "exit_code": 3}, 3, "failed with exit code 3."),
        ({"status": "FAILED", "exit_code": 137}, 137, "failed with exit code 137."),
        ({"status": "FAILED", "message": "The node is gone."}, 1, "failed: The node is gone."),
        ({"status": "STOPPED"}, 130, "was stopped."),
    ],
)
def test_the_exit_code_is_the_jobs(cluster, run: Callable[..., Result], state: dict, code: int, said: str) -> None:
    cluster.states, cluster.streams = [{"status": "RUNNING"}, state], [["mapping [bold]\n", "done\n"]]
    found = run(*SUBMIT)
    assert found.code == code
    assert found.out == "mapping [bold]\ndone\n"
    assert re.search(r"^Sending 1 file, 0.0 MiB, of /", found.err, re.MULTILINE)
    assert re.search(r"^Submitted run-land-cover-2026-[0-9a-f]{8}-1, which writes to /shared/land$", found.err, re.M)
    assert found.err.splitlines()[-1].endswith(said)


def test_without_waiting_the_id_is_printed(cluster, run: Callable[..., Result]) -> None:
    cluster.machines = [{"CPU": 4.0}]
    found = run(*SUBMIT, "--no-wait", "--entrypoint-cpus", "64", "--entrypoint-resource", "tpu=0.5", "--env", "A=b")
    (sent,) = cluster.submitted
    assert found.code == 0
    assert found.out == f"{sent.id}\n"
    assert "it wants 64 CPU, and no node has more than 4 CPU; it wants 0.5 tpu, and no node has any." in found.err
    assert sent.wanted.by_name() == {"CPU": 64.0, "tpu": 0.5}
    assert sent.environment["A"] == "b"


def test_options_of_the_command_stay_with_it(cluster, run: Callable[..., Result]) -> None:
    words = ("predict", "/b", "/a b.tif", "--out", "/shared/map", "--core", "512", "--confidence")
    assert run("submit", "--no-wait", *words, "--address", "http://head:8265").code == 0
    assert run("submit", "--no-wait", "--address", "http://head:8265", "--", *words, "--label", "/x").code == 0
    assert [sent.entrypoint for sent in cluster.submitted] == [
        "python -m segbatch predict /b '/a b.tif' --out /shared/map --core 512 --confidence",
        "python -m segbatch predict /b '/a b.tif' --out /shared/map --core 512 --confidence --label /x",
    ]


def test_what_is_wrong_is_found_before_anything_is_sent(cluster, run: Callable[..., Result]) -> None:
    for words, said in (
        (("run", "gone.yaml"), "Error: The configuration gone.yaml does not exist in the working directory"),
        (("run", "land.yaml", "--speed"), "Error: No such option: --speed"),
        (("predict", "b", "/a.tif", "--out", "/x"), "Error: b does not exist in the working directory"),
        (("run", "land.yaml", "--env", "GONE"), "Error: --env GONE: GONE is not set here."),
        (("run", "land.yaml", "--working-dir", "gone"), "Error: The configuration land.yaml does not exist"),
        (("run", "land.yaml", "--entrypoint-resource", "tpu=x"), "write NAME=AMOUNT"),
    ):
        found = run("submit", *words, "--address", "http://head:8265")
        assert (found.code, found.out) == (2, "")
        assert said in found.err
    found = run("submit", "run", "land.yaml")
    assert found == (2, "", "Error: Name the cluster with --address http://HEAD:8265, or in RAY_API_SERVER_ADDRESS.\n")
    assert cluster.submitted == []


def test_a_running_job_is_watched(cluster, run: Callable[..., Result]) -> None:
    assert run(*SUBMIT, "--no-wait").code == 0
    (sent,) = cluster.submitted
    cluster.known = [Job(sent.id, "RUNNING")]
    cluster.states, cluster.streams = [{"status": "RUNNING"}, {"status": "SUCCEEDED"}], [["from the beginning\n"]]
    found = run(*SUBMIT)
    assert (found.code, found.out) == (0, "from the beginning\n")
    assert found.err == f"{sent.id} is at it already: nothing is sent.\n{sent.id} is done.\n"
    assert len(cluster.submitted) == 1


def test_ctrl_c_leaves_the_job_alone(cluster, run: Callable[..., Result]) -> None:
    cluster.states, cluster.streams = [{"status": "RUNNING"}], [["one\n", KeyboardInterrupt()]]
    found = run(*SUBMIT)
    (sent,) = cluster.submitted
    assert (found.code, found.out) == (130, "one\n")
    assert found.err.endswith(
        f"\n{sent.id} goes on. To watch it again: segbatch jobs logs --follow {sent.id} --address http://head:8265\n"
        f"To end it: segbatch jobs stop {sent.id} --address http://head:8265\n"
    )
    assert cluster.stopped == []


def test_secrets_are_shown_nowhere(cluster, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWORD", "geheim-und-lang")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "zeichen-und-wunder")
    message = "Traceback (most recent call last):\nRuntimeError: Failed to set up {'PASSWORD': 'geheim-und-lang'}"
    cluster.states = [{"status": "RUNNING"}, {"status": "FAILED", "message": message}]
    cluster.streams = [["my password is geheim-und-lang\n"]]
    found = run(*SUBMIT, "--env", "PASSWORD")
    (sent,) = cluster.submitted
    assert sent.environment["PASSWORD"] == "geheim-und-lang"
    shown = found.out + found.err + sent.id + sent.entrypoint + str(sent.metadata)
    assert "my password is ***" in shown
    assert "Failed to set up" in shown
    for secret in ("geheim", "zeichen"):
        assert secret not in shown


def test_jobs_are_listed_in_80_columns(cluster, run: Callable[..., Result]) -> None:
    at = ("--address", "http://head:8265")
    assert run("jobs", "list", *at) == (0, "", "There are no jobs.\n")
    cluster.known = [
        Job("calibrate-twenty-letters-long-0a1b2c3d-12", "SUCCEEDED", started=1e9, ended=1e9 + 7260),
        Job("raysubmit_x", "PENDING"),
    ]
    found = run("jobs", "list", *at)
    lines = found.out.splitlines()
    assert lines[0].split() == ["job", "status", "submitted", "took"]
    assert re.fullmatch(
        r"calibrate-twenty-letters-long-0a1b2c3d-12  succeeded  \d\d \w+ \d\d:\d\d  2 h 01 min", lines[1]
    )
    assert lines[2].split() == ["raysubmit_x", "pending"]
    assert max(map(len, lines)) <= 80


def test_what_a_job_is_and_has_printed(cluster, run: Callable[..., Result]) -> None:
    at = ("--address", "http://head:8265")
    noted = {"name": "land", "output": "/shared/land", "user": "ada", "segbatch": "0.1.0"}
    cluster.known = [Job("x-1", "FAILED", "python -m segbatch x", noted, 3, "failed, the log's end", 1e9, 1e9 + 8)]
    found = run("jobs", "status", "x-1", *at)
    assert found.code == 0
    lines = dict(line.split(maxsplit=1) for line in found.out.splitlines())
    assert lines.pop("submitted")
    assert lines == {
        "job": "x-1", "status": "failed, exit code 3", "name": "land", "output": "/shared/land",
        "by": "ada with segbatch 0.1.0", "command": "python -m segbatch x", "took": "8 s",
    }  # fmt: skip
    cluster.streams = [["one\n", "[two]\n"]]
    assert run("jobs", "logs", "x-1", *at) == (0, "one\n[two]\n", "")
    assert run("jobs", "logs", "x-1", "--follow", *at)[:2] == (3, "one\n[two]\n")


def test_stopping_a_job(cluster, run: Callable[..., Result]) -> None:
    at = ("--address", "http://head:8265")
    cluster.known = [Job("x-1", "RUNNING")]
    cluster.states = [{}, {}, {"status": "STOPPED"}]
    assert run("jobs", "stop", "x-1", *at) == (0, "", "x-1 was stopped.\n")
    assert run("jobs", "stop", "x-1", *at) == (0, "", "x-1 was stopped.\n")
    assert cluster.stopped == ["x-1"]
    cluster.states = [{"status": "PENDING"}]
    assert run("jobs", "stop", "x-1", *at).err == "x-1 has not started; it will be stopped when it does.\n"


@pytest.mark.parametrize("words", ["submit", "jobs", "jobs list", "jobs status", "jobs logs", "jobs stop"])
def test_help_fits_80_columns(run: Callable[..., Result], words: str) -> None:
    found = run(*words.split(), "-h")
    assert found.code == 0
    assert max(map(len, found.out.splitlines())) <= 80
