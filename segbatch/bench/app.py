"""The command line of the benchmarks: ``segbatch bench``. Heavy imports stay inside the commands.

    segbatch bench run --scene m_3707504_ne_image.tif --encoder resnet18 --encoder resnet34
    segbatch bench backends --bundle runs/naip/bundle --scene m_3707504_ne_image.tif
    segbatch bench peers --bundle runs/naip/bundle --scene m_3707504_ne_image.tif
    segbatch bench seams --bundle runs/naip/bundle --scene m_3707504_ne_image.tif --core 512
    segbatch bench memory --side 100000 --dense 1,10,50
    segbatch bench export --side 16384
    segbatch bench forecast --bundle runs/naip/bundle --scene m_3707504_ne_image.tif
    segbatch bench scale --gpus 64 --block-seconds 2
    segbatch bench scenes --scenes 10000
    segbatch bench train jobs/naip.yaml
    segbatch bench plain jobs/naip.yaml --bundle runs/naip/bundle --minutes 20

Without --bundle a U-Net of random weights is made, without --scene a landscape is painted. The figures of a machine
that does something else at the same time are worth nothing.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from segbatch.storage import scratch_folder

Bundle = Annotated[Path | None, typer.Option(metavar="DIR", help="A trained model. Default: one of random weights.")]
Scene = Annotated[str | None, typer.Option(metavar="IMAGE", help="Default: a painted landscape.")]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures here too.")]
Engine = Annotated[Literal["ray", "inline"], typer.Option(help="What runs the pipeline.")]
Backend = Annotated[
    Literal["auto", "eager", "compile", "openvino", "onnx", "tensorrt"] | None, typer.Option(help="As of predict.")
]
Precision = Annotated[Literal["auto", "float32", "bf16"] | None, typer.Option(help="As of predict.")]
Halo = Annotated[str, typer.Option(metavar="auto|N", help="As of predict.")]
Config = Annotated[Path, typer.Argument(help="The run's configuration, a YAML file.", metavar="CONFIG")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the configuration, as training.tile=256."),
]
Side = Annotated[int, typer.Option(help="Pixels a side of the square of the scene that is used.")]


class _RunByDefault(TyperGroup):
    """``segbatch bench`` alone, or with options only, is ``segbatch bench run``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=_RunByDefault, help="Measure segbatch on this machine: speed, memory, seams, other programs.")


@app.command()
def run(
    bundle: Bundle = None,
    scene: Scene = None,
    encoder: Annotated[
        list[str] | None, typer.Option(help="Of the model of random weights. Repeat. Default: resnet18 and resnet34.")
    ] = None,
    engine: Engine = "ray",
    backend: Backend = None,
    precision: Precision = None,
    halo: Halo = "auto",
    price_per_hour: Annotated[float | None, typer.Option(metavar="X", help="Of the machine, for the cost.")] = None,
    json: Json = None,
) -> None:
    """How much of the model's own speed the pipeline keeps, from file to files."""
    from segbatch.bench.material import prepare
    from segbatch.bench.run import measure_run, print_runs
    from segbatch.bench.show import write_results

    inference: dict[str, Any] = {"engine": engine, "backend": backend, "precision": precision, "halo": _halo(halo)}
    results = []
    with scratch_folder() as folder:
        for name in ["-"] if bundle else encoder or ["resnet18", "resnet34"]:
            material = prepare(bundle, scene, folder, name)
            scene = material.scene
            results.append(measure_run(material, folder / name, inference, price_per_hour))
    print_runs(results)
    write_results(json, "run", [result.to_json() for result in results])


@app.command()
def backends(
    bundle: Bundle = None,
    scene: Scene = None,
    window: Annotated[int, typer.Option(help="Pixels a side of the windows.")] = 1024,
    json: Json = None,
) -> None:
    """Each backend and precision: how fast, and how well it agrees with eager float32 on real windows."""
    from segbatch.bench.backends import measure_backends, print_backends
    from segbatch.bench.material import prepare
    from segbatch.bench.show import write_results

    with scratch_folder() as folder:
        material = prepare(bundle, scene, folder)
        results = measure_backends(material, window, folder)
    print_backends(material, window, results)
    write_results(json, "backends", results)


@app.command()
def peers(
    bundle: Bundle = None,
    scene: Scene = None,
    side: Side = 2048,
    limit: Annotated[
        float, typer.Option(help="Share of pixels away from the scene's borders that may differ for the same quality.")
    ] = 1.5e-4,
    json: Json = None,
) -> None:
    """The same weights, pixels and machine under other programs (uv sync --group peers)."""
    from segbatch.bench.material import prepare
    from segbatch.bench.peers import measure_peers, print_peers
    from segbatch.bench.show import write_results

    with scratch_folder() as folder:
        material = prepare(bundle, scene, folder)
        result = measure_peers(material, folder, side, limit)
    print_peers(result)
    write_results(json, "peers", result.to_json())


@app.command()
def seams(
    bundle: Bundle = None,
    scene: Scene = None,
    core: Annotated[int, typer.Option(help="Pixels a side of a core: small ones have many borders.")] = 512,
    halo: Halo = "auto",
    side: Side = 2048,
    backend: Backend = None,
    precision: Precision = None,
    json: Json = None,
) -> None:
    """Whether the borders of cores and blocks can be seen in the class mask."""
    from segbatch.bench.material import prepare
    from segbatch.bench.seamcheck import check_seams, print_seams
    from segbatch.bench.show import write_results

    inference = {"core": core, "halo": _halo(halo), "backend": backend, "precision": precision}
    with scratch_folder() as folder:
        result = check_seams(prepare(bundle, scene, folder), folder, side, inference)
    print_seams(result)
    write_results(json, "seams", result)


@app.command()
def memory(
    bundle: Annotated[Path | None, typer.Option(metavar="DIR", help="Default: a tiny U-Net of random weights.")] = None,
    side: Annotated[int, typer.Option(help="Pixels a side of the sparse raster.")] = 100_000,
    dense: Annotated[str, typer.Option(metavar="LIST", help="Dense rasters, as multiples of the base.")] = "1,10,50",
    base: Annotated[int, typer.Option(help="Pixels a side of the base.")] = 2048,
    engine: Engine = "ray",
    json: Json = None,
) -> None:
    """Peak memory of each kind of process while scenes grow: it should not."""
    from segbatch.bench.memory import measure_memory, print_memory
    from segbatch.bench.show import write_results

    with scratch_folder() as folder:
        results = measure_memory(bundle, folder, side=side, dense=_numbers(dense), base=base, engine=engine)
    print_memory(results)
    write_results(json, "memory", results)


@app.command()
def export(
    side: Annotated[int, typer.Option(help="Pixels a side of the class mask.")] = 16384,
    json: Json = None,
) -> None:
    """A COG put together from the parts of blocks, against GDAL's COG driver."""
    from segbatch.bench.export import measure_export, print_export
    from segbatch.bench.show import write_results

    with scratch_folder() as folder:
        result = measure_export(folder, side)
    print_export(result)
    write_results(json, "export", result)


@app.command()
def forecast(
    bundle: Bundle = None,
    scene: Scene = None,
    engine: Engine = "ray",
    json: Json = None,
) -> None:
    """What plan foretells, against what the run then does and takes."""
    from segbatch.bench.forecast import compare_forecast, print_forecast
    from segbatch.bench.material import prepare
    from segbatch.bench.show import write_results

    with scratch_folder() as folder:
        material = prepare(bundle, scene, folder)
        lines = compare_forecast(material, folder, engine)
    print_forecast(material, lines)
    write_results(json, "forecast", lines)


@app.command()
def scale(
    gpus: Annotated[int, typer.Option(min=1, help="Simulated GPUs: actors that sleep.")] = 64,
    block_seconds: Annotated[float, typer.Option(min=0, help="That each sleeps for a block; 0 for the limit.")] = 2.0,
    blocks: Annotated[int | None, typer.Option(min=1, help="That they map. Default: 40 for each.")] = None,
    planned: Annotated[int, typer.Option(min=1, help="Blocks that are planned, and found in a ledger.")] = 1_000_000,
    json: Json = None,
) -> None:
    """Many GPUs and millions of blocks, simulated: what scheduling, planning and resuming take."""
    from segbatch.bench.scale import measure_dispatch, measure_planning, print_dispatch, print_planning
    from segbatch.bench.show import write_results

    with scratch_folder() as folder:
        plannings = [measure_planning(folder, count) for count in sorted({max(1, planned // 10), planned})]
        print_planning(plannings)
        dispatch = measure_dispatch(folder, gpus, block_seconds, blocks or 40 * gpus)
    print_dispatch(dispatch)
    write_results(json, "scale", {"dispatch": dispatch, "planning": plannings})


@app.command()
def scenes(
    count: Annotated[int, typer.Option("--scenes", min=3, help="How many; one of them is broken.")] = 10_000,
    side: Annotated[int, typer.Option(min=64, help="Pixels a side of each.")] = 256,
    engine: Engine = "ray",
    json: Json = None,
) -> None:
    """Many small scenes in one run: what each costs beyond being read and predicted."""
    from segbatch.bench.scenes import measure_scenes, print_scenes
    from segbatch.bench.show import write_results

    with scratch_folder() as folder:
        result = measure_scenes(folder, count, side, engine)
    print_scenes(result)
    write_results(json, "scenes", result)


@app.command()
def train(
    config: Config,
    changes: Set = None,
    steps: Annotated[int, typer.Option(min=4, help="Optimizer steps of each way.")] = 20,
    json: Json = None,
) -> None:
    """How much of a bare PyTorch loop's speed training keeps; readers against Ray Data."""
    from segbatch.bench.show import write_results
    from segbatch.bench.training import measure_training, print_training
    from segbatch.config import load_config

    with scratch_folder() as folder:
        result = measure_training(load_config(str(config), changes or []), folder, steps)
    print_training(result)
    write_results(json, "train", result)


@app.command()
def plain(
    config: Config,
    changes: Set = None,
    bundle: Annotated[Path | None, typer.Option(metavar="DIR", help="What segbatch train made of CONFIG.")] = None,
    minutes: Annotated[float, typer.Option(help="That the script trains.")] = 20.0,
    json: Json = None,
) -> None:
    """What training is worth: a plain PyTorch script on the same scenes, for so many minutes."""
    from segbatch.bench.plain import compare_with_plain, print_scores
    from segbatch.bench.show import write_results
    from segbatch.config import load_config

    settings = load_config(str(config), changes or [])
    scores = compare_with_plain(settings, bundle, minutes)
    print_scores(settings, scores)
    write_results(json, "plain", scores)


def _halo(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _numbers(text: str) -> list[int]:
    from segbatch.errors import InputError

    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise InputError(f"--dense {text!r} is not a list of whole numbers from 1 on, as 1,10,50.")
    return [int(word) for word in words]
