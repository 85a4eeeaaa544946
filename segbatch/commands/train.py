"""Fit a model on labelled scenes and keep the best as the run's bundle."""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbatch.commands.folder import RunFolder
from segbatch.commands.listeners import listening
from segbatch.commands.lock import hold
from segbatch.commands.progress import counted, duration, say, tell_standstill
from segbatch.commands.samples import write_samples
from segbatch.commands.split import Labelled, open_labelled, split_table
from segbatch.commands.tracking import check_tracking
from segbatch.commands.usage import held_on_ray, metered
from segbatch.config import Model, RunConfig
from segbatch.errors import InputError, SegbatchError, root_message
from segbatch.inference.plan import file_stamp
from segbatch.models.card import Card, bundle_hash, default_halo, read_card
from segbatch.models.weights import check_file, is_file
from segbatch.redaction import redact
from segbatch.runtime import Resources, ray_session
from segbatch.scenes import SceneInfo
from segbatch.scenes.atlas import Part
from segbatch.storage import place, write_whole

if TYPE_CHECKING:
    from segbatch.training.job import Listener, TrainingJob
    from segbatch.training.survey import Survey, TrainingScene

_HOW_NOT_WHAT = {"max_failures", "use_gpu", "min_workers", "checkpoint_steps", "mlflow"}
"""Settings of the training that may change when it goes on."""


def train(config: RunConfig, overwrite: bool = False, scenes: Labelled | None = None) -> Path:
    """Train as the configuration says.

    Running it again goes on where an earlier training stopped; running it after the end does nothing.

    Args:
        config: The configuration.
        overwrite: Start afresh.
        scenes: The configuration's, where they are open already.

    Returns:
        Folder of the bundle.

    Raises:
        InputError: Bad input, or the run's folder holds another training.
        TrainingError: Training failed.
    """
    folder = RunFolder.of(config.output)
    refuse_azure(folder)
    scenes = scenes or open_labelled(config)
    folder.create()
    with hold(folder):
        return _train(config, folder, overwrite, scenes)


def refuse_azure(folder: RunFolder) -> None:
    """Trainings keep their checkpoints where Ray can.

    Raises:
        InputError: It cannot in this folder.
    """
    if str(folder.path).startswith("az://"):
        raise InputError(f"Ray Train cannot keep checkpoints in {folder.path}. Choose a folder, s3:// or gs://.")


def _train(config: RunConfig, folder: RunFolder, overwrite: bool, scenes: Labelled) -> Path:
    starting = starting_weights(config.model, folder.read().get("training") or {})
    identity = fingerprint(config, scenes, starting)
    if not overwrite and _claim(folder, identity):
        say(f"{folder.bundle} is trained already.")
        return folder.bundle
    if config.training.mlflow:
        check_tracking()
    begun = not overwrite and _has_checkpoint(folder, identity)
    untrained_card(_without_weights(config) if begun else config, scenes["train"][0].info)
    folder.refuse_foreign()
    folder.sweep()
    if overwrite:
        spare_starting_weights(config.model, folder)
        folder.clear_training()
    known = {"fingerprint": identity, "state": "running", "starting": starting}
    dumped = config.model_dump(by_alias=True, mode="json")
    folder.update(name=config.name, config=dumped, training=known)
    write_whole(folder.split, split_table(config, scenes))
    from segbatch.training.checkpoint import clear

    started = time.time()
    with (
        listening(config, folder, identity) as listener,
        ray_session(config.cluster.address) as resources,
        metered(folder, "training", held_on_ray, started),
    ):
        _fit(config, folder, scenes, identity, resources, listener)
    _show_samples(config, folder, scenes["validate"])
    history = json.loads((folder.bundle / "segbatch.json").read_text())["training"]["history"]
    # Of a training that was interrupted, this call is the last part only.
    seconds = max(time.time() - started, sum(row["train_seconds"] + row["validate_seconds"] for row in history))
    folder.update(
        training={
            "fingerprint": identity,
            "state": "done",
            "starting": starting,
            "seconds": round(seconds, 1),
            "history": history,
        }
    )
    clear(folder.training)  # the history is in run.json and the bundle
    for line in closing_lines(history, seconds, folder.bundle):
        say(line)
    return folder.bundle


def untrained_card(config: RunConfig, info: SceneInfo) -> Card:
    """The card that training will write, as far as it is known before: for plans and checks.

    Builds the network, so that a wrong name or weights that cannot be had are found before work begins.

    Args:
        config: The configuration.
        info: Of a scene to learn from.
    """
    import torch

    from segbatch.models.build import build_model, model_stride
    from segbatch.models.pretrained import load_from_bundle

    bands = info.select_bands(config.scenes.bands)
    weights = config.model.weights
    # Without weights to fetch it need not even have memory.
    with torch.device("meta") if weights is None and config.model.init is None else nullcontext():
        model = build_model(
            config.model.architecture,
            config.model.encoder,
            in_channels=len(bands),
            num_classes=len(config.classes),
            weights=weights,
            options=config.model.options,
        )
        if config.model.init is not None:
            load_from_bundle(model, config.class_table(), config.model.init)
    stride = model_stride(model)
    return Card(
        classes=config.class_table(),
        band_names=tuple(info.band_names[band - 1] for band in bands),
        dtype=info.dtype,
        mean=(0.0,) * len(bands),
        std=(1.0,) * len(bands),
        stride=stride,
        halo=default_halo(stride),
        label_map=config.label_map(),
        bands=bands if config.scenes.bands else None,
    )


def fingerprint(config: RunConfig, scenes: Labelled, starting: list[Any]) -> str:
    """What decides the bundle."""
    settings = config.training.model_dump(mode="json", exclude=_HOW_NOT_WHAT)
    described: list[Any] = [
        config.model.model_dump(mode="json"),
        starting,
        settings,
        config.class_table().to_json(),
        config.label_map().identity,
        config.scenes.bands,
        config.scenes.nodata,
        {
            role: [
                (redact(info.uri), info.size, info.modified, ref.label and file_stamp(ref.label), ref.window)
                for ref, info in found
            ]
            for role, found in scenes.items()
        },
    ]
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def starting_weights(model: Model, known: dict[str, Any]) -> list[Any]:
    """What tells the files that the weights come from apart from later ones of the same name.

    Of a training that is done it is in run.json: the files may be gone by now.

    Raises:
        InputError: They are not there, or not what they should be.
    """
    from_file = model.weights is not None and is_file(model.weights)
    paths = [path for path in (model.weights if from_file else None, model.init) if path is not None]
    if "starting" in known and not all(place(path).exists() for path in paths):
        return list(known["starting"])
    if model.init is not None:
        read_card(model.init)  # says what is wrong with it
    if from_file:
        check_file(str(model.weights))
    return [
        list(file_stamp(str(model.weights))) if from_file else None,
        None if model.init is None else bundle_hash(model.init),
    ]


def spare_starting_weights(model: Model, folder: RunFolder) -> None:
    """Refuse to throw away what the next training is to start from."""
    for path in (model.weights, model.init):
        if path is not None and place(path).exists() and place(path).resolve().is_relative_to(folder.path.resolve()):
            raise InputError(
                f"--overwrite would throw {path} away, which the training is to start from. "
                "Choose another output folder."
            )


def _absolute(model: Model) -> Model:
    """Workers have a working directory of their own."""
    named = {"weights": model.weights, "init": model.init}
    paths = {name: path for name, path in named.items() if path is not None and os.path.exists(path)}
    return model.model_copy(update={name: os.path.abspath(path) for name, path in paths.items()})


def _has_checkpoint(folder: RunFolder, identity: str) -> bool:
    from segbatch.training.checkpoint import has_checkpoint

    return has_checkpoint(folder.training / identity)


def _without_weights(config: RunConfig) -> RunConfig:
    """For a training that goes on: the files that it started from may have gone."""
    model = config.model.model_copy(update={"weights": None, "init": None})
    return config.model_copy(update={"model": model})


def _claim(folder: RunFolder, identity: str) -> bool:
    """Make sure that the folder is free or holds this very training.

    Returns:
        Whether the training is done already.
    """
    content = folder.read()
    known, tuned = content.get("training") or {}, content.get("tune") or {}
    if tuned and known.get("fingerprint") != identity:
        raise InputError(
            f"{folder.path} holds what segbatch tune has found"
            + (
                f": take {folder.tune / 'best.yaml'} as the configuration to go on with it. Else choose"
                if known
                else ", which is not finished. Choose"
            )
            + " another output folder, or give --overwrite to throw it away."
        )
    if known and known.get("fingerprint") != identity:
        raise InputError(
            f"{folder.path} holds a training with other scenes or settings. Choose another output folder, or "
            "give --overwrite to throw it and its masks away."
        )
    return known.get("state") == "done" and folder.bundle.exists()


def _show_samples(config: RunConfig, folder: RunFolder, scenes: Sequence[Part]) -> None:
    """Write sample predictions; without them the training is none the worse."""
    info = scenes[0].info
    bands = info.select_bands(config.scenes.bands)
    try:
        write_samples(folder, scenes, config.label_map(), config.scenes.nodata, bands)
    except (SegbatchError, OSError, RuntimeError) as error:  # torch's word for memory that ran out, too
        say(f"There are no sample predictions: {root_message(error)}")


def closing_lines(history: Sequence[dict[str, Any]], seconds: float, bundle: Path) -> Iterator[str]:
    """What a training has come to.

    Args:
        history: A row an epoch.
        seconds: That it took.
        bundle: Where its best model is.
    """
    best = max(history, key=lambda row: row["miou"] or 0)
    miou, one_class = best["miou"] or 0, best.get("one_class_miou") or 0
    yield f"Trained in {duration(seconds)}: best validation miou {miou:.3f} in epoch {best['epoch']}, kept in {bundle}"
    # A single class has 1 either way; nothing labelled, and bundles of an earlier version, have none.
    if miou <= one_class and 0 < one_class < 1:
        yield f"One class for every pixel would get {one_class:.3f}: train longer, or look at the labels."


def training_scenes(config: RunConfig, scenes: Sequence[Part]) -> "tuple[TrainingScene, ...]":
    """Scenes as training takes them."""
    from segbatch.training.survey import TrainingScene

    return tuple(
        TrainingScene(
            id=part.ref.id,
            image=part.ref.image,
            label=part.ref.label or "",
            bands=part.info.select_bands(config.scenes.bands),
            window=part.window,
            nodata=config.scenes.nodata,
        )
        for part in scenes
    )


def tell_classes(config: RunConfig, survey: "Survey") -> None:
    """Say how much there is of each class."""
    found = survey.class_pixels
    total = int(found.sum())
    names = config.class_table().names
    shares = ", ".join(f"{name} {count / total:.1%}" for name, count in zip(names, found, strict=True))
    say(f"{total:,} labelled pixels: {shares}")
    absent = [name for name, count in zip(names, found, strict=True) if not count]
    if absent:
        say(f"No training pixel is {' or '.join(absent)}: the model cannot learn what it never sees.")


def make_job(config: RunConfig, scenes: Labelled, survey: "Survey", threads: int) -> "TrainingJob":
    """What the workers need to know.

    Args:
        config: The run's.
        scenes: For training and validation.
        survey: Of the training scenes, in cells of half a tile.
        threads: Of each worker.
    """
    from segbatch.training.job import TrainingJob

    settings = config.training
    train_scenes = training_scenes(config, scenes["train"])
    area = sum(scene.window.area for scene in train_scenes)
    first = scenes["train"][0].info
    bands = first.select_bands(config.scenes.bands)
    return TrainingJob(
        classes=config.class_table(),
        label_map=config.label_map(),
        train=train_scenes,
        validate=training_scenes(config, scenes["validate"]),
        survey=survey,
        band_names=tuple(first.band_names[band - 1] for band in bands),
        bands=bands if config.scenes.bands else None,
        dtype=first.dtype,
        model=_absolute(config.model),
        settings=settings,
        steps_per_epoch=settings.steps_per_epoch or max(1, round(area / (settings.tile**2 * settings.batch_size))),
        threads=threads,
    )


def _fit(
    config: RunConfig,
    folder: RunFolder,
    scenes: Labelled,
    identity: str,
    resources: Resources,
    listener: "Listener",
) -> None:
    from segbatch.training.trainer import Workers, fit, survey_scenes

    settings = config.training
    use_gpu = resources.wants_gpu(settings.use_gpu, settings.min_workers or settings.workers)
    cpus = resources.cpus_for(settings.workers, use_gpu, settings.min_workers)
    train_scenes = training_scenes(config, scenes["train"])
    storage = folder.training.absolute()
    survey = survey_scenes(
        train_scenes,
        settings.tile // 2,
        config.label_map(),
        storage,
        storage / f"survey-{identity}.npz",
        tell_standstill,
    )
    tell_classes(config, survey)
    job = make_job(config, scenes, survey, cpus)
    say(
        f"Training {config.model.architecture} with {config.model.encoder}: "
        f"{counted(settings.epochs, 'epoch')} of {counted(job.steps_per_epoch, 'step')}, "
        f"{counted(settings.workers, 'worker')} with {'a GPU' if use_gpu else counted(cpus, 'CPU')}"
        f"{' each' if settings.workers > 1 else ''}"
    )
    if use_gpu and resources.gpus < settings.workers:
        say(f"  waiting for {counted(settings.workers, 'GPU')}: the cluster has {resources.gpus} so far")
    fit(
        job,
        Workers(
            settings.workers,
            settings.min_workers or settings.workers,
            cpus,
            use_gpu,
            settings.max_failures,
            resources.local,
        ),
        storage,
        identity,
        folder.bundle.absolute(),
        listener,
    )
