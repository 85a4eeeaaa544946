"""One command at a time writes a run in an object store."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from segbatch.commands import object_lock
from segbatch.commands.folder import RunFolder
from segbatch.commands.holder import LEASE_SECONDS
from segbatch.commands.lock import hold, holder
from segbatch.errors import FolderInUseError
from segbatch.storage import ObjectPath, is_remote

HOLD = """
import sys, time
from segbatch.commands import object_lock
from segbatch.commands.folder import RunFolder
from segbatch.commands.lock import hold
if len(sys.argv) > 2:
    object_lock.REFRESH_SECONDS = float(sys.argv[2])
with hold(RunFolder.of(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def folder(remote: str) -> RunFolder:
    return RunFolder.of(remote)


@pytest.fixture
def lock(folder: RunFolder) -> ObjectPath:
    path = folder.path / ".lock"
    assert is_remote(path)
    return path


@pytest.fixture
def start(remote: str) -> Iterator[Start]:
    """A function that starts a process which holds the lock."""
    started: list[subprocess.Popen[str]] = []

    def run(*more: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, remote, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def of_another_machine(lock: ObjectPath, age: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock as a command on another machine has left it, refreshed ``age`` seconds ago by the store's clock."""
    lock.put(
        json.dumps({"pid": 1, "host": "elsewhere", "command": "segbatch run", "since": "2026", "token": "x"}).encode()
    )
    real = object_lock._store_time
    monkeypatch.setattr(object_lock, "_store_time", lambda path: real(path) + age)


def test_a_lock_is_given_back(folder: RunFolder, lock: ObjectPath) -> None:
    with hold(folder), hold(folder):
        assert lock.exists()
        found = holder(folder)
        assert found is not None
        assert found.is_alive
        assert found.process == os.getpid()
    assert not folder.path.exists()
    assert holder(folder) is None
    with pytest.raises(KeyError), hold(folder):
        raise KeyError
    assert not folder.path.exists()


def test_who_holds_it_is_said_in_a_line(folder: RunFolder, start: Start) -> None:
    process = start()
    with pytest.raises(FolderInUseError) as caught, hold(folder):
        pytest.fail("two have it")
    text = str(caught.value)
    assert f"{folder.path} is being written by" in text
    assert f"process {process.pid} on {socket.gethostname()}" in text
    assert " since 20" in text
    assert "\n" not in text
    assert "planted" not in text


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_who_is_asked_to_end_gives_it_back(lock: ObjectPath, start: Start, how: signal.Signals) -> None:
    process = start()
    process.send_signal(how)
    process.communicate(timeout=60)
    assert not lock.exists()


def test_the_lock_of_a_killed_process_is_taken_at_once(folder: RunFolder, lock: ObjectPath, start: Start) -> None:
    process = start()
    process.kill()
    process.communicate()
    assert lock.exists()
    found = holder(folder)
    assert found is not None
    assert not found.is_alive
    with hold(folder):
        pass
    assert not lock.exists()


def test_a_process_that_stands_still_keeps_it_for_a_lease(folder: RunFolder, start: Start) -> None:
    process = start()
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(FolderInUseError), hold(folder):
        pytest.fail("two have it")


@pytest.mark.parametrize(("age", "is_free"), [(LEASE_SECONDS / 2, False), (LEASE_SECONDS + 60, True)])
def test_a_lock_of_another_machine_is_free_when_nothing_refreshes_it(
    folder: RunFolder, lock: ObjectPath, monkeypatch: pytest.MonkeyPatch, age: float, is_free: bool
) -> None:
    of_another_machine(lock, age, monkeypatch)
    if is_free:
        with hold(folder):
            assert json.loads(lock.read_bytes())["pid"] == os.getpid()
    else:
        with pytest.raises(FolderInUseError, match="segbatch run \\(process 1 on elsewhere\\)"), hold(folder):
            pytest.fail("two have it")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"pid": "x", "host": 3}', b"\xff"])
def test_a_lock_that_cannot_be_read_is_respected(folder: RunFolder, lock: ObjectPath, content: bytes) -> None:
    lock.put(content)
    with pytest.raises(FolderInUseError), hold(folder):
        pytest.fail("two have it")


def test_of_many_that_find_a_dead_lock_one_gets_it(lock: ObjectPath, monkeypatch: pytest.MonkeyPatch) -> None:
    of_another_machine(lock, LEASE_SECONDS + 60, monkeypatch)
    found = object_lock._Found.at(lock)
    assert found is not None
    monkeypatch.setattr(object_lock._Found, "at", lambda _: found)  # all have seen it dead

    def take(_: int) -> bool:
        try:
            object_lock._Lock(lock).take()
        except FolderInUseError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(take, range(8))).count(True) == 1


def test_it_is_refreshed(lock: ObjectPath, start: Start) -> None:
    start("0.2")
    before = lock.stat().version
    time.sleep(1)
    assert lock.stat().version != before


@pytest.mark.parametrize("lose", [lambda lock: lock.unlink(), lambda lock: lock.put(b'{"token": "another"}')])
def test_who_has_lost_it_stops(lock: ObjectPath, start: Start, lose: Callable[[ObjectPath], Any]) -> None:
    process = start("0.2")
    lose(lock)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "was lost (another command has taken it)" in said


def test_a_write_whose_answer_was_lost_is_ones_own(lock: ObjectPath, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library tries again, and finds the version that it has written itself."""
    ours = object_lock._Lock(lock)
    ours.take()
    put = ObjectPath.put

    def twice(self: ObjectPath, content: bytes, **named: Any) -> Any:
        put(self, content, **named)
        return put(self, content, **named)

    with monkeypatch.context() as patched:
        patched.setattr(ObjectPath, "put", twice)
        ours._put(ours._version)
    ours._put(ours._version)
    ours.give_back()
    assert not lock.exists()
