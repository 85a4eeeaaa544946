import pytest

from segbatch.errors import InputError, SegbatchError
from segbatch.submit.job import Job, Wanted
from segbatch.submit.package import Package, pack
from segbatch.submit.send import read_environment, send
from segbatch.training.interrupt import GRACE_SECONDS

STOP = {"RAY_JOB_STOP_WAIT_TIME_S": "120"}


@pytest.fixture
def package(configuration) -> Package:
    return pack(configuration.parent)


def test_a_job_is_sent_with_what_it_needs_and_says_what_it_is(cluster, parsed, package: Package) -> None:
    command = parsed("run", "land.yaml")
    environment = read_environment(["TOKEN"], {"TOKEN": "geheim-und-lang"})
    job_id, is_new = send(cluster, command, package, environment, Wanted(cpus=2))
    (sent,) = cluster.submitted
    assert is_new
    assert job_id == sent.id == f"{command.base_id}-1"
    assert sent.entrypoint == "python -m segbatch run land.yaml"
    assert sent.folder == str(package.folder)
    assert sent.environment == {**STOP, "TOKEN": "geheim-und-lang"}
    assert sent.metadata["name"] == "Land cover, 2026"
    assert sent.metadata["output"] == "/shared/land"
    assert set(map(type, sent.metadata.values())) == {str}
    assert "geheim" not in str((sent.id, sent.entrypoint, sent.metadata))


def test_a_running_job_is_not_sent_again(cluster, parsed, package: Package) -> None:
    command = parsed("run", "land.yaml")
    cluster.known = [Job(f"{command.base_id}-3", "RUNNING", metadata={"writes": command.writes})]
    assert send(cluster, command, package, {}, Wanted()) == (f"{command.base_id}-3", False)
    assert cluster.submitted == []
    with pytest.raises(InputError, match=r"run-land-cover-2026-\w+-3 is at work in /shared/land"):
        send(cluster, parsed("train", "land.yaml"), package, {}, Wanted())


@pytest.mark.parametrize(
    ("status", "said"), [("FAILED", "-1 failed;"), ("STOPPED", "-1 was stopped;"), ("SUCCEEDED", "-1 has ended well;")]
)
def test_an_ended_one_goes_on_as_the_next(
    cluster, parsed, package: Package, capsys: pytest.CaptureFixture[str], status: str, said: str
) -> None:
    command = parsed("run", "land.yaml")
    cluster.known = [Job(f"{command.base_id}-1", status)]
    assert send(cluster, command, package, {}, Wanted()) == (f"{command.base_id}-2", True)
    assert f"{said} what it has done is not done again." in capsys.readouterr().err


def test_all_is_done_afresh_where_that_is_asked_for(
    cluster, parsed, package: Package, capsys: pytest.CaptureFixture[str]
) -> None:
    command = parsed("run", "land.yaml", "--overwrite")
    cluster.known = [Job(f"{command.base_id}-1", "FAILED")]
    send(cluster, command, package, {}, Wanted())
    assert "-1 failed; all is done afresh." in capsys.readouterr().err


def test_a_job_that_has_not_started_makes_room(cluster, parsed, package: Package) -> None:
    command = parsed("run", "land.yaml")
    waiting = Job(f"{command.base_id}-1", "PENDING")
    other = Job("train-land-ffffffff-1", "PENDING", metadata={"writes": "/shared/land"})
    cluster.known = [waiting, other]
    assert send(cluster, command, package, {}, Wanted(cpus=1)) == (f"{command.base_id}-2", True)
    assert cluster.stopped == [waiting.id, other.id]


def test_another_who_was_quicker_is_joined(cluster, parsed, package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    command = parsed("run", "land.yaml")
    real = cluster.submit

    def submit(submission) -> bool:
        cluster.known.append(Job(submission.id, "RUNNING"))
        return real(submission)

    monkeypatch.setattr(cluster, "submit", submit)
    assert send(cluster, command, package, {}, Wanted()) == (f"{command.base_id}-1", False)
    monkeypatch.setattr(cluster, "submit", lambda submission: False)
    cluster.known = []
    with pytest.raises(SegbatchError, match="others submit the same"):
        send(cluster, command, package, {}, Wanted())


def test_the_environment_is_read() -> None:
    own = {"HERE": "value", "EMPTY": ""}
    assert read_environment([], own) == STOP
    assert read_environment(["HERE", "EMPTY", "A=b=c", "B="], own) == {
        **STOP,
        "HERE": "value",
        "EMPTY": "",
        "A": "b=c",
        "B": "",
    }
    assert read_environment(["RAY_JOB_STOP_WAIT_TIME_S=5"], own) == {"RAY_JOB_STOP_WAIT_TIME_S": "5"}
    for word, message in (("GONE", "GONE is not set here"), ("=x", "write KEY=VALUE"), ("A-B=x", "--env A-B: write")):
        with pytest.raises(InputError, match=message):
            read_environment([word], own)


def test_a_job_that_is_stopped_has_time_for_what_a_training_waits_for() -> None:
    assert int(STOP["RAY_JOB_STOP_WAIT_TIME_S"]) > 1.5 * GRACE_SECONDS
