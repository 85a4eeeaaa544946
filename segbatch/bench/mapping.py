"""One run of the whole pipeline, file in to files out, in a process of its own and watched from outside."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segbatch.bench.processes import alone, bytes_read_so_far, own_birth, peak_memory
from segbatch.commands.choose import Choice, choose
from segbatch.commands.plan import Plan, open_request, sizes
from segbatch.commands.request import Request
from segbatch.commands.workers import find_crew
from segbatch.errors import SegbatchError
from segbatch.geometry import Window
from segbatch.inference.ledger import read_ledger
from segbatch.inference.plan import Costs, costs
from segbatch.inference.stages import ReadStage
from segbatch.models.profile import kind
from segbatch.scenes import open_scene


@dataclass(frozen=True, slots=True)
class Settled:
    """What a run uses where its settings say auto, found out once, so that everything measured uses the same.

    Args:
        choice: As plain data; see `segbatch.commands.choose.Choice`.
        device: Name of what each predicting process runs on.
        use_gpu: Whether that is a GPU.
        workers: Predicting processes.
        seconds: That finding out took, above all where backends were measured.
    """

    choice: Mapping[str, Any]
    device: str
    use_gpu: bool
    workers: int
    seconds: float

    @property
    def backend(self) -> str:
        """Backend and precision."""
        return kind(self.choice["settings"]["backend"], self.choice["settings"]["precision"])


def settle(request: Request) -> Settled:
    """Make the choices of a run, in a process of its own."""
    return alone(_settle, request)


def _settle(request: Request) -> Settled:
    opened = open_request(request)
    with ExitStack() as stack:
        crew = find_crew(request, stack, None, sizes(opened.scenes))
        workers, started = crew.workers, time.perf_counter()
        choice = choose(request, opened.card, opened.scenes, workers, crew.measure)
        seconds = time.perf_counter() - started
    return Settled(choice.to_json(), workers.device, workers.use_gpu, workers.count, seconds)


def lay_out(request: Request, settled: Settled) -> Plan:
    """The plan of a run with these choices."""
    return open_request(request).lay_out(Choice.from_json(dict(settled.choice)))


@dataclass(frozen=True, slots=True)
class Mapped:
    """What a run did and took.

    Args:
        pixels: Kept, those without a valid value counted in.
        blocks: Units of work.
        windows: Forward passes of one window.
        pixels_run: Through the model.
        start_up: Seconds from the start of the process to the first forward pass.
        blocks_seconds: From the first block to the last.
        finish_seconds: For the files that are made of blocks.
        stages: Seconds by stage, summed over blocks, which overlap.
        store_bytes: Written to Ray's object store, all of them; None without Ray.
        spilled_bytes: Of these, what went to the disk since there was no room.
        memory: Peak resident bytes by kind of process.
        km2: Mapped area of valid pixels; None for scenes without a map.
    """

    pixels: int
    blocks: int
    windows: int
    pixels_run: int
    start_up: float
    blocks_seconds: float
    finish_seconds: float
    stages: Mapping[str, float]
    store_bytes: int | None
    spilled_bytes: int | None
    memory: Mapping[str, int]
    km2: float | None

    @property
    def seconds(self) -> float:
        """From the first block to the last file."""
        return self.blocks_seconds + self.finish_seconds

    @property
    def mpx_per_second(self) -> float:
        """Million kept pixels a second."""
        return self.pixels / self.seconds / 1e6

    @property
    def tail(self) -> float:
        """Share of the seconds in which the last files were made and no block."""
        return self.finish_seconds / self.seconds


def map_scene(request: Request, settled: Settled) -> Mapped:
    """Run the pipeline and measure it.

    Raises:
        SegbatchError: A part of the scene could not be mapped, and so nothing can be said of speed.
    """
    with peak_memory() as peaks:
        facts = alone(_map, request, settled)
    return Mapped(memory=dict(peaks), **facts)


def _map(request: Request, settled: Settled) -> dict[str, Any]:
    from segbatch.commands.predict import predict

    folder = request.folder
    folder.create()
    # A run that goes on keeps what an earlier call has chosen, so this one uses what all else is measured with.
    folder.update(mapping={"chosen": dict(settled.choice)})
    with ExitStack() as stack:
        traffic = None
        if request.inference.engine == "ray":
            from segbatch.bench.store import store_traffic
            from segbatch.runtime import ray_session

            # Around the command's own, which leaves Ray as it finds it: its figures end with it.
            stack.enter_context(ray_session(request.address))
            traffic = store_traffic
        document = predict(request)
        written, spilled = traffic() if traffic else (None, None)
    if document["failed"]:
        raise SegbatchError(f"{request.refs[0].image} was not mapped as a whole: see {folder.report}.")
    rows = read_ledger(folder.ledger).values()
    first = min(row.started + row.seconds["read"] + row.seconds["wait"] for row in rows)
    last = folder.read()["mapping"]["last"]
    return {
        "pixels": last["pixels"],
        "blocks": last["blocks"],
        "windows": last["windows"],
        "pixels_run": last["pixels_run"],
        "start_up": first - own_birth(),
        "blocks_seconds": last["seconds"]["blocks"],
        "finish_seconds": last["seconds"]["finish"],
        "stages": last["stages"],
        "store_bytes": written,
        "spilled_bytes": spilled,
        "km2": _km2(document),
    }


def _km2(document: Mapping[str, Any]) -> float | None:
    areas = [item["area_km2"] for item in document["classes"] if item["area_km2"] is not None]
    return sum(areas) if areas else None


@dataclass(frozen=True, slots=True)
class Reading:
    """What the blocks of a run read, done once more on its own.

    Args:
        planned: By the plan: pixels in memory, halos counted in, and what there is without them.
        file_bytes: Read from files, as they are stored.
        stored_bytes: Size of the file; None where what is read lies in others.
        seconds: In one process.
    """

    planned: Costs
    file_bytes: int
    stored_bytes: int | None
    seconds: float

    @property
    def amplification(self) -> float | None:
        """Bytes read for each byte of the file."""
        return self.file_bytes / self.stored_bytes if self.stored_bytes else None


def read_again(request: Request, settled: Settled) -> Reading:
    """Read each block of a run once, as its read tasks do, and count the bytes.

    In the run itself they cannot be told from what its processes read besides, such as their own code.
    """
    return alone(_read_again, request, settled)


def _read_again(request: Request, settled: Settled) -> Reading:
    scenes = lay_out(request, settled).scenes
    read, info = ReadStage(scenes), scenes[0].info
    with open_scene(info.uri, info.nodata) as reader:  # loads what GDAL needs for the format
        reader.read(Window(0, 0, 1, 1), scenes[0].bands)
    started, before = time.perf_counter(), bytes_read_so_far()
    for number in range(len(scenes[0].grid)):
        block = read(0, number)
        if block.error is not None:
            raise SegbatchError(block.error)
    amount, seconds = bytes_read_so_far() - before, time.perf_counter() - started
    virtual = info.size < 0 or Path(info.uri).suffix.lower() == ".vrt"
    return Reading(costs(scenes), amount, None if virtual else info.size, seconds)
