"""Many small scenes in one run: what each costs beyond being read and predicted."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from segbatch.bench.material import TINY, Material, cores, paint_scene, save_random_bundle
from segbatch.bench.processes import alone
from segbatch.bench.show import print_table
from segbatch.commands.request import Request
from segbatch.errors import InputError
from segbatch.models.backends.forward import Forward
from segbatch.models.bundle import load_bundle
from segbatch.scenes import SceneRef, open_scene

_BARE_SCENES = 200


@dataclass(frozen=True, slots=True)
class ManyScenes:
    """A run of many small scenes, one of them broken.

    Args:
        scenes: How many.
        side: Pixels a side of each.
        engine: What ran the pipeline.
        one: Seconds that the same command takes for one scene.
        all: Seconds that it takes for all of them.
        bare: Seconds a scene to open and read it and to run the model over it, in one process with all cores.
        finish: Seconds of the finish steps of all.
        around: Seconds before and after what run.json tells of: opening the scenes, and the report.
        report: Seconds of the report, made again.
        broken: Id of the scene that cannot be read.
        failed: Ids of the scenes that the report names as failed.
    """

    scenes: int
    side: int
    engine: str
    one: float
    all: float
    bare: float
    finish: float
    around: float
    report: float
    broken: str
    failed: tuple[str, ...]

    @property
    def overhead(self) -> float:
        """Seconds a scene beyond reading and predicting."""
        return (self.all - self.one) / (self.scenes - 1) - self.bare


def measure_scenes(folder: Path, count: int, side: int, engine: str) -> ManyScenes:
    """Map painted scenes, one of them damaged.

    Args:
        folder: Where all files go.
        count: How many.
        side: Pixels a side of each.
        engine: ``ray`` or ``inline``.
    """
    if count < 3:
        raise InputError(f"--scenes {count}: give 3 at least.")
    source = Path(paint_scene(folder / "scene.tif", side))
    bundle = folder / "bundle"
    alone(save_random_bundle, bundle, str(source), "resnet18", TINY)
    (folder / "scenes").mkdir()
    refs = []
    for number in range(count):
        path = folder / "scenes" / f"scene{number:06}.tif"
        shutil.copyfile(source, path)
        refs.append(SceneRef(path.stem, str(path)))
    broken = refs[count // 2]
    # Its header and its directory stay whole, so that it is found only where its pixels are read.
    size = source.stat().st_size
    with open(broken.image, "r+b") as file:
        file.seek(size // 4)
        file.write(b"\xff" * (size // 4))
    sound = [ref for ref in refs if ref is not broken]
    request = Material("scenes", bundle, str(source), trained=False).request(
        folder / "one", engine=engine, format=["cog"]
    )
    one, *_ = alone(_map, replace(request, refs=sound[:1]))
    whole = replace(request, refs=refs, folder=replace(request.folder, path=folder / "all"))
    everything, finish, around, report, failed = alone(_map, whole)
    return ManyScenes(
        scenes=count,
        side=side,
        engine=engine,
        one=one,
        all=everything,
        bare=alone(_bare, bundle, [ref.image for ref in sound[:_BARE_SCENES]]),
        finish=finish,
        around=around,
        report=report,
        broken=broken.id,
        failed=failed,
    )


def print_scenes(result: ManyScenes) -> None:
    """One table."""
    print_table(
        f"{result.scenes:,} scenes of {result.side} x {result.side} px in one run, {result.engine}, {cores()} cores",
        ["", "seconds"],
        [
            ["the same command for one scene", f"{result.one:.1f}"],
            ["for all", f"{result.all:.1f}"],
            ["of these, the scenes' GeoTIFFs", f"{result.finish:.1f}"],
            ["of these, opening the scenes, and the report", f"{result.around:.1f}"],
            ["the report, made again", f"{result.report:.1f}"],
            ["a scene opened, read and predicted by itself", f"{result.bare:.4f}"],
            ["a scene in the run, beyond that", f"{result.overhead:.4f}"],
            [f"broken: {result.broken}; named as failed: {', '.join(result.failed) or 'none'}", ""],
        ],
    )


def _map(request: Request) -> tuple[float, float, float, float, tuple[str, ...]]:
    """Seconds of the command, of its finish steps, of what run.json says nothing of, and of the report.

    Also the ids of scenes that failed.
    """
    from segbatch.commands.predict import predict
    from segbatch.commands.report import report

    started = time.time()
    document = predict(request)
    ended = time.time()
    seconds = request.folder.read()["mapping"]["last"]["seconds"]
    around = ended - started - sum(seconds.values())
    again = time.time()
    report(request.folder)
    failed = tuple(scene["id"] for scene in document["failed"])
    return ended - started, seconds["finish"], around, time.time() - again, failed


def _bare(bundle_folder: Path, images: Sequence[str]) -> float:
    torch.set_num_threads(cores())
    bundle = load_bundle(bundle_folder)
    forward = Forward(bundle.model, bundle.card.mean, bundle.card.std)

    def once(image: str) -> None:
        with open_scene(image) as reader:
            pixels = reader.read(reader.info.window, reader.info.data_bands)
        forward.classes(torch.from_numpy(pixels.values[None]), torch.from_numpy(pixels.valid[None, None]))

    once(images[0])
    started = time.perf_counter()
    for image in images:
        once(image)
    return (time.perf_counter() - started) / len(images)
