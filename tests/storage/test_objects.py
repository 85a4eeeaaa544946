"""Objects that are written, listed, read and removed as files are; of several writers one wins."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import obstore
import pytest
from obstore.exceptions import GenericError

from segbatch.storage import ChangedError, ImagePath, NoCredentialsError, ObjectPath, client, objects, place
from segbatch.storage.client import errors_as_of_files, open_client


@pytest.fixture
def root(remote: str) -> ObjectPath:
    return ObjectPath(remote)


def names_below(root: ObjectPath) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path, _ in root.walk_objects())


def test_an_object_is_read_as_it_was_written(root: ObjectPath) -> None:
    path = root / "a" / "é b.txt"
    path.put(b"one\ntwo\n")
    assert path.read_bytes() == b"one\ntwo\n"
    assert path.read_text() == "one\ntwo\n"
    assert [*path.open()] == ["one\n", "two\n"]
    with path.open("rb") as stream:
        assert stream.read(3) == b"one"
    assert path.read_range(4, 3) == b"two"
    assert path.read_range(4, 100) == b"two\n"
    assert path.read_range(0, 0) == b""
    assert path.stat().st_size == 8
    with pytest.raises(ValueError, match="mode 'ab'"):
        path.open("ab")


def test_what_is_there_is_known(root: ObjectPath) -> None:
    path = root / "a" / "b"
    assert not root.exists()
    assert not path.exists()
    path.put(b"")
    assert path.is_file()
    assert not path.is_dir()
    assert (root / "a").is_dir()
    assert not (root / "a").is_file()
    assert (root / "a").exists()
    assert not (root / "a" / "bb").exists()


def test_nothing_is_found_as_files_are_not(root: ObjectPath) -> None:
    for read in (root.read_bytes, root.read_text, root.stat, root.unlink, lambda: root.read_range(0, 1)):
        with pytest.raises(FileNotFoundError) as caught:
            read()
        assert str(root) in str(caught.value)
        assert "\n" not in str(caught.value)
    root.unlink(missing_ok=True)
    assert list(root.iterdir()) == []
    assert list(root.glob("*")) == []


def test_public_images_do_not_make_the_runs_bucket_public(root: ObjectPath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
    open_client.cache_clear()
    try:
        assert "skip_signature" in ImagePath(root)._store.config
        assert "skip_signature" not in root._store.config
    finally:
        open_client.cache_clear()


def test_a_machine_without_a_role_has_no_credentials_and_not_no_bucket() -> None:
    said = "Error performing PUT http://169.254.169.254/latest/api/token in 1ms - Server returned: 404 Not Found"
    with (
        pytest.raises(NoCredentialsError, match="no credentials were found"),
        errors_as_of_files(ObjectPath("s3://b/x")),
    ):
        raise GenericError(said)


def test_a_bucket_that_is_not_there_is_named(bucket: str) -> None:
    with pytest.raises(FileNotFoundError, match="s3://nowhere/run"):
        ObjectPath("s3://nowhere/run").put(b"")


def test_what_is_below_is_listed(root: ObjectPath, tmp_path: Path) -> None:
    for name in ("x.json", "y.json", "a/z.json", "a/b/w.json", ".hidden.json", "ab/c"):
        (root / name).put(b"")
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    for pattern in ("*", "*.json", "*/*.json", "a/*", "*/", "x.json", "nothing*"):
        found = sorted(path.relative_to(root).as_posix() for path in root.glob(pattern))
        assert found == sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.glob(pattern)), pattern
    assert sorted(path.name for path in root.iterdir()) == sorted(path.name for path in tmp_path.iterdir())
    assert names_below(root) == sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file())
    assert names_below(root / "a") == ["b/w.json", "z.json"]  # and not what is in ab


def test_an_empty_object_that_stands_for_a_folder_is_none(root: ObjectPath) -> None:
    """As consoles and other libraries put them."""
    from pyarrow.fs import FileSystem

    filesystem, path = FileSystem.from_uri(str(root))
    filesystem.create_dir(f"{path}/a/b")
    (root / "a" / "c").put(b"")
    assert [path.name for path in root.iterdir()] == ["a"]
    assert sorted(path.name for path in (root / "a").iterdir()) == ["b", "c"]
    assert list((root / "a" / "b").iterdir()) == []
    assert list((root / "a" / "b").walk_objects()) == []


def test_more_objects_than_a_list_has_on_a_page(root: ObjectPath) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: (root / f"{number:04}").put(b""), range(1005)))
    assert names_below(root) == [f"{number:04}" for number in range(1005)]
    assert len(list(root.iterdir())) == 1005
    root.remove_below()
    assert not root.exists()


def test_pieces_are_one_object(root: ObjectPath) -> None:
    def pieces() -> list[bytes]:
        return [bytes([number]) * 3_000_000 for number in range(5)]  # more than one part of an upload

    root.put_pieces(pieces())
    assert root.read_bytes() == b"".join(pieces())
    root.put_pieces([])
    assert root.read_bytes() == b""


def test_where_a_piece_cannot_be_had_nothing_is_written(root: ObjectPath) -> None:
    def pieces() -> list[bytes]:
        yield bytes(20_000_000)
        assert not root.exists()  # reading while it is written is allowed, and it is not there yet
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        root.put_pieces(pieces())
    assert not root.exists()


def test_of_many_that_create_an_object_one_does(root: ObjectPath) -> None:
    def create(number: int) -> bool:
        try:
            root.put(str(number).encode(), create=True)
        except ChangedError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, range(8)))
    assert won.count(True) == 1
    assert root.read_bytes() == str(won.index(True)).encode()


def test_only_the_version_that_is_named_is_replaced(root: ObjectPath) -> None:
    first = root.put(b"first").version
    second = root.put(b"second", version=first).version
    assert second != first
    assert root.stat().version == second
    with pytest.raises(ChangedError):
        root.put(b"third", version=first)
    assert root.read_bytes() == b"second"


def test_an_object_moves(root: ObjectPath) -> None:
    (root / "a").put(b"content")
    (root / "a").replace(root / "b")
    assert names_below(root) == ["b"]
    assert (root / "b").read_bytes() == b"content"


def test_a_folder_is_copied_and_removed(root: ObjectPath) -> None:
    for name in ("zarr.json", "array/zarr.json", "array/c/0"):
        (root / "a" / name).put(name.encode())
    (root / "a").copy_below(root / "b")
    (root / "a").remove_below()
    assert names_below(root) == ["b/array/c/0", "b/array/zarr.json", "b/zarr.json"]
    assert (root / "b" / "array" / "c" / "0").read_bytes() == b"array/c/0"


def test_what_is_not_removed_at_once_is_tried_again(root: ObjectPath, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of requests that are not answered in time obstore repeats all but these."""
    delete, troubles = obstore.delete, [GenericError("timed out")] * 2

    def slow(*arguments: object) -> None:
        if troubles:
            raise troubles.pop()
        delete(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(obstore, "delete", slow)
    (root / "a").put(b"")
    (root / "a").unlink(missing_ok=True)
    assert not root.exists()
    troubles += [GenericError("timed out")] * 3
    with pytest.raises(OSError, match="timed out"):
        (root / "a").unlink(missing_ok=True)


def test_large_objects_are_copied_in_pieces(root: ObjectPath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "_MOST_COPIED_AT_ONCE", 1000)
    monkeypatch.setattr(objects, "_PART_BYTES", 6_000_000)
    monkeypatch.setattr(obstore, "copy", pytest.fail)
    content = bytes(range(256)) * 50_000
    (root / "a").put(content)
    (root / "a").replace(root / "b")
    assert (root / "b").read_bytes() == content
    assert names_below(root) == ["b"]


def test_errors_of_uploads_in_pieces_are_of_a_line(root: ObjectPath, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused:
        def write(self, _: bytes) -> None:
            raise OSError("Server returned non-2xx status code: 403 Forbidden\n<Error>...</Error>")

    monkeypatch.setattr(obstore, "open_writer", lambda *_, **__: Refused())
    with pytest.raises(PermissionError) as caught:
        root.put_pieces([b"x"])
    assert "\n" not in str(caught.value)
    assert str(root) in str(caught.value)


def test_a_store_that_is_not_there_is_an_error_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    open_client.cache_clear()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "planted-key-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret-key")
    monkeypatch.setitem(client._RETRY, "max_retries", 0)
    try:
        with pytest.raises(OSError, match="s3://bucket/run") as caught:
            place("s3://bucket/run").read_bytes()
    finally:
        open_client.cache_clear()
    assert "\n" not in str(caught.value)
    assert "planted" not in str(caught.value)
