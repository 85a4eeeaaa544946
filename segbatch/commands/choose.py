"""What a run uses where its settings say auto: the halo, the size of windows and blocks, the backend.

The choice is made once and kept in run.json: a run that goes on elsewhere keeps it, and so ends with the same bytes.
"""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from segbatch.commands.progress import say
from segbatch.commands.request import Request
from segbatch.commands.workers import Workers
from segbatch.errors import InputError
from segbatch.geometry import Lattice, fit_core
from segbatch.inference.int8 import Quantization
from segbatch.inference.probe import Probe
from segbatch.inference.samples import Source
from segbatch.inference.settings import Settings
from segbatch.inference.tuning import REFERENCE, fastest
from segbatch.models.card import Card, bundle_hash
from segbatch.models.profile import Profile, kind, read_profile
from segbatch.scenes import SceneInfo, SceneRef
from segbatch.scenes.area import SceneArea

_LARGEST_WINDOW = 6_000_000
"""Pixels of an automatic window at the most. Beyond it waste hardly falls, while a run has fewer blocks to share out
and reads longer before its first forward pass."""

_LARGEST_BLENDED_WINDOW = 640**2
"""The same where windows are blended: a block has to have many, since it runs those of its neighbours too."""

_SMALLEST_WINDOW = 256**2

_PIXEL_BYTES = 600.0
"""Memory for each pixel of a window where it is not known: a U-Net in float32."""

_SCRATCH = 1.5
"""What kernels take on top of the tensors."""

_TAKEN = 1.35
"""Memory that the C library takes for the tensors of a pass: room that an aligned one leaves fits no other at first."""

_SHARE_OF_MEMORY = {True: 0.7, False: 0.3}
"""Of a GPU's memory, and of a machine's, for windows."""

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

    @property
    def pixels(self) -> float:
        """Pixels to map."""
        window = self.info.window
        return window.area if self.area is None else self.area.pixels(window)


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
        core: (rows, columns) of all cores, where the backend gets ready for each shape of windows anew; None to go by
            the request and by each scene's size.
        uniform: Whether windows have one shape also in scenes too small for it, for the same reason.
        use_gpu: Whether the model runs on a GPU.
    """

    halo: int
    window_pixels: int
    block_mb: int
    settings: Settings
    agreement: float | None = None
    core: tuple[int, int] | None = None
    uniform: bool = False
    use_gpu: bool = False

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "settings": self.settings.to_json()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        core = data["core"]
        return cls(
            **{**data, "settings": Settings.from_json(data["settings"]), "core": None if core is None else tuple(core)}
        )


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
    pixels = sum(scene.pixels for scene in scenes) * views / workers.count
    name, profile = _backend(request, scenes, workers, profile, pixels, measure)
    backend, precision = name.split("/")
    window_pixels = _window_pixels(request, card, workers, profile)
    halo = request.inference.halo
    if halo == "auto":
        halo = _halo(request, card, scenes, window_pixels, own_cores=backend == "eager")
    core, uniform = None, False
    if backend != "eager":
        core, uniform = _common_core(request, card, scenes, halo, window_pixels)
    lattices = (_lattice(request, card, scene.info, halo, window_pixels, core, uniform) for scene in scenes)
    largest = max(lattice.window_height * lattice.window_width for lattice in lattices)
    usual_batch = 1
    if workers.use_gpu:
        held = _budget(workers) / (pixel_bytes(request, card, profile) * largest)
        usual_batch = max(1, min(16, _BUSY_GPU_PIXELS // largest, int(held)))
    size = request.inference.batch_size
    block_mb = request.inference.block_mb
    # A blended block runs its neighbours' windows too: the larger it is, the fewer it has of them.
    usual_mb = 128 if workers.use_gpu or request.inference.blend != "crop" else 32
    known = profile.speeds.get(name) if profile else None
    return Choice(
        halo=halo,
        window_pixels=window_pixels,
        block_mb=usual_mb if block_mb == "auto" else block_mb,
        settings=Settings(
            blend=request.inference.blend,
            tta=request.inference.tta,
            products=request.products,
            backend=backend,
            precision=precision,
            batch_size=usual_batch if size == "auto" else size,
        ),
        agreement=known.agreement if known and name != REFERENCE else None,
        core=core,
        uniform=uniform,
        use_gpu=workers.use_gpu,
    )


def int8_path(request: Request, choice: Choice) -> Path:
    """The file of the run's model in int8, which belongs to the bundle and to the windows."""
    kept = choice.core, choice.uniform, choice.halo, choice.settings.to_json()
    what = json.dumps([bundle_hash(request.bundle), *kept])
    digest = hashlib.sha256(what.encode()).hexdigest()[:16]
    return (request.folder.path / f"model-int8-{digest}.onnx").absolute()


def quantization(
    request: Request, card: Card, scenes: Sequence[OpenScene], workers: Workers, choice: Choice
) -> Quantization:
    """How to make the model of a run in int8."""
    assert choice.core is not None  # of other backends than eager it is always chosen
    info = scenes[0].info  # of all scenes the windows have one shape
    lattice = Lattice(info.width, info.height, choice.core[1], choice.core[0], choice.halo, choice.uniform)
    shape = choice.settings.batch_size, lattice.window_height, lattice.window_width
    probe = replace(_probe(request, scenes, workers, math.inf), backend=choice.settings.backend, precision="int8")
    return Quantization(probe, str(int8_path(request, choice)), shape)


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
        core=choice.core if choice.core is None or wanted.core == "auto" else (wanted.core, wanted.core),
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
        try:
            profile = measure(probe)
        except InputError as error:
            if named:
                raise
            say(f"{error} Going on with {plain}.")
    speeds = {name: speed for name, speed in (profile.speeds if profile else {}).items() if probe.allows(name)}
    if measure is not None and named and all(speed.failed for speed in speeds.values()):
        raise InputError(f"{plain} does not run this model on {workers.device}. Leave backend and precision to auto.")
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


def _common_core(
    request: Request, card: Card, scenes: Sequence[OpenScene], halo: int, window_pixels: int
) -> tuple[tuple[int, int], bool]:
    """(rows, columns) of cores for scenes of all sizes: what suits each where they are alike, else a square.

    And whether windows have to be made uniform, to have one shape.
    """
    lattices = [_lattice(request, card, scene.info, halo, window_pixels) for scene in scenes]
    cores = {(lattice.core_height, lattice.core_width) for lattice in lattices}
    shapes = {(lattice.window_height, lattice.window_width) for lattice in lattices}
    if len(cores) == 1:
        return cores.pop(), len(shapes) > 1
    step = math.lcm(card.stride, 64)
    side = max(step, (math.isqrt(window_pixels) - 2 * halo) // step * step)
    longest = max(max(scene.info.width, scene.info.height) for scene in scenes)
    side = min(side, -(-longest // step) * step)
    return (side, side), True


def pixel_bytes(request: Request, card: Card, profile: Profile | None) -> float:
    """Memory for each pixel of a window."""
    each = _SCRATCH * profile.pixel_bytes if profile and profile.pixel_bytes else _PIXEL_BYTES
    if request.inference.blend != "crop" or request.inference.tta != "none" or request.products:
        each += 12 * len(card.classes)  # logits, probabilities and their sums
    return each


def touched_bytes(request: Request, card: Card, workers: Workers, pixels: int) -> int:
    """Memory to get ahead of time for forward passes of so many pixels: never more than windows may take.

    What a pixel takes is a guess until the model was measured, and a small one takes far less.
    """
    profile = read_profile(request.bundle, workers.device)
    return int(min(taken_bytes(request, card, profile, pixels), _budget(workers)))


def taken_bytes(request: Request, card: Card, profile: Profile | None, pixels: int) -> float:
    """Memory that a process takes from the system for forward passes of so many pixels."""
    return _TAKEN * pixel_bytes(request, card, profile) * pixels


def _budget(workers: Workers) -> float:
    """Bytes for the windows of a process."""
    return _SHARE_OF_MEMORY[workers.use_gpu] * workers.memory


def _window_pixels(request: Request, card: Card, workers: Workers, profile: Profile | None) -> int:
    """Pixels of a window that the memory of a process and its device holds."""
    size = request.inference.batch_size
    held = _budget(workers) / pixel_bytes(request, card, profile) / (1 if size == "auto" else size)
    most = _LARGEST_WINDOW if request.inference.blend == "crop" else _LARGEST_BLENDED_WINDOW
    return int(max(_SMALLEST_WINDOW, min(most, held)))


def _halo(request: Request, card: Card, scenes: Sequence[OpenScene], window_pixels: int, *, own_cores: bool) -> int:
    """The smallest halo that the tolerance allows in every scene, by the curve; the card's where it has none."""
    sizes = {(scene.info.width, scene.info.height): scene.info for scene in scenes}

    def border(halo: int) -> float:
        core, uniform = None, False
        if not own_cores:
            core, uniform = _common_core(request, card, scenes, halo, window_pixels)
        return max(_lattice(request, card, info, halo, window_pixels, core, uniform).border for info in sizes.values())

    return card.auto_halo(request.inference.halo_tolerance, border)


def _lattice(
    request: Request,
    card: Card,
    info: SceneInfo,
    halo: int,
    window_pixels: int,
    core: tuple[int, int] | None = None,
    uniform: bool = False,
) -> Lattice:
    """Of a scene; with the core that the request names or that suits the scene where none is given."""
    wanted = request.inference.core
    if core is None and wanted != "auto":
        core = wanted, wanted
    rows, cols = core or fit_core(info.width, info.height, halo=halo, stride=card.stride, window_pixels=window_pixels)
    return Lattice(info.width, info.height, cols, rows, halo, uniform)
