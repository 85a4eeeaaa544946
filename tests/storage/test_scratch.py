"""What is in the temporary folder: no more than what living processes hold, and copies that are in use."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from segbatch.storage import ObjectPath, fetch, local_copy, local_file, place, scratch_folder, write_whole
from segbatch.storage.scratch import UNUSED_SECONDS, find_copy, keep_copy

_HOLD = """
import sys
from segbatch.storage import scratch_folder
with scratch_folder() as folder:
    (folder / "weights").write_bytes(b"half of th")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This user's folder in a temporary folder that is a test's own."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path / f"segbatch-{os.getuid()}"


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def make_copy(name: str) -> Path:
    with scratch_folder() as scratch:
        (scratch / name).mkdir()
        (scratch / name / "weights").write_text(name)
        return keep_copy(scratch / name, name)


def leave_unused(copy: Path) -> None:
    os.utime(copy, (then := time.time() - UNUSED_SECONDS - 60, then))


def test_a_scratch_folder_goes_with_all_in_it(root: Path) -> None:
    with scratch_folder() as folder:
        (folder / "a").mkdir()
        assert folder.stat().st_mode & 0o077 == 0
    assert names(root) == []


def test_what_a_killed_process_held_goes_and_what_a_living_one_holds_stays(root: Path) -> None:
    command = [sys.executable, "-c", _HOLD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        held = Path(process.stdout.readline().rstrip("\n"))
        with scratch_folder() as folder:
            assert names(root) == sorted([held.name, folder.name])
        process.kill()
    assert names(root) == [held.name]
    with scratch_folder() as folder:
        assert names(root) == [folder.name]


def test_where_folders_cannot_be_held_nothing_is_swept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int, operation: int) -> None:
        raise OSError(95, "not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    with scratch_folder() as first, scratch_folder() as second:
        assert names(root) == sorted([first.name, second.name])
    assert names(root) == []


def test_copies_that_nobody_has_used_for_a_day_go(root: Path) -> None:
    old, used, new = make_copy("old"), make_copy("used"), make_copy("new")
    leave_unused(old)
    leave_unused(used)
    assert find_copy("used") == used
    assert find_copy("nothing") is None
    assert names(root) == ["new", "old", "used"]
    with scratch_folder():
        pass
    assert names(root) == ["new", "used"]
    assert (used / "weights").read_text() == "used"
    assert find_copy("new") == new
    assert find_copy("old") is None


def test_a_copy_that_was_half_removed_is_none(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_unused(make_copy("old"))
    with monkeypatch.context() as killed:
        killed.setattr("shutil.rmtree", lambda *_, **__: None)
        with scratch_folder():
            pass
    assert find_copy("old") is None
    with scratch_folder() as folder:
        assert names(root) == [folder.name]


def test_a_file_in_its_place_is_no_obstacle(root: Path) -> None:
    root.write_bytes(b"somebody's")
    with scratch_folder() as folder:
        assert folder.is_dir()
    assert root.read_bytes() == b"somebody's"


def test_of_processes_that_fetch_the_same_one_keeps_its_copy(
    remote: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_whole(place(remote) / "weights", b"weights")
    together, found = threading.Barrier(4, timeout=60), []

    def none_yet(name: str) -> None:
        together.wait()

    monkeypatch.setattr(fetch, "find_copy", none_yet)
    threads = [threading.Thread(target=lambda: found.append(local_copy(remote))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (copy,) = set(found)
    assert len(found) == 4
    assert names(root) == [copy.name]
    assert (copy / "weights").read_bytes() == b"weights"


def test_a_new_version_takes_the_place_of_one_that_is_not_used_any_more(remote: str, root: Path) -> None:
    file = place(remote) / "weights"
    write_whole(file, b"one")
    first = local_file(file)
    assert local_file(file) == first
    leave_unused(first.parent)
    write_whole(file, b"two")
    second = local_file(file)
    assert second.read_bytes() == b"two"
    assert names(root) == [second.parent.name]


def test_of_what_cannot_be_fetched_nothing_stays(remote: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(place(remote) / "weights", b"weights")

    def refuse(self: ObjectPath) -> bytes:
        raise PermissionError(13, "the store refuses it", str(self))

    monkeypatch.setattr(ObjectPath, "read_bytes", refuse)
    with pytest.raises(PermissionError):
        local_copy(remote)
    assert names(root) == []
