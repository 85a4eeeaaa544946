"""A job is shown whole, once, whatever becomes of the connection."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbatch.errors import SegbatchError
from segbatch.submit import follow as module
from segbatch.submit.follow import Log, follow, stop
from segbatch.submit.job import Job, UnknownJobError, UnreachableError, Wanted

ID = "run-land-0a1b2c3d-1"
PREAMBLE = (
    f"2026-11-24 17:17\tINFO job_manager.py:581 -- Runtime env is setting up.\nRunning entrypoint for job {ID}: x\n"
)
RUNNING, DONE, PENDING = {"status": "RUNNING"}, {"status": "SUCCEEDED"}, {"status": "PENDING"}


def watch(cluster, **details) -> tuple[list[str], Job]:
    lines: list[str] = []
    job = follow(cluster, ID, lines.append, **details)
    return lines, job


@given(st.text("ab\n", max_size=40), st.data())
def test_every_line_comes_once(text: str, data: st.DataObject) -> None:
    """However often the connection breaks, and wherever pieces are cut."""
    log, lines = Log(ID), []
    for _ in range(data.draw(st.integers(0, 3))):
        log.restart()
        cut = data.draw(st.integers(0, len(text)))
        lines += log.feed(text[: cut // 2]) + log.feed(text[cut // 2 : cut])
    log.restart()
    lines += log.feed(text) + log.end()
    assert "\n".join(lines) == text.removesuffix("\n")


def test_what_ray_does_for_itself_is_not_shown() -> None:
    log = Log(ID)
    # The command may be quicker than the line that announces it.
    assert log.feed("sh: python: not found\n" + PREAMBLE + "epoch 1") == ["sh: python: not found"]
    assert log.end() == ["epoch 1"]


def test_a_job_is_shown_to_its_end(cluster) -> None:
    cluster.states = [PENDING, PENDING, RUNNING, DONE]
    cluster.streams = [[PREAMBLE, "one\ntw", "o\nthree"]]
    lines, job = watch(cluster)
    assert lines == ["one", "two", "three"]
    assert job.code == 0


def test_a_connection_that_breaks_is_taken_up(cluster, capsys: pytest.CaptureFixture[str]) -> None:
    lost = UnreachableError("no head")
    cluster.states = [RUNNING, lost, lost, RUNNING, RUNNING, RUNNING, {"status": "FAILED", "exit_code": 3}]
    cluster.streams = [
        [PREAMBLE + "one\n", ConnectionError("reset")],
        [PREAMBLE + "one\n", "two\nth", ConnectionError("reset")],
        [PREAMBLE + "one\ntwo\nthree\n"],
    ]
    lines, job = watch(cluster)
    assert lines == ["one", "two", "three"]
    assert job.code == 3
    said = capsys.readouterr().err
    assert said.count("does not answer; the job goes on without us.") == 1
    assert said.count("http://head:8265 is back.") == 1


def test_a_job_that_ended_while_nobody_looked_is_read_to_its_end(cluster) -> None:
    cluster.states = [RUNNING, DONE]
    cluster.streams = [[PREAMBLE + "one\n", ConnectionError("reset")], [PREAMBLE + "one\ntwo\n"]]
    assert watch(cluster)[0] == ["one", "two"]


def test_a_log_that_is_lost_with_its_node_is_not_waited_for(cluster) -> None:
    cluster.states = [RUNNING, {"status": "FAILED", "message": "the node died"}]
    cluster.streams = [[PREAMBLE + "one\n", ConnectionError("reset")], *([[ConnectionError("gone")]] * 9)]
    lines, job = watch(cluster)
    assert lines == ["one"]
    assert job.code == 1


def test_a_connection_that_has_died_in_silence(cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_QUIET_SECONDS", 0.01)

    real = cluster.tail

    async def tail(job_id: str):
        if not cluster.streams[0]:
            cluster.streams.pop(0)
            await asyncio.sleep(3600)
        async for piece in real(job_id):
            yield piece

    monkeypatch.setattr(cluster, "tail", tail)
    cluster.streams = [[], [PREAMBLE + "one\n"]]
    cluster.states = [RUNNING, RUNNING, RUNNING, DONE]
    assert watch(cluster)[0] == ["one"]


def test_a_cluster_that_stays_away_is_given_up(cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOST_SECONDS", -1.0)
    cluster.states = [UnreachableError("no head")]
    with pytest.raises(SegbatchError, match="has not answered for") as error:
        watch(cluster)
    assert error.value.exit_code == 1


def test_a_head_that_has_forgotten_the_job(cluster) -> None:
    cluster.states = [RUNNING, UnknownJobError("http://head:8265 knows no job.")]
    cluster.streams = [[PREAMBLE, ConnectionError("reset")]]
    with pytest.raises(SegbatchError, match="was restarted has forgotten it: submit the same again") as error:
        watch(cluster)
    assert error.value.exit_code == 1


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (Wanted(cpus=64), "it wants 64 CPU, and no node has more than 4 CPU."),
        (Wanted(cpus=1), "the nodes that could take it are busy, or its environment is not ready."),
        (Wanted(), "the nodes that could take it are busy, or its environment is not ready."),
    ],
)
def test_a_job_that_does_not_start_is_stopped_with_the_reason(cluster, wanted: Wanted, why: str) -> None:
    cluster.states = [PENDING]
    cluster.machines = [{"CPU": 4.0}]
    with pytest.raises(SegbatchError) as error:
        watch(cluster, wanted=wanted, pending_seconds=0)
    assert str(error.value) == f"{ID} has not started in 0 s and is given up: {why}"
    assert error.value.exit_code == 1
    assert cluster.stopped == [ID]


def test_stopping_waits_for_the_end(cluster) -> None:
    cluster.states = [RUNNING, RUNNING, {"status": "STOPPED"}]
    assert stop(cluster, ID).status == "STOPPED"
    assert cluster.stopped == [ID]
    cluster.states = [PENDING]
    assert stop(cluster, ID).status == "PENDING"


@pytest.mark.parametrize(
    ("status", "exit_code", "code"),
    [
        ("SUCCEEDED", 0, 0), ("SUCCEEDED", None, 0), ("STOPPED", None, 130), ("FAILED", 2, 2), ("FAILED", 3, 3),
        ("FAILED", 137, 137), ("FAILED", -9, 137), ("FAILED", None, 1), ("FAILED", 0, 1),
    ],
)  # fmt: skip
def test_exit_codes_are_the_commands(status: str, exit_code: int | None, code: int) -> None:
    assert Job(ID, status, exit_code=exit_code).code == code
