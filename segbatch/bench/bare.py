"""The model's own speed: forward passes over tensors that lie ready in memory, with nothing around them."""

import importlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import torch

from segbatch.bench.mapping import Settled, lay_out
from segbatch.bench.material import cores
from segbatch.bench.processes import free_memory
from segbatch.commands.request import Request
from segbatch.geometry import Lattice, Window, fit_core
from segbatch.inference.plan import ScenePlan
from segbatch.models.allocator import keep_freed_memory
from segbatch.models.backends.footprint import pixel_bytes
from segbatch.models.backends.forward import MODULES, Function
from segbatch.models.backends.mapper import Mapper
from segbatch.models.bundle import Bundle, load_bundle
from segbatch.scenes import open_scene
from segbatch.scenes.scene import SceneReader, read_padded

_LARGEST_BATCH = 8_000_000
"""Pixels of a batch from which on a device is as fast as it gets, and memory may end."""

_WINDOW_PIXELS = 1_000_000, 2_000_000, 4_000_000, 6_000_000, 9_000_000
"""Of the windows among which the best is looked for."""

_BATCHES = 1, 2, 4, 8

_ROUNDS = 2

_LEAST_PASSES = 6
"""Where a scene has fewer windows, each is run several times and the median counts: one pass may meet anything."""

_SHARE_OF_MEMORY = 0.5
"""Of what is free, for a forward pass in the search."""

_SCRATCH = 1.5
"""What kernels take on top of the tensors."""


@dataclass(frozen=True, slots=True)
class Bare:
    """Forward passes over the windows of a run.

    Args:
        seconds: In forward passes alone.
        windows: That have a valid pixel to predict: those which a run has to pass through the model.
        pixels_run: Of these windows.
        devices: What a run may use side by side of what was measured here: GPUs, or 1 for a whole processor.
    """

    seconds: float
    windows: int
    pixels_run: int
    devices: int


@dataclass(frozen=True, slots=True)
class Best:
    """The fastest way found to get the scene's pixels through the model.

    Args:
        core: (rows, columns) of a core.
        batch: Windows a forward pass.
        mpx_per_second: Million kept pixels a second.
    """

    core: tuple[int, int]
    batch: int
    mpx_per_second: float


class _Prepared(Mapper):
    """The model alone: takes what is normalised already, gives logits.

    Attributes:
        binds_both: Whether both inputs must be used: other runtimes bind two, and drop one that has no use.
    """

    binds_both = False

    def forward(self, pixels: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """See `Mapper.forward`; ``valid`` is true everywhere."""
        if self.autocast:
            with torch.autocast(pixels.device.type, dtype=torch.bfloat16):
                return self.model(pixels)
        if self.binds_both:
            pixels = pixels + (valid[:1, :1, :1, :1].to(pixels.dtype) - 1)  # adds 0
        return self.model(pixels)


class _Runner:
    """A bundle's model with a run's backend on its device."""

    def __init__(self, request: Request, settled: Settled) -> None:
        keep_freed_memory()
        torch.set_num_threads(cores())
        torch.backends.cudnn.allow_tf32 = False
        self.bundle: Bundle = load_bundle(request.bundle)
        self.device = torch.device("cuda" if settled.use_gpu else "cpu")
        settings = settled.choice["settings"]
        self._backend, self._precision = settings["backend"], settings["precision"]
        self.bundle.model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        # PyTorch is fastest with the channels of a pixel side by side; the other runtimes arrange them themselves.
        self._ours = self._backend in ("eager", "compile")
        self._layout = torch.channels_last if self._ours else torch.contiguous_format

    def prepare(self, reader: SceneReader, scene: ScenePlan, windows: Sequence[Window]) -> torch.Tensor:
        """Normalised windows on the device."""
        card = self.bundle.card
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (card.mean, card.std))
        ready = []
        for window in windows:
            values, valid = read_padded(reader, window, scene.bands)
            ready.append(torch.where(torch.from_numpy(valid), (torch.from_numpy(values).float() - mean) / std, 0.0))
        return torch.stack(ready).to(self.device).contiguous(memory_format=self._layout)

    def build(self, tensor: torch.Tensor) -> Function:
        """A function for tensors of this shape, called once so that nothing is left to set up."""
        card = self.bundle.card
        mapper = _Prepared(self.bundle.model, card.mean, card.std).to(self.device).eval()
        mapper.binds_both = not self._ours
        build = importlib.import_module(MODULES[self._backend]).build
        valid = torch.ones((len(tensor), 1, *tensor.shape[2:]), dtype=torch.bool, device=self.device)
        function: Function = build(mapper, tensor, valid, self._precision, None)
        function(tensor, valid)
        self._valid = valid
        return function

    def room(self) -> float:
        """Pixels of a forward pass that memory holds."""
        free = free_memory()
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
        each = _SCRATCH * pixel_bytes(self.bundle.model, len(self.bundle.card.mean))
        return _SHARE_OF_MEMORY * free / each

    def seconds(self, function: Function, tensor: torch.Tensor) -> float:
        """Of one forward pass."""
        self._wait()
        started = time.perf_counter()
        function(tensor, self._valid)
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def bare_forward(request: Request, settled: Settled) -> Bare:
    """Seconds of the model's forward passes over the windows of a run; call it in a process of its own."""
    scene = lay_out(request, settled).scenes[0]
    batch = settled.choice["settings"]["batch_size"]
    lattice = scene.grid.lattice
    with open_scene(scene.info.uri, scene.info.nodata) as reader, torch.inference_mode():
        runner = _Runner(request, settled)
        windows = list(_windows(reader, scene))
        function, seconds = None, 0.0
        rounds = -(-_LEAST_PASSES * batch // max(1, len(windows)))
        for first in range(0, len(windows), batch):
            chosen = windows[first : first + batch]
            # A short batch is padded, as in the run: backends are built for one shape.
            tensor = runner.prepare(reader, scene, [*chosen, *[chosen[0]] * (batch - len(chosen))])
            function = function or runner.build(tensor)
            seconds += median(runner.seconds(function, tensor) for _ in range(rounds))
    devices = settled.workers if settled.use_gpu else 1
    return Bare(seconds, len(windows), len(windows) * lattice.window_width * lattice.window_height, devices)


def best_forward(request: Request, settled: Settled) -> Best:
    """The fastest of some sizes of windows and batches; call it in a process of its own."""
    scene = lay_out(request, settled).scenes[0]
    info, halo = scene.info, settled.choice["halo"]
    found: list[Best] = []
    with open_scene(info.uri, info.nodata) as reader, torch.inference_mode():
        runner = _Runner(request, settled)
        stride = runner.bundle.card.stride
        shapes = [fit_core(info.width, info.height, halo=halo, stride=stride, window_pixels=p) for p in _WINDOW_PIXELS]
        largest = runner.room()
        for core in dict.fromkeys([scene.core, *shapes]):
            lattice = Lattice(info.width, info.height, core[1], core[0], halo)
            window = lattice.window(lattice.rows // 2, lattice.cols // 2)
            for batch in _BATCHES:
                if found and batch * window.area > (largest if batch == 1 else min(largest, _LARGEST_BATCH)):
                    break
                tensor = runner.prepare(reader, scene, [window] * batch)
                function = runner.build(tensor)
                seconds = min(runner.seconds(function, tensor) for _ in range(_ROUNDS)) / batch
                passes = lattice.rows * lattice.cols
                found.append(Best(core, batch, info.width * info.height / (passes * seconds) / 1e6))
    devices = settled.workers if settled.use_gpu else 1
    best = max(found, key=lambda how: how.mpx_per_second)
    return Best(best.core, best.batch, best.mpx_per_second * devices)


def _windows(reader: SceneReader, scene: ScenePlan) -> Iterator[Window]:
    """The windows whose cores have a valid pixel."""
    lattice = scene.grid.lattice
    for row, col in (divmod(number, lattice.cols) for number in range(lattice.rows * lattice.cols)):
        if read_padded(reader, lattice.core(row, col), scene.bands).valid.any():
            yield lattice.window(row, col)
