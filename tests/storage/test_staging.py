"""Files and folders that appear whole or not at all, in a folder and in an object store alike."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from segbatch.storage import (
    PARTIAL,
    is_remote,
    local_copy,
    move,
    move_over,
    place,
    read_range,
    remove_folder,
    remove_tree,
    staging_folder,
    write_whole,
)
from tests.killing import Killed, kill_at


@pytest.fixture(params=["folder", "store"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An empty place."""
    return tmp_path / "root" if request.param == "folder" else place(request.getfixturevalue("remote"))


def names(root: Path) -> list[str]:
    if is_remote(root):
        return sorted(path.relative_to(root).as_posix() for path, _ in root.walk_objects())
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def make_store(folder: Path, content: bytes, *more: str) -> Path:
    for name in ("zarr.json", "class_mask/zarr.json", *more):
        write_whole(folder / name, content)
    return folder


def test_a_file_is_written_read_and_replaced(root: Path) -> None:
    file = root / "a" / "b"
    write_whole(file, b"first")
    write_whole(file, iter([b"sec", b"ond"]))
    assert file.read_bytes() == b"second"
    assert read_range(file, 1, 3) == b"eco"
    assert read_range(file, 4, 30) == b"nd"
    assert names(root) == ["a/b"]


def test_a_piece_that_cannot_be_made_leaves_what_was_there(root: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"half"
        raise ZeroDivisionError

    write_whole(root / "a", b"old")
    with pytest.raises(ZeroDivisionError):
        write_whole(root / "a", pieces())
    assert (root / "a").read_bytes() == b"old"
    assert names(root) == ["a"]


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"half"
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space") as caught:
        write_whole(tmp_path / "a", pieces())
    assert caught.value.filename == str(tmp_path / "a")
    assert names(tmp_path) == []


def test_what_is_staged_is_moved_or_gone(root: Path) -> None:
    with staging_folder(root / "store") as scratch:
        assert scratch.name.endswith(PARTIAL)
        move(make_store(scratch / "new", b"1", "class_mask/c/0/0"), root / "store")
        (scratch / "one").write_bytes(b"file")
        move(scratch / "one", root / "file")
        (scratch / "left").write_bytes(b"")
    assert names(root) == ["file", "store/class_mask/c/0/0", "store/class_mask/zarr.json", "store/zarr.json"]
    assert not scratch.exists()


def test_a_folder_takes_the_place_of_another(root: Path) -> None:
    make_store(root / "new", b"new", "class_mask/c/0/1")
    make_store(root / "old", b"old", "class_mask/c/0/0")
    move_over(root / "new", root / "old")
    assert names(root) == ["old/class_mask/c/0/1", "old/class_mask/zarr.json", "old/zarr.json"]
    assert (root / "old" / "zarr.json").read_bytes() == b"new"


def test_a_file_takes_the_place_of_another(root: Path) -> None:
    write_whole(root / "new", b"new")
    write_whole(root / "old", b"old")
    move_over(root / "new", root / "old")
    move_over(root / "old", root / "a" / "third")
    assert names(root) == ["a/third"]
    assert (root / "a" / "third").read_bytes() == b"new"


def test_a_local_folder_takes_the_place_of_another(root: Path, tmp_path: Path) -> None:
    make_store(root / "old", b"old", "class_mask/c/0/0")
    move_over(make_store(tmp_path / "local", b"new", "class_mask/c/0/1"), root / "old")
    assert names(root) == ["old/class_mask/c/0/1", "old/class_mask/zarr.json", "old/zarr.json"]


@pytest.mark.parametrize("killed_after", range(9))
def test_a_move_that_is_killed_is_ended_by_the_next(
    remote: str, killed_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an object store a folder moves object by object."""
    from segbatch.storage import objects

    root = place(remote)
    make_store(root / "new", b"new", "class_mask/c/0/0")
    make_store(root / "old", b"old", "class_mask/c/0/1")

    with monkeypatch.context() as patched:
        kill_at(killed_after + 1, patched, [(objects.obstore, "copy"), (objects.obstore, "delete")])
        # Batches of one: that many deletions are as many requests where there are more than a thousand objects.
        whole = objects.obstore.list
        patched.setattr(objects.obstore, "list", lambda *given, **_: whole(*given, chunk_size=1))
        try:
            move_over(root / "new", root / "old")
        except Killed:
            # What is half there is not taken for whole: the mark is there only where all is.
            if (root / "old" / "zarr.json").is_file() and (root / "old" / "zarr.json").read_bytes() == b"new":
                assert (root / "old" / "class_mask/c/0/0").read_bytes() == b"new"
    if (root / "new").exists():  # as who moves asks before
        move_over(root / "new", root / "old")
    assert names(root) == ["old/class_mask/c/0/0", "old/class_mask/zarr.json", "old/zarr.json"]
    assert {(root / name).read_bytes() for name in names(root)} == {b"new"}


@pytest.mark.parametrize("remove", [remove_folder, remove_tree])
def test_a_folder_is_removed_and_may_be_gone_already(root: Path, remove: object) -> None:
    make_store(root / "a", b"1")
    write_whole(root / "ab", b"2")
    remove(root / "a")  # type: ignore[operator]
    remove(root / "a")  # type: ignore[operator]
    assert names(root) == ["ab"]


def test_libraries_that_want_files_get_copies(root: Path) -> None:
    make_store(root / "a", b"one")
    copy = local_copy(root / "a")
    assert names(copy) == ["class_mask/zarr.json", "zarr.json"]
    assert local_copy(str(root / "a")) == copy
    write_whole(root / "a" / ".cache" / "x.json", b"what is hidden is not copied, and makes no copy another one")
    if is_remote(root):
        assert local_copy(root / "a") == copy
    write_whole(root / "a" / "zarr.json", b"two")
    assert (local_copy(root / "a") / "zarr.json").read_bytes() == b"two"


def test_copies_are_not_put_where_somebody_else_can_change_them(
    remote: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / f"segbatch-{os.getuid()}").mkdir(mode=0o777)
    (tmp_path / f"segbatch-{os.getuid()}").chmod(0o777)
    make_store(place(remote), b"one")
    copy = local_copy(place(remote))
    assert copy.parent != tmp_path / f"segbatch-{os.getuid()}"
    assert copy.parent.stat().st_mode & 0o077 == 0
    with pytest.raises(FileNotFoundError):
        local_copy(place(remote) / "nowhere")
