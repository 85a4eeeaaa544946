"""Many GPUs and millions of blocks, simulated: predictors that sleep as long as a GPU would compute.

Planning, Ray's scheduling, actors, rows between stages and the ledger are real. Pixels are not: blocks are read and
written as a few bytes, since on a cluster that work is shared among nodes which this machine does not have.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
from affine import Affine
from numpy.typing import NDArray

from segbatch.bench.material import cores
from segbatch.bench.processes import alone, own_peak
from segbatch.bench.show import megabytes, percent, print_table
from segbatch.classes import LabelMap
from segbatch.commands.resume import pending_blocks
from segbatch.demo import CLASSES
from segbatch.errors import InputError, SegbatchError
from segbatch.inference.files import BlockWriter
from segbatch.inference.ledger import LedgerRow
from segbatch.inference.plan import ScenePlan, costs, plan_scene
from segbatch.inference.pool import bound_blocks, plan_pool
from segbatch.inference.rows import SECONDS
from segbatch.inference.settings import Settings
from segbatch.inference.stages import DEVICE_SECONDS, BlockMask, BlockPixels, PredictStage, ReadStage
from segbatch.inference.tally import tally_ledger
from segbatch.inference.work import Work
from segbatch.masks import CLASS_MASK
from segbatch.runtime import ray_session
from segbatch.scenes import SceneInfo, SceneRef

_CLASSES = len(CLASSES)
_CORE = 1024
_SIDE = 8
"""Pixels a side of what a simulated block carries."""

_GPUS_A_CPU = 4
"""GPUs for each CPU that Ray is told of. Few CPUs: Ray starts a process for each, and here are two cores to do so."""

_LEDGER_FILES = 64


@dataclass(frozen=True, slots=True)
class Dispatch:
    """How well simulated GPUs were kept busy.

    Args:
        gpus: How many.
        block_seconds: That each took for a block.
        blocks: Mapped in the time that was measured: when all GPUs worked, to when the first had nothing more to do.
        seconds: That took.
        lost: Seconds of GPUs that had no block, or were not told in time that theirs was done, over all these blocks.
        driver: Share of a core that the driver used in that time.
        machine: Share of all cores in use.
    """

    gpus: int
    block_seconds: float
    blocks: int
    seconds: float
    lost: float
    driver: float
    machine: float

    @property
    def rate(self) -> float:
        """Blocks a second."""
        return self.blocks / self.seconds

    @property
    def overhead(self) -> float:
        """Time beyond what the GPUs were busy for, as a share of the latter."""
        busy = self.blocks * self.block_seconds
        return self.lost / busy if busy else float("inf")


@dataclass(frozen=True, slots=True)
class Planning:
    """What planning and resuming a run takes in the driver.

    Args:
        blocks: Of the scene.
        plan: Seconds to lay lattice and blocks, and to sum the costs.
        resume: Seconds to read a ledger in which 95 % of them are done, and to find what is left.
        ledger_bytes: Size of that ledger.
        memory: Largest resident memory in bytes of a process that does all this.
    """

    blocks: int
    plan: float
    resume: float
    ledger_bytes: int
    memory: int


def measure_dispatch(folder: Path, gpus: int, block_seconds: float, blocks: int) -> Dispatch:
    """Map simulated blocks with simulated GPUs.

    Args:
        folder: Where the ledger goes.
        gpus: How many.
        block_seconds: That each takes for a block.
        blocks: To map.

    Raises:
        InputError: There are too few blocks for all GPUs to work at the same time.
        SegbatchError: They did not.
    """
    if blocks < 8 * gpus:
        raise InputError(f"{blocks} blocks are too few for {gpus} GPUs: give 8 for each at least.")
    plan = simulated_scene(blocks)
    pending = np.array([(0, block) for block in range(blocks)], np.int64)
    ledger, gate = folder / "ledger", folder / "gate"
    ledger.mkdir()
    gate.mkdir()
    settings = Settings()
    work = _SleepingWork(
        scenes=(plan,),
        pending=pending,
        bundle="",
        files=_NoFiles(folder, (), "mode", CLASSES),
        ledger=str(ledger),
        label_map=LabelMap(_CLASSES),
        settings=settings,
        block_seconds=block_seconds,
        gpus=gpus,
        gate=str(gate),
    )
    cpus = max(2, gpus // _GPUS_A_CPU)
    with ray_session("local", simulated=(cpus, gpus)):
        from segbatch.inference.pipeline import run_ray

        pool = plan_pool([(cpus, gpus)], use_gpu=True, min_actors=1, max_actors=None, blocks=blocks)
        # As of blocks of the usual size on nodes with memory for them.
        bounds = bound_blocks(cpus=cpus, gpus=gpus, store_bytes=2**50, block_bytes=2**26, pool=pool, blocks=blocks)
        arrivals, lost, actors, marks = [], [], set(), {}
        for row in run_ray(work, pool, bounds):
            arrivals.append(time.perf_counter())
            lost.append(row.seconds["idle"] + row.seconds["predict"] - block_seconds)
            actors.add(row.note)
            if len(actors) == gpus and "start" not in marks:
                marks["start"] = len(arrivals), time.process_time()
                psutil.cpu_percent()
            if len(arrivals) == blocks - 4 * gpus:
                marks["end"] = len(arrivals), time.process_time()
                machine = psutil.cpu_percent() / 100
    first, last = marks.get("start", (blocks, 0.0)), marks["end"]
    if last[0] - first[0] < 2 * gpus:
        raise SegbatchError(f"All {gpus} actors were up only after {first[0]} of {blocks} blocks: give more blocks.")
    seconds = arrivals[last[0] - 1] - arrivals[first[0] - 1]
    return Dispatch(
        gpus=gpus,
        block_seconds=block_seconds,
        blocks=last[0] - first[0],
        seconds=seconds,
        lost=sum(lost[first[0] : last[0]]),
        driver=(last[1] - first[1]) / seconds,
        machine=machine,
    )


def measure_planning(folder: Path, blocks: int) -> Planning:
    """Plan so many blocks and find what a stopped run of them has left, in a process of its own."""
    ledger = folder / f"ledger{blocks}"
    ledger.mkdir()
    size = _write_ledger(ledger, round(0.95 * blocks))
    return alone(_plan_and_resume, ledger, blocks, size)


def print_dispatch(found: Dispatch) -> None:
    """How busy the GPUs were."""
    print_table(
        f"simulated GPUs, {cores()} cores",
        ["GPUs", "s a block", "blocks", "blocks/s", "overhead", "driver", "machine"],
        [
            [
                str(found.gpus),
                f"{found.block_seconds:g}",
                str(found.blocks),
                f"{found.rate:.1f}",
                percent(found.overhead) if found.block_seconds else "-",
                percent(found.driver),
                percent(found.machine),
            ]
        ],
    )


def print_planning(plannings: list[Planning]) -> None:
    """A line for each number of blocks."""
    print_table(
        "the driver's work before anything runs",
        ["blocks", "plan s", "resume s", "ledger", "peak memory"],
        [
            [
                f"{found.blocks:,}",
                f"{found.plan:.2f}",
                f"{found.resume:.1f}",
                megabytes(found.ledger_bytes),
                megabytes(found.memory),
            ]
            for found in plannings
        ],
    )


def simulated_scene(blocks: int) -> ScenePlan:
    """The plan of a scene of at least so many blocks, of one core each."""
    cols = int(np.ceil(np.sqrt(blocks)))
    rows = -(-blocks // cols)
    info = SceneInfo(
        uri="simulated.tif",
        width=cols * _CORE,
        height=rows * _CORE,
        dtype="uint8",
        band_names=("red", "green", "blue", "nir"),
        alpha=None,
        nodata=None,
        crs=None,
        transform=Affine.identity(),
        size=-1,
        modified=-1,
    )
    return plan_scene(
        SceneRef("scene", info.uri),
        info,
        (1, 2, 3, 4),
        stride=32,
        core=_CORE,
        halo=64,
        window_pixels=2**21,
        block_bytes=4 * _CORE**2,
        settings=Settings(),
        num_classes=_CLASSES,
    )


def _plan_and_resume(ledger: Path, blocks: int, ledger_bytes: int) -> Planning:
    started = time.perf_counter()
    plan = simulated_scene(blocks)
    costs([plan])
    planned = time.perf_counter()
    tallies = tally_ledger(ledger, {plan.id: len(plan.grid)}, _CLASSES)
    left = pending_blocks([plan], tallies)
    resumed = time.perf_counter()
    assert len(left) == len(plan.grid) - int(tallies[plan.id].done.sum())
    return Planning(len(plan.grid), planned - started, resumed - planned, ledger_bytes, own_peak())


def _write_ledger(folder: Path, rows: int) -> int:
    """A ledger as writers leave it, without the seconds that making each row anew would take; its size in bytes."""
    mask = np.zeros((_SIDE, _SIDE), np.uint8)
    seconds = dict.fromkeys(("read", "wait", *DEVICE_SECONDS, "write"), 0.1234567)
    row = LedgerRow.of("scene", 0, mask, mask, num_classes=_CLASSES, windows=1, started=1.7e9, seconds=seconds)
    before, after = row.to_line().decode().split('"block":0,')
    size = 0
    for number in range(_LEDGER_FILES):
        lines = "".join(f'{before}"block":{block},{after}' for block in range(number, rows, _LEDGER_FILES))
        size += (folder / f"{number:032x}.jsonl").write_text(lines, encoding="utf-8")
    return size


@dataclass(frozen=True, slots=True, eq=False)
class _SleepingWork(Work):
    """Blocks that take a GPU some time, and nothing else.

    Args:
        block_seconds: That prediction takes.
        gpus: That begin at the same time: to start so many processes takes this machine longer than their blocks.
        gate: Folder in which each says that it is ready.
    """

    block_seconds: float = 0.0
    gpus: int = 1
    gate: str = ""

    def reader(self) -> ReadStage:
        return cast(ReadStage, _Read())

    def predictor(self, threads: int | None, device: str) -> PredictStage:
        return cast(PredictStage, _Sleep(self.block_seconds, self.gpus, self.gate))


class _Read:
    def __call__(self, scene: int, block: int) -> BlockPixels:
        values, valid = np.zeros((4, _SIDE, _SIDE), np.uint8), np.ones((_SIDE, _SIDE), bool)
        return BlockPixels(scene, block, values, valid, None, time.time(), {"read": 0.0})


class _Sleep:
    def __init__(self, seconds: float, gpus: int = 0, gate: str = ".") -> None:
        self._seconds, self._gpus, self._gate = seconds, gpus, Path(gate)
        self._idle_since: float | None = None

    def __call__(self, pixels: BlockPixels) -> BlockMask:
        if self._gpus:
            (self._gate / str(os.getpid())).touch()
            while len(os.listdir(self._gate)) < self._gpus:
                time.sleep(0.5)
            self._gpus = 0
        waited, begun = time.time() - pixels.started, time.perf_counter()
        idle = 0.0 if self._idle_since is None else begun - self._idle_since
        time.sleep(self._seconds)
        self._idle_since = time.perf_counter()
        timed = {"wait": waited, "idle": idle, "predict": self._idle_since - begun}
        seconds = {**dict.fromkeys(SECONDS, 0.0), **timed}
        mask: NDArray[Any] = np.zeros((_SIDE, _SIDE), np.uint8)
        return BlockMask(
            pixels.scene, pixels.block, {CLASS_MASK: mask}, 1, pixels.started, seconds, note=str(os.getpid())
        )


class _NoFiles(BlockWriter):
    def create(self, scene: ScenePlan) -> None:
        """Nothing: pixels are not simulated."""

    def write(self, scene: ScenePlan, number: int, arrays: Mapping[str, NDArray[np.uint8]]) -> None:
        """Nothing: pixels are not simulated."""
