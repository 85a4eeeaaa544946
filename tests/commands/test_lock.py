"""One command at a time writes a run's folder."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from segbatch.commands.folder import RunFolder
from segbatch.commands.lock import LEASE_SECONDS, hold
from segbatch.errors import FolderInUseError

HOLD = """
import sys, time
from pathlib import Path
from segbatch.commands.folder import RunFolder
from segbatch.commands.lock import hold
with hold(RunFolder(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(60)
"""

Holder = Callable[[], subprocess.Popen[str]]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Holder]:
    """A function that starts a process which holds the lock of the folder."""
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_lock_is_given_back(folder: RunFolder) -> None:
    with hold(folder), hold(folder):
        assert (folder.path / ".lock").exists()
    assert list(folder.path.iterdir()) == []
    with pytest.raises(KeyError), hold(folder):
        raise KeyError
    assert list(folder.path.iterdir()) == []


def test_who_holds_it_is_said_in_a_line(folder: RunFolder, holder: Holder) -> None:
    process = holder()
    with pytest.raises(FolderInUseError) as caught, hold(folder):
        pytest.fail("two have it")
    text = str(caught.value)
    assert f"process {process.pid} on {socket.gethostname()}" in text
    assert " since 20" in text
    assert "\n" not in text
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_who_is_asked_to_end_gives_it_back(folder: RunFolder, holder: Holder, how: signal.Signals) -> None:
    process = holder()
    process.send_signal(how)
    process.wait()
    assert list(folder.path.iterdir()) == []


def test_the_lock_of_a_killed_process_is_taken_at_once(folder: RunFolder, holder: Holder) -> None:
    process = holder()
    process.kill()
    process.wait()
    assert (folder.path / ".lock").exists()
    with hold(folder):
        pass
    assert not (folder.path / ".lock").exists()


def test_a_process_that_stands_still_keeps_it(folder: RunFolder, holder: Holder) -> None:
    process = holder()
    process.send_signal(signal.SIGSTOP)
    long_ago = time.time() - 10 * LEASE_SECONDS
    os.utime(folder.path / ".lock", (long_ago, long_ago))
    with pytest.raises(FolderInUseError), hold(folder):
        pytest.fail("two have it")


def test_a_number_that_another_process_has_now_does_not_keep_it(folder: RunFolder) -> None:
    """As in a container that was started anew, whose processes filelock cannot judge."""
    with hold(folder):
        text = (folder.path / ".lock").read_text()
    path = folder.path / ".lock"
    with subprocess.Popen(["sleep", "60"]) as other:
        text = text.replace(f"pid={os.getpid()}\n", f"pid={other.pid}\n")
        path.write_text(text.replace(f"host={socket.gethostname()}", f"host={socket.gethostname()}?pidns-1"))
        os.utime(path, (time.time() - 10 * LEASE_SECONDS,) * 2)
        with hold(folder):
            assert f"pid={os.getpid()}" in path.read_text()
        other.kill()


def of_another_machine(folder: RunFolder, age: float) -> None:
    """A lock as a command on another machine has left it, refreshed ``age`` seconds ago."""
    with hold(folder):
        text = (folder.path / ".lock").read_text()
    path = folder.path / ".lock"
    path.write_text("".join("host=elsewhere\n" if line.startswith("host=") else f"{line}\n" for line in text.split()))
    os.utime(path, (time.time() - age,) * 2)


def test_a_fresh_lock_of_another_machine_is_respected(folder: RunFolder) -> None:
    of_another_machine(folder, LEASE_SECONDS / 2)
    with pytest.raises(FolderInUseError, match=f"process {os.getpid()} on elsewhere"), hold(folder):
        pytest.fail("two have it")
    assert (folder.path / ".lock").exists()


def test_a_lock_of_another_machine_that_nothing_refreshes_is_taken(folder: RunFolder) -> None:
    of_another_machine(folder, LEASE_SECONDS + 60)
    with hold(folder):
        assert json.loads((folder.path / ".lock.json").read_text())["pid"] == os.getpid()


def test_a_dead_lock_is_taken_where_names_cannot_be_exchanged(
    folder: RunFolder, holder: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS, where filelock leaves it to us."""
    with hold(folder):  # which imports filelock
        pass
    users = [
        module
        for name, module in sys.modules.items()
        if name.startswith("filelock") and "exchange_names" in vars(module)  # which they are differs by version
    ]
    assert users
    for module in users:
        monkeypatch.setattr(module, "exchange_names", lambda *_: False)
    process = holder()
    process.kill()
    process.wait()
    with pytest.raises(FolderInUseError), hold(folder):
        pytest.fail("it was not dead for long enough")
    os.utime(folder.path / ".lock", (time.time() - LEASE_SECONDS - 60,) * 2)
    with hold(folder):
        pass


def test_of_many_that_find_a_dead_lock_one_gets_it(folder: RunFolder) -> None:
    """The one that gets it keeps it until the others have tried."""
    of_another_machine(folder, LEASE_SECONDS + 60)
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom segbatch.commands.folder import RunFolder\n"
        "from segbatch.commands.lock import hold\nfrom segbatch.errors import FolderInUseError\n"
        "folder = RunFolder(Path(sys.argv[1]))\nPath(sys.argv[1], f'ready-{sys.argv[2]}').touch()\n"
        "while not Path(sys.argv[1], 'go').exists(): time.sleep(0.001)\n"
        "try:\n    with hold(folder):\n        print('got', flush=True)\n"
        "        while len(list(folder.path.glob('refused-*'))) < 4: time.sleep(0.01)\n"
        "except FolderInUseError:\n    Path(sys.argv[1], f'refused-{sys.argv[2]}').touch()\n    print('refused')\n"
    )
    crowd = [
        subprocess.Popen([sys.executable, "-c", code, str(folder.path), str(n)], stdout=subprocess.PIPE, text=True)
        for n in range(5)
    ]
    while len(list(folder.path.glob("ready-*"))) < len(crowd):
        time.sleep(0.01)
    (folder.path / "go").touch()
    said = [process.communicate(timeout=120)[0].strip() for process in crowd]
    assert sorted(said) == ["got", *["refused"] * 4]


def test_who_has_lost_it_stops(folder: RunFolder, tmp_path: Path) -> None:
    code = HOLD.replace("from segbatch.commands.lock import hold", "from segbatch.commands import lock\n"
                        "lock.LEASE_SECONDS, lock.REFRESH_SECONDS = 0.6, 0.2\nhold = lock.hold")  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    (folder.path / ".lock").unlink()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "was lost" in said


def test_secrets_of_a_command_line_are_not_kept(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/segbatch", "run", "a.yaml", "--set", "key=secret"])
    with hold(folder):
        assert json.loads((folder.path / ".lock.json").read_text())["command"] == "segbatch run"
