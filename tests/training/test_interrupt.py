"""Waiting for others while signals come: in processes of their own, which the signals are for."""

import subprocess
import sys

import pytest

_PROGRAM = """
import os, signal, sys, threading, time
from segbatch.training import interrupt

signal.signal(signal.SIGINT, signal.default_int_handler)
kind, stop = sys.argv[1], threading.Event()

def press(times):
    for _ in range(times):
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGINT)

def work():
    if kind == "raises":
        raise OSError("no")
    if kind == "returns":
        return 7
    if kind == "stops":
        stop.wait(30)
        time.sleep(0.5)  # the wait must go on until the work has ended by itself
        return 3
    time.sleep(30)

if kind == "slow":
    interrupt.GRACE_SECONDS = 0.2
threading.Thread(target=press, args=({"stops": 1, "slow": 1, "twice": 2}.get(kind, 0),), daemon=True).start()
print(interrupt.wait_gracefully(work, stop.set), stop.is_set())
os._exit(0)
"""


def run(kind: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM, kind], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("returns", "(7, False) False"),
        ("stops", "(3, True) True"),
        ("slow", "(None, True) True"),
    ],
)
def test_the_work_is_waited_for_and_asked_to_stop_at_a_signal(kind: str, said: str) -> None:
    ended = run(kind)
    assert ended.stdout.strip() == said, ended.stderr


def test_what_the_work_raises_is_raised() -> None:
    assert run("raises").stderr.strip().endswith("OSError: no")


def test_a_second_signal_ends_the_wait() -> None:
    ended = run("twice")
    assert ended.stderr.strip().endswith("KeyboardInterrupt")
    assert not ended.stdout
