"""What a run uses where its settings say auto: the halo, the size of windows and blocks, the backend.

The choice is made once and kept in run.json: a run that goes on elsewhere keeps it, and so ends with the same bytes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from segbatch.commands.request import Request
from segbatch.commands.workers import Workers
from segbatch.errors import InputError
from segbatch.geometry import fit_core
from segbatch.inference.int8 import Quantization
from segbatch.inference.probe import Probe
from segbatch.inference.samples import Source
from segbatch.inference.settings import Settings
from segbatch.inference.tuning import REFERENCE, fastest
from segbatch.models.card import Card
from segbatch.models.profile import Profile, kind, read_profile
from segbatch.scenes import SceneInfo, SceneRef
from segbatch.scenes.area import SceneArea

_LARGEST_WINDOW = 6_000_000
"""Pixels of an automatic window at the most. Beyond it waste hardly falls, while a run has fewer blocks to share out
and reads longer before its first forward pass."""

_SMALLEST_WINDOW = 256**2

_PIXEL_BYTES = 600.0
"""Memory for each pixel of a window where it is not known: a U-Net in float32."""

_SCRATCH = 1.5
"""What kernels take on top of the tensors."""

_SHARE_OF_MEMORY = {True: 0.7, False: 0.4}
"""Of a GPU's memory, and of what the machine has free, for windows."""

_BUSY_GPU_PIXELS = 8_000_000
"""Pixels of a batch from which on a GPU is as fast as it gets."""

_WORTH_PROBING = 64_000_000
"""Pixels to map from which on looking for the fastest backend takes less time than it saves."""


@dataclass(frozen=True, slots=True)
class OpenScene:
    """A scene that was opened and checked.

    Args:
        ref: Its place in the catalog.
        info: What is known of the file.
        bands: 1-based band numbers in the order of the model's channels.
        area: The part of it to map; None for all of it.
    """

    ref: SceneRef
    info: SceneInfo
    bands: tuple[int, ...]
    area: SceneArea | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """What a run uses.

    Args:
        halo: Context pixels around a core.
        window_pixels: Most pixels of an automatic window.
        block_mb: Most megabytes of pixels in a block.
        settings: How windows become class masks.
        agreement: Share of pixels of real windows whose class is that of eager float32; None where nothing else
            was compared with it.
        core: Side of the cores of a model in int8, which takes windows of one shape only; None to go by the request.
    """

    halo: int
    window_pixels: int
    block_mb: int
    settings: Settings
    agreement: float | None = None
    core: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "settings": self.settings.to_json()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(**{**data, "settings": Settings.from_json(data["settings"])})


def choose(
    request: Request,
    card: Card,
    scenes: Sequence[OpenScene],
    workers: Workers,
    measure: Callable[[Probe], Profile] | None,
) -> Choice:
    """Settle what the request leaves open.

    Args:
        request: What to map.
        card: Of the bundle.
        scenes: The scenes.
        workers: Who predicts.
        measure: Runs a probe on the device; None to go by what is known.

    Raises:
        InputError: The backend asked for does not run this model here.
    """
    profile = read_profile(request.bundle, workers.device)
    views = Settings(tta=request.inference.tta).views
    pixels = sum(scene.info.width * scene.info.height for scene in scenes) * views / workers.count
    name, profile = _backend(request, scenes, workers, profile, pixels, measure)
    backend, precision = name.split("/")
    window_pixels = _window_pixels(request, card, workers, profile)
    halo = request.inference.halo
    if halo == "auto":
        halo = _halo(request, card, scenes, window_pixels)
    largest = max(_window(request, card, scene.info, halo, window_pixels) for scene in scenes)
    usual_batch = max(1, min(16, _BUSY_GPU_PIXELS // largest)) if workers.use_gpu else 1
    size = request.inference.batch_size
    block_mb = request.inference.block_mb
    known = profile.speeds.get(name) if profile else None
    return Choice(
        halo=halo,
        window_pixels=window_pixels,
        block_mb=(128 if workers.use_gpu else 32) if block_mb == "auto" else block_mb,
        settings=Settings(
            blend=request.inference.blend,
            tta=request.inference.tta,
            products=request.products,
            backend=backend,
            precision=precision,
            batch_size=usual_batch if size == "auto" else size,
        ),
        agreement=known.agreement if known and name != REFERENCE else None,
        core=_square_core(request, card, halo, window_pixels) if precision == "int8" else None,
    )


def int8_path(request: Request) -> Path:
    """The file of the run's model in int8."""
    return (request.folder.path / "model-int8.onnx").absolute()


def quantization(
    request: Request, card: Card, scenes: Sequence[OpenScene], workers: Workers, choice: Choice
) -> Quantization:
    """How to make the model of a run in int8."""
    assert choice.core is not None  # in int8 it is always chosen
    side = choice.core + 2 * choice.halo
    probe = replace(_probe(request, scenes, workers, math.inf), backend=choice.settings.backend, precision="int8")
    return Quantization(probe, str(int8_path(request)), (choice.settings.batch_size, side, side))


def with_wishes(choice: Choice, request: Request) -> Choice:
    """An earlier choice, but for what the request now asks for by name."""
    wanted = request.inference
    named = {
        name: value
        for name, value in (
            ("backend", wanted.backend),
            ("precision", wanted.precision),
            ("batch_size", wanted.batch_size),
        )
        if value != "auto"
    }
    settings = replace(
        choice.settings,
        blend=wanted.blend,
        tta=wanted.tta,
        products=request.products,
        **named,  # type: ignore[arg-type]
    )
    return replace(
        choice,
        settings=settings,
        halo=choice.halo if wanted.halo == "auto" else wanted.halo,
        block_mb=choice.block_mb if wanted.block_mb == "auto" else wanted.block_mb,
    )


def _backend(
    request: Request,
    scenes: Sequence[OpenScene],
    workers: Workers,
    profile: Profile | None,
    pixels: float,
    measure: Callable[[Probe], Profile] | None,
) -> tuple[str, Profile | None]:
    """The backend and precision to use, and what is known of them."""
    wanted = request.inference
    if wanted.precision == "int8":
        if workers.use_gpu:
            raise InputError("precision int8 is for CPUs. Choose another one, or set use_gpu to false.")
        usual = "openvino" if find_spec("openvino") else "onnx"
        return kind(usual if wanted.backend == "auto" else wanted.backend, "int8"), profile
    named = wanted.backend != "auto" or wanted.precision != "auto"
    # What is asked for by name is tried even where it cannot win back the time that it takes to get ready.
    probe = _probe(request, scenes, workers, math.inf if named else pixels)
    plain = kind(probe.backend or "eager", probe.precision or "float32")
    if plain == REFERENCE and named:
        # Also of --backend eager alone: who asks for PyTorch as it is gets its usual precision.
        return REFERENCE, profile
    if measure is not None and (named or pixels >= _WORTH_PROBING) and probe.would_learn(profile):
        profile = measure(probe)
    speeds = {name: speed for name, speed in (profile.speeds if profile else {}).items() if probe.allows(name)}
    if measure is not None and named and all(speed.failed for speed in speeds.values()):
        raise InputError(
            f"{plain} does not run this model on {workers.device}. Leave backend and precision to auto, or install "
            f"what it needs: pip install 'segbatch[{probe.backend}]'."
        )
    if probe.backend and probe.precision:
        return plain, profile
    least = wanted.min_agreement
    return fastest(speeds, pixels, least) or plain, profile


def _probe(request: Request, scenes: Sequence[OpenScene], workers: Workers, pixels: float) -> Probe:
    wanted = request.inference
    return Probe(
        bundle=str(request.bundle.absolute()),
        device_name=workers.device,
        use_gpu=workers.use_gpu,
        threads=workers.threads,
        sources=tuple(
            Source(scene.info.uri, scene.info.nodata, scene.bands, scene.info.window) for scene in scenes[:8]
        ),
        pixels=pixels,
        backend=None if wanted.backend == "auto" else wanted.backend,
        precision=None if wanted.precision == "auto" else wanted.precision,
    )


def _square_core(request: Request, card: Card, halo: int, window_pixels: int) -> int:
    """The largest side of square cores that suits scenes of all sizes."""
    if request.inference.core != "auto":
        return request.inference.core
    step = math.lcm(card.stride, 64)
    return max(step, (math.isqrt(window_pixels) - 2 * halo) // step * step)


def _window_pixels(request: Request, card: Card, workers: Workers, profile: Profile | None) -> int:
    """Pixels of a window that the memory of a process and its device holds."""
    each = _SCRATCH * profile.pixel_bytes if profile and profile.pixel_bytes else _PIXEL_BYTES
    if request.inference.blend != "crop" or request.inference.tta != "none" or request.products:
        each += 12 * len(card.classes)  # logits, probabilities and their sums
    size = request.inference.batch_size
    budget = _SHARE_OF_MEMORY[workers.use_gpu] * workers.memory / (1 if size == "auto" else size)
    return int(max(_SMALLEST_WINDOW, min(_LARGEST_WINDOW, budget / each)))


def _halo(request: Request, card: Card, scenes: Sequence[OpenScene], window_pixels: int) -> int:
    """The smallest halo that the tolerance allows, by the bundle's curve; the card's where it has none."""
    largest = max(scenes, key=lambda scene: scene.info.width * scene.info.height).info
    return card.auto_halo(
        request.inference.halo_tolerance, lambda halo: _core(request, card, largest, halo, window_pixels)
    )


def _core(request: Request, card: Card, info: SceneInfo, halo: int, window_pixels: int) -> tuple[int, int]:
    """(rows, columns) of a core."""
    if request.inference.core != "auto":
        return request.inference.core, request.inference.core
    return fit_core(info.width, info.height, halo=halo, stride=card.stride, window_pixels=window_pixels)


def _window(request: Request, card: Card, info: SceneInfo, halo: int, window_pixels: int) -> int:
    """Pixels of a window."""
    rows, cols = _core(request, card, info, halo, window_pixels)
    return (rows + 2 * halo) * (cols + 2 * halo)
