"""The ledger: what is written is read back, and what a kill cut short is not."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from segbatch.errors import SegbatchError
from segbatch.inference.ledger import (
    LedgerReader,
    LedgerRow,
    LedgerWriter,
    RowsForgottenError,
    forget_scenes,
    iterate_rows,
    read_ledger,
)
from segbatch.storage import ObjectPath, place


def done(scene: str = "a", block: int = 0, **changes: Any) -> LedgerRow:
    mask = np.array([[0, 1], [2, 255]], np.uint8)
    label = np.array([[0, 2], [255, 1]], np.uint8)
    counted: dict[str, Any] = {"num_classes": 3, "windows": 4, "started": 1.5, "seconds": {"read": 0.25}}
    return LedgerRow.of(scene, block, mask, label, **(counted | changes))


def failed(scene: str = "a", block: int = 0) -> LedgerRow:
    return LedgerRow.failed(scene, block, "a.tif is damaged", num_classes=3, started=2.0)


def test_a_row_counts_its_block() -> None:
    row = done()
    assert row.class_pixels == (1, 1, 1)
    assert row.nodata_pixels == 1
    assert row.ignored_pixels == 1
    assert row.confusion == ((1, 0, 0), (0, 0, 0), (0, 1, 0))
    assert row.checksum == hashlib.sha256(bytes([0, 1, 2, 255])).hexdigest()


@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_counts_against_scikit_learn(seed: int, num_classes: int) -> None:
    rng = np.random.default_rng(seed)
    choices = np.array([*range(num_classes), 255], np.uint8)
    mask, label = rng.choice(choices, (9, 11)), rng.choice(choices, (9, 11))
    row = LedgerRow.of("a", 0, mask, label, num_classes=num_classes, windows=1, started=0, seconds={})
    counted = (mask < 255) & (label < 255)
    expected = (
        confusion_matrix(label[counted], mask[counted], labels=range(num_classes))
        if counted.any()
        else np.zeros((num_classes, num_classes), int)
    )
    np.testing.assert_array_equal(row.confusion, expected)
    assert sum(row.class_pixels) + row.nodata_pixels == mask.size
    assert counted.sum() + row.ignored_pixels == sum(row.class_pixels)


def test_without_a_label_there_is_no_confusion() -> None:
    row = LedgerRow.of("a", 0, np.zeros((2, 2), np.uint8), None, num_classes=2, windows=1, started=0, seconds={})
    assert row.confusion is None
    assert row.ignored_pixels == 0


@pytest.mark.parametrize("row", [done(), failed(), done(note="smaller cores", memory=2**33)])
def test_rows_survive_json(row: LedgerRow) -> None:
    assert LedgerRow.from_json(row.to_json()) == row
    assert "\n" not in row.to_json()


def test_what_a_row_may_lack() -> None:
    """Notes and memory came later; ledgers without them are read."""
    data = json.loads(done().to_json())
    del data["note"], data["memory"]
    assert LedgerRow.from_json(json.dumps(data)) == done()


def test_writers_do_not_meet(tmp_path: Path) -> None:
    one, two = LedgerWriter(tmp_path), LedgerWriter(tmp_path)
    for block in range(3):
        one.append(done(block=block))
        two.append(done("b", block))
    assert len(list(tmp_path.glob("*.jsonl"))) == 2
    assert sorted(read_ledger(tmp_path)) == [(scene, block) for scene in "ab" for block in range(3)]


def test_a_torn_last_line_has_no_row(tmp_path: Path) -> None:
    LedgerWriter(tmp_path).append(done())
    (file,) = tmp_path.glob("*.jsonl")
    whole = done(block=1).to_json().encode()
    for cut in (1, len(whole) // 2, len(whole) - 1, len(whole)):
        file.write_bytes(done().to_json().encode() + b"\n" + whole[:cut])
        assert list(read_ledger(tmp_path)) == [("a", 0)]
    file.write_bytes(done().to_json().encode() + b"\n" + whole + b"\n")
    assert list(read_ledger(tmp_path)) == [("a", 0), ("a", 1)]


@pytest.mark.parametrize("junk", [b"{}\n", b"[]\n", b"null\n", b"\xff\xfe\n", b"\x00" * 20 + b"\n", b"\n"])
def test_junk_is_no_row(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "x.jsonl").write_bytes(junk + done().to_json().encode() + b"\n")
    assert list(read_ledger(tmp_path)) == [("a", 0)]


@pytest.mark.parametrize("order", [[done(), failed()], [failed(), done()]])
def test_success_wins_over_failure(tmp_path: Path, order: list[LedgerRow]) -> None:
    for row in order:
        LedgerWriter(tmp_path).append(row)
    assert read_ledger(tmp_path)["a", 0] == done()


def test_all_rows_come_one_by_one(tmp_path: Path) -> None:
    rows = [done(), failed(), done(), done(block=1)]
    for row in rows:
        LedgerWriter(tmp_path).append(row)
    (first, *_) = tmp_path.glob("*.jsonl")
    with first.open("ab") as file:
        file.write(b'{"scene": "a", "blo')
    assert sorted(row.to_json() for row in iterate_rows(tmp_path)) == sorted(row.to_json() for row in rows)
    assert list(iterate_rows(tmp_path / "nothing")) == []


def test_scenes_are_forgotten_for_good(tmp_path: Path) -> None:
    one, two = LedgerWriter(tmp_path), LedgerWriter(tmp_path)
    one.append(done("a"))
    one.append(done("b"))
    two.append(done("b", 1))
    (untouched,) = (file for file in tmp_path.iterdir() if '"scene":"a"' not in file.read_text())
    before = untouched.stat()
    forget_scenes(tmp_path, {"a", "never seen"})
    assert sorted(read_ledger(tmp_path)) == [("b", 0), ("b", 1)]
    assert (untouched.stat().st_ino, untouched.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.fixture(params=["folder", "store"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A ledger's folder, or its place in an object store."""
    return tmp_path if request.param == "folder" else place(request.getfixturevalue("remote"))


def blocks(reader: LedgerReader) -> list[int]:
    return [row.block for row in reader.new_rows()]


def test_a_reader_tells_each_row_once(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, first = LedgerReader(ledger), LedgerWriter(ledger)
    assert blocks(reader) == []
    for number in (0, 1):
        first.append(done(block=number))
    assert blocks(reader) == [0, 1]
    second = LedgerWriter(ledger)
    first.append(done(block=2))
    second.append(done(block=3))
    assert sorted(blocks(reader)) == [2, 3]
    opened: list[Any] = []
    monkeypatch.setattr(Path, "open", lambda path, *_: opened.append(path))
    monkeypatch.setattr(ObjectPath, "read_bytes", opened.append)
    assert blocks(reader) == opened == []


@pytest.mark.parametrize("cut", [1, 20, 150])
def test_a_reader_reads_a_torn_line_again(tmp_path: Path, cut: int) -> None:
    reader, line = LedgerReader(tmp_path), done(block=1).to_line()
    with (tmp_path / "a.jsonl").open("ab", buffering=0) as file:
        file.write(done(block=0).to_line() + line[:-cut])
        assert blocks(reader) == [0]
        file.write(line[-cut:-1])
        assert blocks(reader) == []
        file.write(line[-1:] + done(block=2).to_line()[:9])
        assert blocks(reader) == [1]


@pytest.mark.parametrize("later", [0, 40])
def test_a_reader_finds_that_rows_were_forgotten(ledger: Path, later: int) -> None:
    reader, writer = LedgerReader(ledger), LedgerWriter(ledger)
    for number in range(4):
        writer.append(done("ab"[number % 2], number))
    assert blocks(reader) == [0, 1, 2, 3]
    for number in range(later):  # the file may be longer than what was read of it
        writer.append(done("b", number))
    forget_scenes(ledger, {"a"})
    with pytest.raises(RowsForgottenError):
        blocks(reader)
    forget_scenes(ledger, {"b"})  # and the file is gone
    with pytest.raises(RowsForgottenError):
        blocks(reader)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full is needed")
def test_a_full_disk_is_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = LedgerWriter(tmp_path)
    monkeypatch.setattr(writer, "_path", Path("/dev/full"))
    with pytest.raises(SegbatchError, match=r"^/dev/full cannot be written: No space left on device\.$"):
        writer.append(done())
