"""Profiles: what is kept beside a bundle comes back, and what cannot be read is no profile."""

import json
from pathlib import Path
from typing import Any

import pytest

from segbatch.models.profile import FAILED, PastRun, Profile, Speed, cpu_name, kind, read_profile, write_profile

DEVICE = "AMD EPYC 9B14 / 2 threads"


def make_profile(device: str = DEVICE) -> Profile:
    speeds = {kind("eager", "float32"): Speed(0.8, 0.1, 1.0), kind("onnx", "float32"): FAILED}
    return Profile(device, 612.5, speeds, {"ray/eager/float32": PastRun(0.7, 13.0, 1.5e9, 6_000_000)})


def test_a_profile_comes_back(tmp_path: Path) -> None:
    assert read_profile(tmp_path, DEVICE) is None
    assert write_profile(tmp_path, make_profile())
    assert read_profile(tmp_path, DEVICE) == make_profile()
    assert read_profile(str(tmp_path), DEVICE) == make_profile()
    assert FAILED.failed
    assert not make_profile().speeds["eager/float32"].failed


def test_the_latest_profile_stands(tmp_path: Path) -> None:
    write_profile(tmp_path, make_profile())
    later = Profile(DEVICE, 1.0)
    assert write_profile(tmp_path, later)
    assert read_profile(tmp_path, DEVICE) == later
    assert len(list((tmp_path / ".cache").iterdir())) == 1


def test_devices_do_not_meet(tmp_path: Path) -> None:
    for device in ("NVIDIA H100", "NVIDIA H200"):
        write_profile(tmp_path, make_profile(device))
    for device in ("NVIDIA H100", "NVIDIA H200"):
        assert read_profile(tmp_path, device) == make_profile(device)
    # Names that make the same file: a foreign profile is none.
    assert read_profile(tmp_path, "NVIDIA/H100") is None
    assert read_profile(tmp_path, "") is None


def change(**changes: Any) -> bytes:
    return json.dumps(make_profile().to_json() | changes).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b"\xff\xfe",
        change(format=2),
        change(device="another"),
        change(speeds=[]),
        change(speeds=None),
        change(speeds={"eager/float32": {"mpx_per_second": 1.0}}),
        change(speeds={"eager/float32": {"mpx_per_second": 1, "build_seconds": 1, "agreement": 1, "more": 1}}),
        change(speeds={"eager/float32": 1.0}),
        change(runs={"ray/eager/float32": []}),
        change(pixel_bytes=None),
        change(pixel_bytes="many"),
    ],
)
def test_what_is_no_profile_is_none(tmp_path: Path, content: bytes) -> None:
    write_profile(tmp_path, make_profile())
    (file,) = (tmp_path / ".cache").iterdir()
    file.write_bytes(content)
    assert read_profile(tmp_path, DEVICE) is None
    assert write_profile(tmp_path, make_profile())  # and it can be replaced
    assert read_profile(tmp_path, DEVICE) == make_profile()


def test_a_bundle_that_cannot_be_written_to_has_no_profile(tmp_path: Path) -> None:
    assert not write_profile(tmp_path / "nowhere", make_profile())
    (tmp_path / ".cache").write_text("in the way")
    assert not write_profile(tmp_path, make_profile())
    assert read_profile(tmp_path, DEVICE) is None
    assert [entry.name for entry in tmp_path.iterdir()] == [".cache"]


def test_the_processor_has_a_name() -> None:
    assert cpu_name() == cpu_name().strip() != ""
