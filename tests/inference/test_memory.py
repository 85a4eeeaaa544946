"""What a process holds, and what it may."""

import mmap
from pathlib import Path

import numpy as np
import pytest

from segbatch.inference import memory
from segbatch.inference.memory import resident_memory, total_memory

pytestmark = pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="the system does not tell")


def test_memory_that_is_taken_is_counted() -> None:
    before = resident_memory()
    with mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as pages:
        pages.write(b"\1" * len(pages))
        assert 60 << 20 < resident_memory() - before < 150 << 20
    assert before > 10 << 20


def test_pages_of_files_are_not_counted(tmp_path: Path) -> None:
    """As those of Ray's object store."""
    (tmp_path / "file").write_bytes(bytes(64 << 20))
    with open(tmp_path / "file", "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pages:
        before = resident_memory()
        assert np.frombuffer(pages, np.uint8).max() == 0
        assert resident_memory() - before < 16 << 20


def test_this_machine_has_memory_to_give() -> None:
    assert 1 << 20 < total_memory() < 1 << 50


def test_where_the_system_does_not_tell_it_is_0(tmp_path: Path) -> None:
    assert memory._kilobytes(str(tmp_path / "nothing"), "MemAvailable:") == 0
    (tmp_path / "meminfo").write_text("MemTotal: 5 kB\n")
    assert memory._kilobytes(str(tmp_path / "meminfo"), "MemAvailable:") == 0
    assert memory._kilobytes(str(tmp_path / "meminfo"), "MemTotal:") == 5
