"""The command line: parses, calls a command, prints its result. Heavy imports stay inside the commands."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from segbatch import __version__
from segbatch.bench.app import app as bench
from segbatch.commands.arguments import as_place
from segbatch.commands.show import print_lines, show, show_new
from segbatch.commands.status import add_status
from segbatch.storage import place
from segbatch.submit.app import add_submit

if TYPE_CHECKING:
    from segbatch.config import RunConfig


app = typer.Typer(
    name="segbatch",
    help="Semantic segmentation of images too large for memory: train, map and report with Ray.",
    epilog="Exit codes: 0 done; 1 the run failed; 2 wrong usage or bad input, found before work began; "
    "3 done, but some scenes failed (named in the summary and the report); 130 stopped by Ctrl-C or SIGTERM.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(bench, name="bench")


Config = Annotated[
    Path, typer.Argument(help="The run's configuration, a YAML file.", metavar="CONFIG", parser=as_place)
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the configuration, as training.epochs=10."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Start afresh where the folder holds another run.")]
OnlyNew = Annotated[
    bool,
    typer.Option(
        "--only-new",
        help="For schedules: map only scenes that are new or have changed since the last run, and keep the others.",
    ),
]
Engine = Annotated[
    Literal["ray", "inline"] | None,
    typer.Option(help="ray: Ray Data (the default); inline: this process alone, quicker for small scenes."),
]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="ADDR",
        help="Ray cluster. auto (the default): RAY_ADDRESS, else this machine; local: this machine.",
    ),
]
Bundle = Annotated[Path | None, typer.Argument(help="Folder of a trained model.", metavar="BUNDLE", parser=as_place)]
Images = Annotated[list[str] | None, typer.Argument(help="Images: paths or globs.", metavar="SCENE...")]
Label = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATH",
        help="Label of each scene, in their order (repeat), or one for all with {name} for the image's name; adds an "
        "accuracy report.",
    ),
]
Formats = Annotated[str | None, typer.Option("--format", metavar="LIST", help="cog, zarr or cog,zarr (the default).")]
Core = Annotated[int | None, typer.Option(help="Pixels a side that are kept of each window. Default: auto.")]
Halo = Annotated[
    int | None,
    typer.Option(help="Context pixels around a core. Default: the smallest that the bundle's curve allows."),
]
BlendOption = Annotated[
    Literal["crop", "hann", "gaussian"] | None,
    typer.Option(
        help="crop (the default): each window keeps its core; hann, gaussian: windows overlap by twice the halo and "
        "are averaged with these weights."
    ),
]
Tta = Annotated[
    Literal["none", "flips", "d4"] | None,
    typer.Option(help="Average over mirrored windows (flips, 4 passes) or turned ones too (d4, 8 passes)."),
]
BackendOption = Annotated[
    Literal["auto", "eager", "compile", "openvino", "onnx", "tensorrt"] | None,
    typer.Option(help="What runs the model. Default: auto, the fastest for this run that agrees with eager float32."),
]
PrecisionOption = Annotated[
    Literal["auto", "float32", "bf16", "int8"] | None, typer.Option(help="Of the model's arithmetic. Default: auto.")
]
Confidence = Annotated[
    bool | None, typer.Option("--confidence", help="Write the largest probability of each pixel too.")
]
Probabilities = Annotated[bool | None, typer.Option("--probabilities", help="Write the probability of each class too.")]
Aoi = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="Polygons (GeoJSON, GeoPackage, Shapefile; any CRS) outside of which nothing is read or mapped.",
    ),
]
BatchSize = Annotated[int | None, typer.Option(help="Windows a forward pass. Default: 1 on a CPU, more on a GPU.")]
Nodata = Annotated[float | None, typer.Option(metavar="VALUE", help="Fill value of the images, in place of their own.")]
Bands = Annotated[
    str | None, typer.Option(metavar="LIST", help="Bands in the model's order, by number or name, as 1,2,3.")
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="CONFIG", parser=as_place, help="Take scenes and settings from a configuration."),
]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    log: Annotated[
        Literal["text", "json"],
        typer.Option(help="Standard error as lines, or as a JSON object a line. Default: SEGBATCH_LOG, or text."),
    ] = "text",
) -> None:
    if version:
        print(f"segbatch {__version__}")
        raise typer.Exit


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the demo.", parser=as_place, metavar="DIR")] = Path("runs/demo"),
    overwrite: Overwrite = False,
) -> None:
    """Train, map and evaluate on data that segbatch makes itself."""
    from segbatch.commands.demo import demo as command

    raise typer.Exit(show(command(out, overwrite), out))


@app.command()
def train(config: Config, set_: Set = None, overwrite: Overwrite = False) -> None:
    """Fit a model on labelled scenes; the best goes to OUTPUT/bundle."""
    from segbatch.commands.progress import say
    from segbatch.commands.train import train as command

    settings = _load(config, set_)
    bundle = command(settings, overwrite)
    words = [word for setting in set_ or () for word in ("--set", setting)]
    wanted = ["--config", config, *words] if settings.scenes.predict else [bundle, "SCENE...", "--out", "DIR"]
    say(f"Map scenes with it: segbatch predict {' '.join(shlex.quote(str(word)) for word in wanted)}")


@app.command()
def tune(
    config: Config,
    set_: Set = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Trainings at the most, in place of tune.trials.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Look for better settings with many short trainings; the best model goes to OUTPUT/bundle.

    The configuration's section tune says what to try; without it learning rate, loss and tile. Trials that are worse
    than others are stopped early. Running it again goes on where an earlier search stopped.
    """
    from segbatch.commands.progress import out
    from segbatch.commands.tune import tune as command
    from segbatch.report.trials import trials_table

    words = [*(set_ or ()), *([f"tune.trials={trials}"] if trials else [])]
    found = command(_load(config, words), overwrite)
    out.print(trials_table(found.trials))
    for name, text in found.lines(config, set_ or ()):
        out.print(f"{name:<14}{text}", soft_wrap=True, markup=False)


@app.command()
def predict(
    bundle: Bundle = None,
    scene: Images = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.", parser=as_place, metavar="DIR")] = None,
    label: Label = None,
    format_: Formats = None,
    core: Core = None,
    halo: Halo = None,
    blend: BlendOption = None,
    tta: Tta = None,
    backend: BackendOption = None,
    precision: PrecisionOption = None,
    batch_size: BatchSize = None,
    probabilities: Probabilities = None,
    confidence: Confidence = None,
    aoi: Aoi = None,
    nodata: Nodata = None,
    bands: Bands = None,
    engine: Engine = None,
    address: Address = None,
    config: ConfigOption = None,
    set_: Set = None,
    overwrite: Overwrite = False,
    only_new: OnlyNew = False,
) -> None:
    """Map scenes with a bundle: a class mask for each, and a report where there are labels.

    Running it again goes on where an earlier run stopped.
    """
    from segbatch.commands.only_new import map_new
    from segbatch.commands.predict import predict as command
    from segbatch.commands.words import Words, make_request

    inference = {
        "format": [name.strip() for name in format_.split(",")] if format_ else None,
        "core": core, "halo": halo, "blend": blend, "tta": tta, "backend": backend, "precision": precision,
        "batch_size": batch_size, "probabilities": probabilities, "confidence": confidence, "aoi": aoi,
        "engine": engine,
    }  # fmt: skip
    words = Words(bundle, scene, out, label, bands, nodata, address, config, set_, overwrite, only_new)
    request = make_request(words, inference)
    folder = request.folder.path
    raise typer.Exit(
        show_new(lambda: map_new(request), folder, overwrite) if only_new else show(command(request), folder)
    )


@app.command()
def plan(
    bundle: Annotated[
        Path,
        typer.Argument(help="Folder of a trained model, or a configuration.", metavar="BUNDLE|CONFIG", parser=as_place),
    ],
    scene: Images = None,
    core: Core = None,
    halo: Halo = None,
    blend: BlendOption = None,
    tta: Tta = None,
    backend: BackendOption = None,
    precision: PrecisionOption = None,
    batch_size: BatchSize = None,
    probabilities: Probabilities = None,
    confidence: Confidence = None,
    aoi: Aoi = None,
    nodata: Nodata = None,
    bands: Bands = None,
    engine: Engine = None,
    set_: Set = None,
) -> None:
    """What mapping would do and cost on this machine; reads no pixel of the images.

    Give a bundle and scenes, or a configuration, whose model need not be trained yet. Time and memory are told once
    the bundle was measured on this machine, which a long run does by itself.
    """
    from segbatch.commands.forecast import plan_lines
    from segbatch.commands.plan import plan as make_plan
    from segbatch.commands.words import Words, make_request

    config = None if bundle.is_dir() or scene else bundle
    inference = {
        "core": core, "halo": halo, "blend": blend, "tta": tta, "backend": backend, "precision": precision,
        "batch_size": batch_size, "probabilities": probabilities, "confidence": confidence, "aoi": aoi,
        "engine": engine,
    }  # fmt: skip
    words = Words(
        None if config else bundle, scene, None if config else Path("."), None, bands, nodata, None, config, set_, False
    )
    request = make_request(words, inference, untrained=True)
    print_lines(plan_lines(request, make_plan(request)))


@app.command()
def calibrate(
    bundle: Annotated[Path, typer.Argument(help="Folder of a trained model.", metavar="BUNDLE", parser=as_place)],
    scene: Annotated[list[str], typer.Argument(help="Images: paths or globs.", metavar="SCENE...")],
    bands: Bands = None,
    nodata: Nodata = None,
) -> None:
    """Measure on scenes how large a halo the model needs, and note it on the bundle's card.

    Training does this by itself, on the validation scenes.
    """
    from segbatch.commands.calibrate import calibrate as command
    from segbatch.commands.words import chosen_bands
    from segbatch.config import Inference

    found = command(bundle, scene, bands=chosen_bands(bands), nodata=nodata)
    print_lines(found.lines(Inference().halo_tolerance))


@app.command()
def evaluate(
    prediction: Annotated[list[str], typer.Option(metavar="PATH", help="Class mask (raster or Zarr store). Repeat.")],
    label: Annotated[list[str], typer.Option(metavar="PATH", help="Label of each class mask, in the same order.")],
    out: Annotated[Path, typer.Option(metavar="DIR", parser=as_place, help="Folder of the report.")],
    classes: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="YAML with classes (and label_values, ...), as in a configuration. "
                     "Default: the class mask's own."),
    ] = None,
    engine: Engine = None,
    address: Address = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an evaluation of other files.")] = False,
) -> None:  # fmt: skip
    """Compare class masks with labels: per-class IoU and more."""
    from segbatch.commands.evaluate import evaluate as command
    from segbatch.commands.folder import RunFolder
    from segbatch.config import read_classes

    table, label_map = read_classes(str(classes)) if classes else (None, None)
    document = command(
        prediction,
        label,
        RunFolder(out),
        classes=table,
        label_map=label_map,
        engine=engine or "ray",
        address=address or "auto",
        overwrite=overwrite,
    )
    raise typer.Exit(show(document, out))


@app.command()
def run(config: Config, set_: Set = None, overwrite: Overwrite = False, only_new: OnlyNew = False) -> None:
    """Train, map, evaluate and report as a configuration says."""
    from segbatch.commands.run import run as command
    from segbatch.commands.run import run_new

    settings = _load(config, set_)
    folder = place(settings.output)
    raise typer.Exit(
        show_new(lambda: run_new(settings), folder, overwrite)
        if only_new
        else show(command(settings, overwrite), folder)
    )


@app.command()
def report(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a run.", metavar="RUN_DIR", parser=as_place)],
) -> None:
    """Rebuild a run's report from its ledger; of a run that has only trained, also while it does, the training's."""
    from segbatch.commands.folder import RunFolder
    from segbatch.commands.report import rebuild as command

    document = command(RunFolder(run_dir))
    if document is None:
        print(f"Report of the training: {run_dir / 'report' / 'report.html'}")
    else:
        raise typer.Exit(show(document, run_dir))


@app.command()
def info(
    path: Annotated[str, typer.Argument(help="A scene, a bundle, a class mask or a run.", metavar="PATH")],
) -> None:
    """What a scene, a bundle, a class mask or a run is."""
    from segbatch.commands.inform import inform

    print_lines(inform(path))


@app.command()
def schema() -> None:
    """Print the configuration's JSON schema, for editors."""
    from segbatch.config import RunConfig

    print(json.dumps(RunConfig.model_json_schema(by_alias=True), indent=2))


add_status(app)
add_submit(app)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    from segbatch.commands.entry import run_app

    run_app(app, sys.argv[1:] if arguments is None else arguments)


def _load(path: Path, overrides: list[str] | None) -> "RunConfig":
    from segbatch.config import load_config

    return load_config(str(path), overrides or ())
