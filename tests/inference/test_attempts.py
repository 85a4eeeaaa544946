"""Attempts that are counted until they end."""

import subprocess
import sys
from pathlib import Path

import pytest

from segbatch.inference.attempts import MOST_ATTEMPTS, Attempts


def lose(folder: Path) -> None:
    """A process that is lost while it works on block 7 of scene 2."""
    program = (
        "import os, signal\n"
        "from segbatch.inference.attempts import Attempts\n"
        f"with Attempts({str(folder)!r}, 'read').at(2, 7):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9


def test_a_block_is_given_up_after_so_many_lost_processes(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path, "read")
    for _ in range(MOST_ATTEMPTS - 1):
        lose(tmp_path)
    with attempts.at(2, 7) as problem:
        assert problem is None
    # What has ended starts from nothing.
    for _ in range(MOST_ATTEMPTS):
        lose(tmp_path)
    for other in (Attempts(tmp_path, "write").at(2, 7), attempts.at(7, 2)):
        with other as problem:
            assert problem is None
    with attempts.at(2, 7) as problem:
        assert problem is not None
        assert "block 7 was given up: 3 processes" in problem
    assert not any(tmp_path.iterdir())


def test_an_error_ends_an_attempt_too(tmp_path: Path) -> None:
    def fail() -> None:
        with Attempts(tmp_path, "read").at(0, 0) as problem:
            raise RuntimeError(problem)

    for _ in range(MOST_ATTEMPTS + 1):
        with pytest.raises(RuntimeError, match="None"):
            fail()


def test_without_a_place_to_count_blocks_are_tried(tmp_path: Path) -> None:
    with Attempts(tmp_path / "gone", "read").at(0, 0) as problem:
        assert problem is None
