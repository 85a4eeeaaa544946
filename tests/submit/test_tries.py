import pytest

from segbatch.errors import InputError
from segbatch.submit.job import Job
from segbatch.submit.tries import tries

BASE = "run-land-0a1b2c3d"


def job(number: int, status: str, base: str = BASE, writes: str = "/shared/land") -> Job:
    return Job(f"{base}-{number}", status, metadata={"writes": writes})


def test_a_command_that_was_never_submitted_is_the_first_try() -> None:
    others = [job(1, "RUNNING", "run-land-ffffffff", "/elsewhere"), Job("raysubmit_x", "RUNNING")]
    assert tries(BASE, "/shared/land", others) == (None, (), None, f"{BASE}-1")


@pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED", "STOPPED"])
def test_an_ended_job_is_followed_by_the_next_try(status: str) -> None:
    known = [job(10, status), job(2, "FAILED"), job(9, "FAILED")]
    assert tries(BASE, "/shared/land", known) == (None, (), known[0], f"{BASE}-11")


def test_a_running_job_is_the_one() -> None:
    known = [job(1, "FAILED"), job(2, "RUNNING")]
    assert tries(BASE, "/shared/land", known).running == known[1]


def test_jobs_that_wait_for_the_same_folder_are_named() -> None:
    known = [job(1, "PENDING"), job(1, "PENDING", "train-land-ffffffff"), job(2, "PENDING", "train-x-1", "/elsewhere")]
    found = tries(BASE, "/shared/land", known)
    assert (found.waiting, found.next_id) == (tuple(known[:2]), f"{BASE}-2")


def test_another_command_at_work_in_the_folder_is_refused() -> None:
    known = [job(1, "RUNNING", "train-land-ffffffff")]
    with pytest.raises(InputError, match="train-land-ffffffff-1 is at work in /shared/land"):
        tries(BASE, "/shared/land", known)
    assert tries(BASE, "", known).next_id == f"{BASE}-1"  # of a command that only reads


def test_an_id_that_only_begins_alike_is_another_command() -> None:
    known = [job(1, "RUNNING", f"{BASE}-7", "/elsewhere"), job(1, "RUNNING", f"x{BASE}", "/elsewhere")]
    assert tries(BASE, "/shared/land", [*known, Job(f"{BASE}-007", "RUNNING")]).next_id == f"{BASE}-1"
