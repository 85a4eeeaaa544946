"""Attempts that are counted until they end."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from segbatch.inference.attempts import MOST_ATTEMPTS, Attempts, forget_attempts, suspects


def lose(folder: Path) -> None:
    """A process that is lost while it works on block 7 of a scene."""
    program = (
        "import os, signal\n"
        "from segbatch.inference.attempts import Attempts\n"
        f"with Attempts({str(folder)!r}, 'read').at('s-2', 7):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9


def test_a_block_is_given_up_after_so_many_lost_processes(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path, "read")
    for _ in range(MOST_ATTEMPTS - 1):
        lose(tmp_path)
    with attempts.at("s-2", 7) as problem:
        assert problem is None
    # What has ended starts from nothing.
    for _ in range(MOST_ATTEMPTS):
        lose(tmp_path)
    for other in (Attempts(tmp_path, "write").at("s-2", 7), attempts.at("7", 2)):
        with other as problem:
            assert problem is None
    with attempts.at("s-2", 7) as problem:
        assert problem is not None
        assert "block 7 was given up: 3 processes" in problem
    assert not any(tmp_path.iterdir())


def test_an_error_ends_an_attempt_too(tmp_path: Path) -> None:
    def fail() -> None:
        with Attempts(tmp_path, "read").at("s", 0) as problem:
            raise RuntimeError(problem)

    for _ in range(MOST_ATTEMPTS + 1):
        with pytest.raises(RuntimeError, match="None"):
            fail()


def test_without_a_place_to_count_blocks_are_tried(tmp_path: Path) -> None:
    with Attempts(tmp_path / "gone", "read").at("s", 0) as problem:
        assert problem is None


def leave_behind(folder: Path, *names: str) -> None:
    """Files as lost processes leave them, the oldest first."""
    for age, name in enumerate(reversed(names)):
        (folder / name).write_bytes(b".")
        os.utime(folder / name, (time.time() - age,) * 2)


def test_what_was_tried_again_and_lost_again_is_suspected_last(tmp_path: Path) -> None:
    assert suspects(tmp_path / "nothing") == {}
    names = "map-guilty-3", "map-b-1", "finish-a-0", "read-b-2", "predict-b-1", "begin-guilty-0", "map-guilty-7"
    leave_behind(tmp_path, *names)
    assert list(suspects(tmp_path).items()) == [("b", [1]), ("a", []), ("guilty", [3, 7])]
    forget_attempts(tmp_path, {"b", "guilty", "c"})
    assert [path.name for path in tmp_path.iterdir()] == ["finish-a-0"]


def test_all_that_was_begun_ends_with_the_process_that_is_not_lost(tmp_path: Path) -> None:
    leave_behind(tmp_path, "map-a-1", "map-a-9")

    def stop() -> None:
        with Attempts(tmp_path, "map") as attempts:
            for block in range(3):
                attempts.begin("a", block)
            attempts.end("a", 0)
            assert {path.name for path in tmp_path.iterdir()} == {"map-a-1", "map-a-2", "map-a-9"}
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert [path.name for path in tmp_path.iterdir()] == ["map-a-9"]  # nobody has tried it again
