"""Processes to measure in: they give their result, and end with who started them."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from segbatch.bench.processes import alone
from segbatch.errors import SegbatchError

_CHILD = """
import sys, time
from pathlib import Path
from segbatch.bench.processes import alone

def tell(file):
    import os
    Path(file).write_text(str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    alone(tell, sys.argv[1])
"""


def _divide(left: int, right: int) -> float:
    return left / right


def _end() -> None:
    signal.raise_signal(signal.SIGKILL)


def test_what_is_called_gives_its_result_and_its_error() -> None:
    assert alone(_divide, 6, 3) == 2
    with pytest.raises(ZeroDivisionError):
        alone(_divide, 1, 0)


def test_a_process_that_was_killed_is_said() -> None:
    with pytest.raises(SegbatchError, match="_end was killed"):
        alone(_end)


def test_a_process_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    script, told = tmp_path / "child.py", tmp_path / "pid"
    script.write_text(_CHILD)
    parent = subprocess.Popen([sys.executable, str(script), str(told)])
    try:
        while not (told.exists() and told.read_text()):
            assert parent.poll() is None
            time.sleep(0.05)
        child = psutil.Process(int(told.read_text()))
    finally:
        parent.kill()
        parent.wait()
    child.wait(timeout=60)
    assert not child.is_running()
