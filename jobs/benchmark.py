"""How much of the model's own speed the pipeline keeps, measured in one run on one machine.

    python jobs/benchmark.py [--scene IMAGE] [--encoder NAME]... [--engine ray|inline] [--json FILE]

For each encoder: (a) the bare forward of a U-Net over the scene's windows, as prepared tensors in memory;
(b) the whole pipeline over the same windows, file in to COG and Zarr out; (a) once more. Efficiency is
kept pixels per second of (b) over those of (a), the mean of both times. Weights are random: speed does not
depend on them. Without --scene a landscape is painted on the spot.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import rasterio
from rich.console import Console
from rich.table import Table

from segbatch.classes import ClassTable, LabelMap
from segbatch.commands.folder import RunFolder
from segbatch.commands.predict import Request, plan, predict
from segbatch.config import Inference
from segbatch.models.card import DEFAULT_HALO, Card
from segbatch.scenes import SceneRef, open_scene

KINDS = {"driver": "driver", "_Predict": "predicting actor", "read_block": "reader", "write_block": "writer"}
"""Words in the titles of processes, and what they are."""

CLASSES = ClassTable.from_items([(f"class {number}", None) for number in range(5)])


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", help="an image; its bands are all used")
    parser.add_argument("--encoder", action="append", help="default: resnet18 and resnet34")
    parser.add_argument("--engine", choices=("ray", "inline"), default="ray")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory(prefix="segbatch-benchmark-") as folder:
        scene = arguments.scene or paint(Path(folder))
        for encoder in arguments.encoder or ["resnet18", "resnet34"]:
            results.append(measure(encoder, scene, arguments.engine, Path(folder) / encoder))
    Console().print(table(results))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


def measure(encoder: str, scene: str, engine: str, folder: Path) -> dict:
    """Bare forward, pipeline, bare forward."""
    folder.mkdir()
    alone(save_random_bundle, folder / "bundle", encoder, scene)
    request = Request(
        name=encoder,
        folder=RunFolder(folder / "run"),
        bundle=folder / "bundle",
        refs=[SceneRef(id="scene", image=os.path.abspath(scene))],
        bands=None,
        nodata=None,
        label_map=None,
        inference=Inference(engine=engine),
        address="auto",
        overwrite=False,
        config={},
    )
    before = alone(bare_forward, request)
    with peak_memory() as peaks:
        predict(request)
    after = alone(bare_forward, request)
    last = RunFolder(folder / "run").read()["mapping"]["last"]
    seconds = last["seconds"]["blocks"] + last["seconds"]["finish"]
    bare = (before["seconds"] + after["seconds"]) / 2
    return {
        "encoder": encoder,
        "engine": engine,
        "scene": os.path.basename(scene),
        "pixels": last["pixels"],
        "windows": last["windows"],
        "bare_mpx_per_second": last["pixels"] / bare / 1e6,
        "pipeline_mpx_per_second": last["pixels"] / seconds / 1e6,
        "efficiency": bare / seconds,
        "bare_seconds": [before["seconds"], after["seconds"]],
        "start_up_seconds": last["seconds"]["start_up"],
        "finish_seconds": last["seconds"]["finish"],
        "stage_seconds": last["stages"],
        "pixels_run_per_pixel_kept": before["pixels_run"] / last["pixels"],
        "peak_memory_mb": dict(peaks),
    }


def save_random_bundle(folder: Path, encoder: str, scene: str) -> None:
    """A bundle for the scene's bands."""
    from segbatch.models.build import build_model, model_stride
    from segbatch.models.bundle import Bundle, save_bundle

    with open_scene(scene) as reader:
        names, dtype = [reader.info.band_names[band - 1] for band in reader.info.data_bands], reader.info.dtype
    model = build_model("unet", encoder, in_channels=len(names), num_classes=len(CLASSES))
    card = Card(
        classes=CLASSES,
        band_names=tuple(names),
        dtype=dtype,
        mean=(128.0,) * len(names),
        std=(64.0,) * len(names),
        stride=model_stride(model),
        halo=DEFAULT_HALO,
        label_map=LabelMap(len(CLASSES)),
    )
    save_bundle(folder, Bundle(model, card))


def bare_forward(request: Request) -> dict:
    """Seconds of the model's forward over all windows of the scene, each prepared beforehand."""
    import torch

    from segbatch.models.bundle import load_bundle
    from segbatch.scenes.scene import read_padded

    _, (scene,), _ = plan(request)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_bundle(request.bundle).model.to(device, memory_format=torch.channels_last)
    lattice = scene.grid.lattice
    batch = 8 if device == "cuda" else 1
    seconds, windows = 0.0, 0
    places = [(row, col) for row in range(lattice.rows) for col in range(lattice.cols)]
    with open_scene(scene.info.uri) as reader, torch.inference_mode():
        for first in range(-batch, len(places), batch):  # the first round warms up and is not counted
            chosen = places[max(first, 0) : max(first, 0) + batch]
            pixels = [
                torch.from_numpy(read_padded(reader, lattice.cores(*place).buffered(lattice.halo), scene.bands).values)
                for place in chosen
            ]
            tensor = torch.stack(pixels).to(device).float().sub(128).div(64)
            tensor = tensor.contiguous(memory_format=torch.channels_last)
            if device == "cuda":
                torch.cuda.synchronize()
            started = time.perf_counter()
            model(tensor)
            if device == "cuda":
                torch.cuda.synchronize()
            if first >= 0:
                seconds += time.perf_counter() - started
                windows += len(chosen)
    return {"seconds": seconds, "pixels_run": windows * lattice.window_width * lattice.window_height}


def alone(function, *arguments):
    """Call a function in a process of its own, so that its memory and threads are gone afterwards."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


@contextmanager
def peak_memory():
    """Largest resident memory in MB, without shared pages, of the driver and of each kind of worker."""
    peaks: dict[str, float] = {}
    stop = threading.Event()

    def watch() -> None:
        me = psutil.Process()
        while not stop.wait(0.25):
            for process in [me, *me.children(recursive=True)]:
                try:
                    title = process.cmdline()[0] if process.pid != me.pid else "driver"
                    kind = next((kind for word, kind in KINDS.items() if word in title), None)
                    if kind is not None:
                        # Pages of Ray's shared object store count in every process that maps them.
                        memory = process.memory_info()
                        peaks[kind] = max(peaks.get(kind, 0.0), round((memory.rss - memory.shared) / 1e6))
                except (psutil.Error, IndexError):
                    continue

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        stop.set()
        thread.join()


def paint(folder: Path) -> str:
    """A landscape of 4096 x 4096 pixels: a painted one, repeated."""
    import numpy as np

    from segbatch.demo import BANDS, make_landscape

    image, _ = make_landscape(1, 1024, 1024)
    pixels = np.tile(image, (1, 4, 4))
    path = folder / "landscape.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=4096, height=4096, count=4, dtype="uint8", tiled=True, compress="deflate",
        crs="EPSG:32632", transform=rasterio.Affine(0.5, 0, 6e5, 0, -0.5, 5e6),
    ) as file:  # fmt: skip
        file.write(pixels)
        file.descriptions = BANDS
    return str(path)


def table(results: list[dict]) -> Table:
    """The figures, a column for each encoder."""
    shown = Table(
        title=f"{results[0]['scene']}, engine {results[0]['engine']}, {os.cpu_count()} cores", title_justify="left"
    )
    shown.add_column("")
    for result in results:
        shown.add_column(result["encoder"], justify="right")
    for name, form in (
        ("bare_mpx_per_second", "{:.2f} Mpx/s"),
        ("pipeline_mpx_per_second", "{:.2f} Mpx/s"),
        ("efficiency", "{:.3f}"),
        ("pixels_run_per_pixel_kept", "{:.2f}"),
        ("start_up_seconds", "{:.1f} s"),
        ("finish_seconds", "{:.1f} s"),
    ):
        shown.add_row(name.replace("_", " "), *(form.format(result[name]) for result in results))
    for group in ("stage_seconds", "peak_memory_mb"):
        for name in sorted({key for result in results for key in result[group]}):
            unit = "s" if group == "stage_seconds" else "MB"
            cells = (f"{result[group][name]:.1f} {unit}" if name in result[group] else "-" for result in results)
            shown.add_row(f"{'stage' if unit == 's' else 'peak memory'}: {name}", *cells)
    return shown


if __name__ == "__main__":
    main()
