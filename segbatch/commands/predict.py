"""Map scenes: plan, read, predict, write, finish, report."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segbatch.classes import LabelMap
from segbatch.commands.account import account
from segbatch.commands.folder import RunFolder
from segbatch.commands.progress import BlockProgress, counted, duration, say
from segbatch.commands.record import RunRecord, SceneRecord
from segbatch.commands.report import report
from segbatch.commands.resume import claim, known_rows, pending_blocks, unfinished_scenes
from segbatch.commands.scenes import check_all, describe
from segbatch.config import Inference, RunConfig
from segbatch.errors import InputError
from segbatch.inference.finish import finish_scene, mask_path
from segbatch.inference.ledger import LedgerRow, read_ledger
from segbatch.inference.plan import Costs, ScenePlan, costs, fingerprint, plan_scene
from segbatch.models.card import Card, bundle_hash, read_card
from segbatch.runtime import Resources, ray_session
from segbatch.scenes import SceneRef, check_label
from segbatch.scenes.catalog import list_scenes, resolve

if TYPE_CHECKING:
    from segbatch.inference.work import Work

_GPU_BATCH = 8


@dataclass(frozen=True, slots=True)
class Request:
    """What to map, and how.

    Args:
        name: Of the run, for titles.
        folder: Where the files go.
        bundle: Folder of the bundle.
        refs: The scenes.
        bands: Bands to use, by number or name; None for the bundle's.
        nodata: Fill value that overrides the files' own.
        label_map: From label values to class ids; None for the bundle's.
        inference: How scenes are mapped.
        address: Of the Ray cluster.
        overwrite: Start afresh where the folder holds another run.
        config: The resolved configuration, for run.json.
        card: Of a bundle that is not there yet, for plans and checks.
    """

    name: str
    folder: RunFolder
    bundle: Path
    refs: Sequence[SceneRef]
    bands: list[int | str] | None
    nodata: float | None
    label_map: LabelMap | None
    inference: Inference
    address: str
    overwrite: bool
    config: dict[str, Any]
    card: Card | None = None

    @classmethod
    def from_config(
        cls, config: RunConfig, overwrite: bool = False, bundle: Path | None = None, card: Card | None = None
    ) -> "Request":
        """Map what a configuration lists.

        Args:
            config: The configuration.
            overwrite: Start afresh where the folder holds another run.
            bundle: Folder of the bundle; None for the one that the run has trained.
            card: Of a bundle that is not there yet; see `train.untrained_card`.

        Raises:
            InputError: There is no bundle yet, or it has other classes.
        """
        folder = RunFolder(Path(config.output))
        bundle = bundle or folder.bundle
        names = (card or read_card(bundle)).classes.names
        if names != config.class_table().names:
            raise InputError(
                f"{bundle} has the classes {', '.join(names)}, but the configuration has "
                f"{', '.join(config.class_table().names)}. Train again, or choose another output."
            )
        return cls(
            name=config.name,
            folder=folder,
            bundle=bundle,
            refs=list_scenes(config.scenes, "predict"),
            bands=config.scenes.bands,
            nodata=config.scenes.nodata,
            label_map=config.label_map(),
            inference=config.inference,
            address=config.cluster.address,
            overwrite=overwrite,
            config=config.model_dump(by_alias=True, mode="json"),
            card=card,
        )


def plan(request: Request) -> tuple[Card, tuple[ScenePlan, ...], LabelMap]:
    """Open the scenes, refuse what does not fit, and lay out the blocks. Reads no pixel of the images.

    Raises:
        InputError: A line for each scene that does not fit.
    """
    card = request.card or read_card(request.bundle)
    label_map = request.label_map or card.label_map
    if label_map.num_classes != len(card.classes):
        raise InputError(f"{request.bundle} has {len(card.classes)} classes, the labels have {label_map.num_classes}.")
    inference = request.inference

    def check(ref: SceneRef) -> ScenePlan:
        info = describe(ref.image, request.nodata)
        bands = card.select_bands(info, request.bands)
        if ref.label is not None:
            check_label(info, ref.label, label_map)
        return plan_scene(
            ref,
            info,
            bands,
            stride=card.stride,
            core=inference.core,
            halo=card.halo if inference.halo == "auto" else inference.halo,
            block_bytes=inference.block_mb * 2**20,
        )

    return card, tuple(check_all(check, request.refs)), label_map


def _check_weights(bundle: Path) -> None:
    """Find files that were cut short without the seconds that loading torch and the model would take."""
    from safetensors import SafetensorError, safe_open

    try:
        json.loads((bundle / "config.json").read_text(encoding="utf-8"))
        with safe_open(bundle / "model.safetensors", framework="np"):
            pass
    except (SafetensorError, ValueError, OSError) as error:
        raise InputError(f"The bundle {bundle} is damaged: {error}") from error


def predict(request: Request) -> dict[str, Any]:
    """Map the scenes and write the report.

    Running it again goes on where an earlier run stopped; running it after the end does nothing.

    Returns:
        The content of metrics.json.

    Raises:
        InputError: Bad input, or the folder holds another run.
    """
    card, scenes, label_map = plan(request)
    _check_weights(request.bundle)
    folder = request.folder
    folder.create()
    identity = fingerprint(scenes, bundle_hash(request.bundle), label_map)
    claim(folder, identity, request.overwrite)
    folder.sweep()
    formats = request.inference.format
    rows = known_rows(folder, scenes, formats)
    pending = pending_blocks(scenes, rows)
    unfinished = unfinished_scenes(folder, scenes, rows, formats)
    if not len(pending) and not unfinished:
        say(f"{folder.path}: all {counted(sum(len(scene.grid) for scene in scenes), 'block')} are done already.")
        document = report(folder)
        _set_state(folder, document)  # a kill may have come between the last file and run.json
        return document
    what = costs(scenes)
    say(_plan_line(scenes, what, len(pending)))
    folder.update(
        name=request.name,
        config=request.config,
        mapping={
            "state": "running",
            "fingerprint": identity,
            "bundle": str(request.bundle),
        },
    )
    _record(request, card, scenes, label_map, what).save(folder)
    folder.masks.mkdir(exist_ok=True)
    clock = {"start": time.time()}
    with ExitStack() as stack:
        resources = None
        if request.inference.engine == "ray":
            resources = stack.enter_context(ray_session(request.address))
        if len(pending):
            _run(request, card, scenes, label_map, pending, resources)
            rows = read_ledger(folder.ledger)
            unfinished = unfinished_scenes(folder, scenes, rows, formats)
        clock["blocks"] = time.time()
        for problem in _finish(request, card, unfinished, resources):
            say(problem)
        clock["files"] = time.time()
    document = report(folder)
    _set_state(folder, document, last=account(scenes, rows, pending, clock))
    seconds = time.time() - clock["start"]
    mapped = sum(scenes[index].grid[block].owned.area for index, block in pending.tolist())
    say(f"Mapped {mapped / 1e6:.1f} Mpx in {duration(seconds)}.")
    return document


def _set_state(folder: RunFolder, document: dict[str, Any], **more: Any) -> None:
    state = "failed" if document["failed"] else "done"
    folder.update(mapping={**folder.read()["mapping"], "state": state, **more})


def _run(
    request: Request,
    card: Card,
    scenes: tuple[ScenePlan, ...],
    label_map: LabelMap,
    pending: np.ndarray,
    resources: Resources | None,
) -> None:
    """Map the pending blocks with the engine that was asked for."""
    from segbatch.inference.work import Work
    from segbatch.masks import clean_partial, create_store

    for index in np.unique(pending[:, 0]).tolist():
        scene = scenes[index]
        store = request.folder.masks / f"{scene.id}.zarr"
        clean_partial(store)
        create_store(
            store,
            width=scene.info.width,
            height=scene.info.height,
            shard=scene.shard,
            chunk=scene.chunk,
            classes=card.classes,
            crs=scene.info.crs,
            transform=scene.info.transform,
            pixel_size_um=scene.ref.pixel_size_um,
        )
    inference = request.inference
    if resources is None:
        import torch

        use_gpu = torch.cuda.is_available() if inference.use_gpu == "auto" else inference.use_gpu
        if use_gpu and not torch.cuda.is_available():
            raise InputError("use_gpu is true, but this machine has no GPU. Set it to auto or false.")
    else:
        use_gpu = resources.wants_gpu(inference.use_gpu)
    work = Work(
        scenes=scenes,
        pending=pending,
        bundle=str(request.bundle.absolute()),
        masks=str(request.folder.masks.absolute()),
        ledger=str(request.folder.ledger.absolute()),
        label_map=label_map,
        batch_size=(_GPU_BATCH if use_gpu else 1) if inference.batch_size == "auto" else inference.batch_size,
    )
    progress = BlockProgress(len(pending))
    sizes = {(scenes[index].id, block): scenes[index].grid[block].owned.area for index, block in pending.tolist()}
    for row in _engine(work, inference, use_gpu, resources):
        progress.add(row.started, sizes[row.scene, row.block], row.error is not None)


def _engine(work: "Work", inference: Inference, use_gpu: bool, resources: Resources | None) -> Iterator[LedgerRow]:
    if resources is None:
        from segbatch.inference.inline import run_inline

        return run_inline(work, "cuda" if use_gpu else "cpu")
    from segbatch.inference.pipeline import plan_pool, run_ray

    pool = plan_pool(
        cpus=resources.cpus,
        gpus=resources.gpus,
        node_cpus=resources.node_cpus,
        use_gpu=use_gpu,
        min_actors=inference.actors.min,
        max_actors=inference.actors.max,
        blocks=len(work.pending),
    )
    say(
        f"Predicting with {counted(pool.max, 'actor')}"
        + (" on GPUs" if pool.use_gpu else f" of {counted(pool.threads or 1, 'thread')}")
    )
    return run_ray(work, pool)


def _finish(request: Request, card: Card, scenes: Sequence[ScenePlan], resources: Resources | None) -> list[str]:
    """Write the files of scenes whose blocks are done.

    Returns:
        Why, for each scene whose files could not be written.
    """
    finish = partial(
        finish_scene,
        masks=request.folder.masks.absolute(),
        classes=card.classes,
        formats=request.inference.format,
        overviews=request.inference.overviews,
    )
    if scenes and "cog" in request.inference.format:
        say(f"Writing {counted(len(scenes), 'GeoTIFF')}")
    if resources is None or len(scenes) == 1:
        results: Iterator[str] = map(finish, scenes)
    else:
        from segbatch.inference.pipeline import map_items

        results = map_items(finish, scenes, cpus=1)
    return [problem for problem in results if problem]


def _plan_line(scenes: Sequence[ScenePlan], what: Costs, pending: int) -> str:
    left = f" ({what.blocks - pending} done already)" if pending < what.blocks else ""
    return (
        f"Mapping {counted(len(scenes), 'scene')}, {what.pixels / 1e6:.1f} Mpx in {counted(what.blocks, 'block')}{left}"
    )


def _record(request: Request, card: Card, scenes: Sequence[ScenePlan], label_map: LabelMap, what: Costs) -> RunRecord:
    """What the report needs to know of the run; nothing that differs between two runs of the same work."""
    cores = sorted({scene.core for scene in scenes})
    shown = ", ".join(f"{rows} x {cols}" for rows, cols in cores[:3]) + (", ..." if len(cores) > 3 else "")
    miou = card.training.get("miou")
    folder, formats = request.folder, request.inference.format
    return RunRecord(
        name=request.name,
        classes=card.classes,
        label_map=label_map,
        scenes=tuple(
            SceneRecord.of(
                scene.ref,
                scene.info,
                image=scene.info.uri,
                mask=mask_path(folder.masks, scene.id, formats).relative_to(folder.path),
                blocks=len(scene.grid),
            )
            for scene in scenes
        ),
        nodata=request.nodata,
        facts=(
            ("bundle", str(request.bundle)),
            ("validation miou", "not known" if miou is None else f"{miou:.3f}"),
            ("scenes", str(len(scenes))),
            ("pixels", f"{what.pixels / 1e6:.1f} million"),
            ("core", f"{shown} px"),
            ("halo", f"{scenes[0].grid.lattice.halo} px"),
            ("waste", f"{what.waste:.2f} pixels run for each pixel kept"),
        ),
    )


def with_labels(refs: Sequence[SceneRef], labels: Sequence[str]) -> list[SceneRef]:
    """Pair scenes with labels given in the same order, or with one that has ``{name}`` for the image's name.

    Raises:
        InputError: There are not as many labels as scenes.
    """
    if len(labels) == 1 and "{name}" in labels[0]:
        labels = [labels[0].replace("{name}", Path(ref.image).stem) for ref in refs]
    if labels and len(labels) != len(refs):
        raise InputError(
            f"{counted(len(refs), 'scene')} but {counted(len(labels), 'label')}: give one --label for each scene, "
            "in order."
        )
    return (
        [replace(ref, label=resolve(label, ".")) for ref, label in zip(refs, labels, strict=True)]
        if labels
        else list(refs)
    )
