"""Each backend and precision on real windows of a scene."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segbatch.bench.material import Material, cores
from segbatch.bench.processes import alone
from segbatch.bench.show import figure, percent, print_table
from segbatch.commands.plan import open_request
from segbatch.commands.progress import say
from segbatch.errors import InputError, SegbatchError
from segbatch.inference.samples import Source, read_samples
from segbatch.inference.tuning import REFERENCE
from segbatch.models.profile import FAILED, Speed, kind
from segbatch.scenes.scene import Pixels

_MEASURED, _CALIBRATION = 2, 4
"""Windows that are timed, and further ones that int8's ranges are taken from."""

_ENDLESS = 1e15
"""Pixels of a run so long that no time to get ready is too long."""


@dataclass(frozen=True, slots=True)
class BackendResult:
    """A backend at a precision.

    Args:
        name: As ``backend/precision``.
        build_seconds: Until it was ready for the first window.
        mpx_per_second: Million pixels of windows a second; None where it does not run the model.
        speed_up: Over eager float32, measured in the same process.
        agreement: Share of pixels of the windows whose class is that of eager float32.
        problem: Why it does not run; empty where it does.
    """

    name: str
    build_seconds: float | None = None
    mpx_per_second: float | None = None
    speed_up: float | None = None
    agreement: float | None = None
    problem: str = ""


def measure_backends(material: Material, side: int, folder: Path) -> list[BackendResult]:
    """Measure all that is installed, each in a process of its own: one that crashes takes no other down.

    Args:
        material: Model and scene.
        side: Pixels a side of the windows; less where the scene is smaller.
        folder: Where the int8 model goes.
    """
    results = []
    for name in alone(_candidates):
        say(f"  {name}")
        try:
            quantized = alone(_quantize, material, side, folder / "int8.onnx") if name.endswith("/int8") else None
            results.append(_result(name, *alone(_measure, material, side, name, quantized)))
        except SegbatchError as error:
            results.append(BackendResult(name, problem=str(error)))
    return results


def fastest_backend(results: Sequence[BackendResult], min_agreement: float) -> str:
    """The fastest that agrees well enough with eager float32; int8 has to be asked for, here as everywhere."""
    good = [
        result
        for result in results
        if not result.problem and (result.agreement or 0.0) >= min_agreement and not result.name.endswith("/int8")
    ]
    return max(good, key=lambda result: result.speed_up or 0).name if good else REFERENCE


def _result(name: str, reference: Speed, speed: Speed) -> BackendResult:
    if speed.failed:
        return BackendResult(name, problem="does not run this model")
    return BackendResult(
        name,
        speed.build_seconds,
        speed.mpx_per_second,
        speed.mpx_per_second / reference.mpx_per_second,
        speed.agreement,
    )


def _candidates() -> list[str]:
    import torch

    from segbatch.models.backends.available import available

    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = [kind(*how) for how in available(device)]
    # int8 is never chosen by itself and so not listed; it runs where float32 does.
    return found + [kind(name, "int8") for name in ("openvino", "onnx") if kind(name, "float32") in found]


def _samples(material: Material, side: int) -> list[Pixels]:
    """Windows of one shape, those with most to see first."""
    opened = open_request(material.request(Path()))
    scene = opened.scenes[0]
    source = Source(scene.info.uri, scene.info.nodata, scene.bands, scene.info.window)
    wanted = (_MEASURED + _CALIBRATION) * side**2
    found = list(read_samples([source], stride=opened.card.stride, side=side, pixels=wanted))
    if not found:
        raise InputError(f"{scene.info.uri} has no window with a valid pixel: take another scene.")
    return found


def _measure(material: Material, side: int, name: str, quantized: str | None) -> tuple[Speed, Speed]:
    """Of eager float32 and of the backend."""
    import torch

    from segbatch.inference.measure import measure
    from segbatch.models.allocator import keep_freed_memory
    from segbatch.models.bundle import load_bundle

    keep_freed_memory()
    torch.set_num_threads(cores())
    backend, precision = name.split("/")
    profile = measure(
        load_bundle(material.bundle),
        _samples(material, side)[:_MEASURED],
        [(backend, precision)],
        device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
        name="",
        pixels=_ENDLESS,
        quantized=quantized,
    )
    return profile.speeds[REFERENCE], profile.speeds.get(name, FAILED)


def _quantize(material: Material, side: int, path: Path) -> str:
    import torch

    from segbatch.models.backends.quantize import quantize
    from segbatch.models.bundle import load_bundle

    bundle, samples = load_bundle(material.bundle), _samples(material, side)
    windows = [
        (torch.from_numpy(sample.values[None]), torch.from_numpy(sample.valid[None, None]))
        for sample in samples[_MEASURED:] or samples
    ]
    quantize(bundle.model, bundle.card.mean, bundle.card.std, windows, path)
    return str(path)


def print_backends(material: Material, side: int, results: Sequence[BackendResult]) -> None:
    """A line for each."""
    print_table(
        f"{material.name}, windows of {side} px of {Path(material.scene).name}, {cores()} cores",
        ["", "build", "Mpx/s", "speed-up", "agreement"],
        [
            [
                result.name,
                figure(result.build_seconds, ".1f", "s"),
                figure(result.mpx_per_second, ".3f"),
                figure(result.speed_up, ".2f"),
                result.problem or percent(result.agreement),
            ]
            for result in results
        ],
    )
