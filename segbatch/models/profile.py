"""What is known of a bundle on a device: how fast each backend runs it, and how well it agrees. Light: no torch.

A profile is measured once and kept beside the bundle, in ``.cache/<device>.json``: it is no part of what the bundle
computes, and a bundle that cannot be written to is measured anew.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from segbatch.storage import place, write_whole

_FOLDER = ".cache"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Speed:
    """What was measured of a backend at a precision.

    Args:
        mpx_per_second: Million pixels of windows a second.
        build_seconds: Until it was ready for the first window.
        agreement: Share of pixels of real windows whose class is that of eager float32.
    """

    mpx_per_second: float
    build_seconds: float
    agreement: float

    @property
    def failed(self) -> bool:
        """Whether the backend does not run the model; it is not tried again."""
        return self.mpx_per_second == 0


FAILED = Speed(0.0, 0.0, 0.0)
"""Of a backend that does not run the model."""


@dataclass(frozen=True, slots=True)
class PastRun:
    """What a whole run took.

    Args:
        mpx_per_second: Million pixels of windows a second and actor, reading, writing and the finish counted in.
        start_up: Seconds until the first block was predicted.
        actor_bytes: Memory of a predicting process.
        window_pixels: Pixels of the batches that it took.
    """

    mpx_per_second: float
    start_up: float
    actor_bytes: float
    window_pixels: int


@dataclass(frozen=True, slots=True)
class Profile:
    """A bundle on a device.

    Args:
        device: Name of the processor or GPU, and the threads of a process.
        pixel_bytes: Memory that eager float32 takes for each pixel of a window at its peak; 0 where it is not known.
        speeds: By ``backend/precision``.
        runs: Of the latest run of each kind, by engine, backend, precision and how windows were put together.
    """

    device: str
    pixel_bytes: float
    speeds: Mapping[str, Speed] = field(default_factory=dict)
    runs: Mapping[str, PastRun] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "format": _FORMAT,
            "device": self.device,
            "pixel_bytes": self.pixel_bytes,
            "speeds": {name: asdict(speed) for name, speed in self.speeds.items()},
            "runs": {name: asdict(run) for name, run in self.runs.items()},
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_json`.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: The data are not a profile's.
        """
        if data["format"] != _FORMAT:
            raise ValueError(f"its format is {data['format']}; this segbatch reads {_FORMAT}")
        return cls(
            device=str(data["device"]),
            pixel_bytes=float(data["pixel_bytes"]),
            speeds={name: Speed(**speed) for name, speed in data["speeds"].items()},
            runs={name: PastRun(**run) for name, run in data["runs"].items()},
        )


def kind(backend: str, precision: str) -> str:
    """The key of a backend at a precision."""
    return f"{backend}/{precision}"


def read_profile(bundle: str | Path, device: str) -> Profile | None:
    """The profile of a bundle on a device; None where there is none that can be read."""
    try:
        profile = Profile.from_json(json.loads(_path(bundle, device).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return profile if profile.device == device else None


def write_profile(bundle: str | Path, profile: Profile) -> bool:
    """Keep a profile beside its bundle, atomically.

    Returns:
        Whether it could be written.
    """
    path = _path(bundle, profile.device)
    if not place(bundle).is_dir():
        return False
    try:
        write_whole(path, (json.dumps(profile.to_json(), indent=2) + "\n").encode())
    except OSError:
        return False
    return True


def cpu_name() -> str:
    """The processor's model name, or its architecture where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or os.uname().machine


def _path(bundle: str | Path, device: str) -> Path:
    return place(bundle) / _FOLDER / f"{re.sub('[^A-Za-z0-9]+', '-', device).strip('-')}.json"
