"""Which backend is fastest for a run, by what was measured; and which ones are worth measuring. Pure."""

from collections.abc import Iterator, Mapping, Sequence

from segbatch.models.profile import Speed, kind

REFERENCE = "eager/float32"
"""What all else is compared with."""

_USUAL_BUILD_SECONDS = {"eager": 0.0, "openvino": 4.0, "onnx": 8.0, "compile": 45.0, "tensorrt": 120.0}
"""About what a backend takes to get ready; one whose time could not be won back is not even tried."""

_LARGEST_GAIN = 0.6
"""Share of the time of the fastest backend yet that a better one may save."""


def seconds_for(speed: Speed, pixels: float) -> float:
    """Seconds that a backend takes for so many pixels of windows, getting ready counted in."""
    return speed.build_seconds + pixels / speed.mpx_per_second / 1e6


def fastest(speeds: Mapping[str, Speed], pixels: float, min_agreement: float) -> str | None:
    """The kind that takes least time for so many pixels of windows, among those that agree well enough."""
    good = {name: speed for name, speed in speeds.items() if not speed.failed and speed.agreement >= min_agreement}
    return min(good, key=lambda name: (seconds_for(good[name], pixels), name)) if good else None


def worth_trying(
    candidates: Sequence[tuple[str, str]], speeds: Mapping[str, Speed], pixels: float
) -> Iterator[tuple[str, str]]:
    """Those of the candidates that are not measured yet and might win, given what is.

    Args:
        candidates: (backend, precision).
        speeds: What is measured, which may grow while this is iterated over.
        pixels: Of all windows of the run.
    """
    for backend, precision in sorted(candidates, key=lambda how: _USUAL_BUILD_SECONDS[how[0]]):
        name = kind(backend, precision)
        if name in speeds:
            continue
        if speeds:
            best = min(seconds_for(speed, pixels) for speed in speeds.values() if not speed.failed)
            if _USUAL_BUILD_SECONDS[backend] > _LARGEST_GAIN * best:
                continue
        yield backend, precision
