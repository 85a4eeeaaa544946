"""Map scenes: plan, read, predict, write, finish, report."""

import json
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segbatch.commands.account import Account, remember
from segbatch.commands.choose import Choice, choose, int8_path, quantization, touched_bytes, with_wishes
from segbatch.commands.cost import find_prices
from segbatch.commands.folder import RunFolder
from segbatch.commands.lock import hold
from segbatch.commands.plan import Opened, Plan, open_request, sizes
from segbatch.commands.progress import BlockProgress, counted, duration, say, tell_standstill
from segbatch.commands.record import RunRecord, SceneRecord
from segbatch.commands.report import report
from segbatch.commands.request import Request
from segbatch.commands.resume import claim, known_tallies, pending_blocks, rounds, unfinished_scenes
from segbatch.commands.split import warn_of_known
from segbatch.commands.usage import metered
from segbatch.commands.workers import Crew, Workers, find_crew, pool_for
from segbatch.errors import InputError, SegbatchError
from segbatch.inference.attempts import suspects
from segbatch.inference.files import BlockWriter, store_path
from segbatch.inference.finish import mask_path, try_to_finish
from segbatch.inference.ledger import LedgerRow
from segbatch.inference.plan import Costs, ScenePlan, costs, fingerprint
from segbatch.inference.pool import bound_blocks
from segbatch.inference.tuning import REFERENCE
from segbatch.inference.watch import Watchdog
from segbatch.models.card import bundle_hash
from segbatch.models.profile import kind
from segbatch.runtime import Resources
from segbatch.storage import local_copy, place, remove_tree
from segbatch.telemetry import Meter
from segbatch.tracing import tracing

if TYPE_CHECKING:
    from segbatch.config import Inference
    from segbatch.inference.work import Work


def check_weights(bundle: Path) -> None:
    """Find files that were cut short without the seconds that loading torch and the model would take."""
    from safetensors import SafetensorError, safe_open

    try:
        if "_model_class" not in json.loads((bundle / "config.json").read_text(encoding="utf-8")):
            raise ValueError("config.json does not say what model it is.")
        with safe_open(local_copy(bundle) / "model.safetensors", framework="np"):
            pass
    except (SafetensorError, ValueError, TypeError, OSError) as error:
        raise InputError(f"The bundle {bundle} is damaged: {error}") from error


def predict(request: Request) -> dict[str, Any]:
    """Map the scenes and write the report.

    Running it again goes on where an earlier run stopped; running it after the end does nothing.

    Returns:
        The content of metrics.json.

    Raises:
        InputError: Bad input, or the folder holds another run.
    """
    opened = open_request(request)
    check_weights(request.bundle)
    warn_of_known(request.refs, RunFolder(request.bundle.parent).split)
    folder = request.folder
    folder.create()
    with ExitStack() as stack:
        stack.enter_context(hold(folder))
        known = None if request.overwrite else (folder.read().get("mapping") or {}).get("chosen")
        clock = {"start": time.time()}
        planned = opened.lay_out(with_wishes(Choice.from_json(known), request)) if known else None
        if planned is not None:
            claim(folder, _identity(request, planned), request.inference.format, request.overwrite)
            document = _done_already(request, planned)
            if document is not None:
                return document
        crew = find_crew(request, stack, None if planned is None else planned.choice.use_gpu, sizes(opened.scenes))
        if planned is None:
            planned = opened.lay_out(choose(request, opened.card, opened.scenes, crew.workers, crew.measure))
            claim(folder, _identity(request, planned), request.inference.format, request.overwrite)
        if planned.choice.settings.precision == "int8":
            planned = opened.lay_out(quantized(opened, crew, planned.choice))
        return _map(request, planned, crew, clock)


def quantized(opened: Opened, crew: Crew, choice: Choice) -> Choice:
    """Make the run's model in int8, where it is not there yet, and note what it is worth."""
    job = quantization(opened.request, opened.card, opened.scenes, crew.workers, choice)
    if place(job.path).exists():
        return choice
    speeds = crew.quantize(job).speeds
    found, usual = speeds.get(kind(choice.settings.backend, "int8")), speeds[REFERENCE]
    if found is None or found.failed:
        raise InputError(f"{choice.settings.backend} does not run this model in int8. Choose another precision.")
    say(
        f"int8: {found.mpx_per_second:.2f} Mpx/s, {found.mpx_per_second / usual.mpx_per_second:.1f} times eager "
        f"float32; the classes of {found.agreement:.2%} of pixels are the same"
    )
    return replace(choice, agreement=found.agreement)


def _identity(request: Request, planned: Plan) -> dict[str, Any]:
    return fingerprint(planned.scenes, bundle_hash(request.bundle), planned.label_map, planned.choice.settings)


def _done_already(request: Request, planned: Plan) -> dict[str, Any] | None:
    """The report of a run that has nothing left to do; None where there is something."""
    folder, formats = request.folder, request.inference.format
    tallies = known_tallies(folder, planned.scenes, len(planned.card.classes), formats, request.products)
    unfinished = unfinished_scenes(folder, planned.scenes, tallies, formats, request.products)
    if len(pending_blocks(planned.scenes, tallies)) or unfinished:
        return None
    blocks = sum(len(scene.grid) for scene in planned.scenes)
    say(f"{folder.path}: {f'all {blocks} blocks are' if blocks > 1 else 'its block is'} done already.")
    remove_tree(folder.attempts)
    folder.sweep()
    if find_prices(request.config) is not None:
        folder.update(config=request.config)  # prices may have come, or changed, since
    document = report(folder, request.refs)
    _set_state(folder, document)  # a kill may have come between the last file and run.json
    return document


def _map(request: Request, planned: Plan, crew: Crew, clock: dict[str, float]) -> dict[str, Any]:
    """Do what is left of a plan, and report."""
    with metered(request.folder, "mapping", crew.held, clock["start"]):
        problems, last = map_scenes(request, planned, crew, clock)
    document = report(request.folder, request.refs)
    _set_state(request.folder, document, last=last, **({"state": "failed"} if problems else {}))
    if problems:
        raise SegbatchError("\n".join(problems))
    remember(request, planned, crew.workers, last)
    say(f"Mapped in {duration(time.time() - clock['start'])}.")
    return document


def map_scenes(
    request: Request, planned: Plan, crew: Crew, clock: dict[str, float]
) -> tuple[list[str], dict[str, Any]]:
    """Do what is left of a plan.

    Returns:
        Why files could not be written, for each scene of which they could not, and what this call did; see `Account`.
    """
    folder, formats, scenes, choice = request.folder, request.inference.format, planned.scenes, planned.choice
    folder.sweep()
    tallies = known_tallies(folder, scenes, len(planned.card.classes), formats, request.products)
    pending = pending_blocks(scenes, tallies)
    done = Account(scenes)
    what = costs(scenes, choice.settings.views)
    say(_plan_line(scenes, what, len(pending)))
    say(_choice_line(choice, request.inference))
    folder.update(
        name=request.name,
        config=request.config,
        mapping={
            "state": "running",
            "fingerprint": _identity(request, planned),
            "bundle": str(request.bundle),
            "chosen": choice.to_json(),
        },
    )
    run_record(request, planned, what).save(folder)
    folder.masks.mkdir(exist_ok=True)
    files = BlockWriter(
        folder.masks.absolute(),
        tuple(formats),
        request.inference.overviews,
        planned.card.classes,
        tuple(request.products),
    )
    # On Ray a process that is lost takes no other scene with it.
    suspected = list(suspects(folder.attempts)) if crew.resources is None else []
    if suspected:
        say(
            f"An earlier run was killed, or crashed, at {counted(len(suspected), 'scene')}, last at {suspected[-1]}: "
            "they come at the end, in case one of them is to blame"
        )
    progress = BlockProgress(len(pending))
    problems: list[str] = []
    for part, blocks in rounds(scenes, pending, suspected):
        if len(blocks):
            # Closed at once where what is done with a row fails: blocks are not to seem lost with a process.
            with closing(_run(request, planned, files, blocks, crew, progress)) as rows:
                for row in rows:
                    tallies[row.scene].add(row)
                    done.add(row)
        clock["blocks"] = time.time()
        unfinished = unfinished_scenes(folder, part, tallies, formats, request.products)
        problems += _finish(request, files, unfinished, crew.resources)
    remove_tree(folder.attempts)
    folder.sweep()  # what processes left that were lost in this run
    clock["files"] = time.time()
    return problems, done.summary(clock)


def _set_state(folder: RunFolder, document: dict[str, Any], **more: Any) -> None:
    state = "failed" if document["failed"] or document["unfinished"] else "done"
    folder.update(mapping={**folder.read()["mapping"], "state": state, **more})


def _run(
    request: Request, planned: Plan, files: BlockWriter, pending: np.ndarray, crew: Crew, progress: BlockProgress
) -> Generator[LedgerRow, None, None]:
    """Map the pending blocks with the engine that was asked for, and yield the row of each as it is done."""
    from segbatch.inference.work import Work
    from segbatch.masks import clean_partial

    scenes = planned.scenes
    for index in np.unique(pending[:, 0]).tolist():
        clean_partial(store_path(files.masks, scenes[index].id))
    work = Work(
        scenes=scenes,
        pending=pending,
        bundle=str(request.bundle.absolute()),
        files=files,
        ledger=str(request.folder.ledger.absolute()),
        label_map=planned.label_map,
        settings=planned.choice.settings,
        quantized=str(int8_path(request, planned.choice)) if planned.choice.settings.precision == "int8" else None,
        window_bytes=_window_bytes(request, planned, crew.workers),
    )
    meter = None
    if crew.resources is not None:
        meter = Meter(request.name)
        meter.mapping(len(pending))
    grids = {scene.id: scene.grid for scene in scenes}
    told: set[str] = set()
    with (
        tracing(request.name, "mapping", say) as tracer,
        closing(_engine(work, request, crew)) as rows,
    ):
        for row in rows:
            progress.add(row.started, grids[row.scene][row.block].owned.area, row.error is not None)
            if meter is not None:
                meter.block(row)
            tracer.block(row)
            if row.note and row.note not in told:
                told.add(row.note)
                say(f"  {row.scene}, block {row.block}: {row.note}")
            yield row


def _window_bytes(request: Request, planned: Plan, workers: Workers) -> int:
    """Memory that forward passes take in a predicting process; 0 where it is not PyTorch's, and so not kept."""
    settings = planned.choice.settings
    if workers.use_gpu or settings.backend not in ("eager", "compile"):
        return 0
    lattices = (scene.grid.lattice for scene in planned.scenes)
    window = max(lattice.window_height * lattice.window_width for lattice in lattices)
    return touched_bytes(request, planned.card, workers, window * settings.batch_size)


def _engine(work: "Work", request: Request, crew: Crew) -> Generator[LedgerRow, None, None]:
    workers, resources = crew.workers, crew.resources
    if resources is None:
        from segbatch.inference.inline import run_inline

        return run_inline(work, "cuda" if workers.use_gpu else "cpu", tell_standstill)
    from segbatch.inference.pipeline import run_ray

    pool = pool_for(request.inference, resources, workers.use_gpu, workers.cores, blocks=len(work.pending))
    bounds = bound_blocks(
        cpus=resources.cpus,
        gpus=resources.gpus,
        store_bytes=resources.store_bytes,
        block_bytes=costs(work.scenes).block_bytes,
        pool=pool,
        blocks=len(work.pending),
    )
    say(
        f"Predicting with {counted(pool.max, 'actor')}"
        + (" on GPUs" if pool.use_gpu else f" of {counted(pool.threads or 1, 'thread')}")
    )
    return run_ray(work, pool, bounds, tell_standstill)


def _finish(
    request: Request,
    files: BlockWriter,
    unfinished: Sequence[ScenePlan],
    resources: Resources | None,
) -> list[str]:
    """Write the files of scenes whose blocks are done.

    Args:
        request: What is mapped.
        files: Writes them.
        unfinished: Those whose files are to be written.
        resources: What the Ray cluster has; None for this process alone.

    Returns:
        Why, for each scene whose files could not be written.
    """
    if unfinished and "cog" in request.inference.format:
        say(f"Writing {counted(len(unfinished) * (1 + len(request.products)), 'GeoTIFF')}")
    nothing = "no scene was finished"
    attempts = request.folder.attempts.absolute()
    finish = partial(try_to_finish, writer=files, attempts=str(attempts))
    if resources is None or len(unfinished) <= 1:
        attempts.mkdir(parents=True, exist_ok=True)
        results = _finish_here(finish, unfinished, nothing)
    else:
        from segbatch.inference.pipeline import map_items

        remove_tree(attempts)  # of a command that was killed
        attempts.mkdir(parents=True, exist_ok=True)
        results = map_items(finish, unfinished, nothing=nothing, tell=tell_standstill)
    return [problem for problem in results if problem]


def _finish_here(finish: Callable[[ScenePlan], str], scenes: Sequence[ScenePlan], nothing: str) -> Iterator[str]:
    """Finish one scene after the other in this process."""
    at: list[str] = []
    with Watchdog(tell_standstill, lambda: f"putting the files of {at[-1]} together", nothing) as dog:
        for scene in scenes:
            at.append(scene.id)
            yield finish(scene)
            dog.done()


def _choice_line(choice: Choice, asked: "Inference") -> str:
    settings = choice.settings
    agreement = "" if choice.agreement is None else f", which agrees with float32 on {choice.agreement:.2%} of pixels"
    auto = [name for name in ("backend", "precision") if getattr(asked, name) == "auto"]
    why = f" ({' and '.join(auto)} auto: another run may choose otherwise)" if auto else ""
    return f"Halo {choice.halo} px, {settings.backend} in {settings.precision}{agreement}{why}"


def _plan_line(scenes: Sequence[ScenePlan], what: Costs, pending: int) -> str:
    blocks = sum(len(scene.grid) for scene in scenes)
    left = f" ({blocks - pending} done already)" if pending < blocks else ""
    outside = f", {blocks - what.blocks} of them outside the area of interest" if what.blocks < blocks else ""
    size = f"{counted(len(scenes), 'scene')}, {what.pixels / 1e6:.1f} Mpx"
    return f"Mapping {size} in {counted(blocks, 'block')}{outside}{left}"


def run_record(request: Request, planned: Plan, what: Costs) -> RunRecord:
    """What the report needs to know of the run; nothing that differs between two runs of the same work."""
    card, scenes, choice = planned.card, planned.scenes, planned.choice
    cores = sorted({scene.core for scene in scenes})
    shown = ", ".join(f"{rows} x {cols}" for rows, cols in cores[:3]) + (", ..." if len(cores) > 3 else "")
    miou = card.training.get("miou")
    settings = choice.settings
    facts = [
        ("bundle", str(request.bundle)),
        ("validation miou", "not known" if miou is None else f"{miou:.3f}"),
        ("scenes", str(len(scenes))),
        ("pixels", f"{what.pixels / 1e6:.1f} million"),
        ("core", f"{shown} px"),
        ("halo", f"{choice.halo} px"),
        ("waste", f"{what.waste:.2f} pixels run for each pixel kept"),
        ("windows meet", {"crop": "each keeps its core"}.get(settings.blend, f"{settings.blend} weights")),
        ("model run by", f"{settings.backend} in {settings.precision}"),
    ]
    if choice.agreement is not None:
        facts.append(("agreement with eager float32", f"{choice.agreement:.3%} of pixels of real windows"))
    if settings.tta != "none":
        facts.append(("test-time augmentation", f"{settings.tta}, {settings.views} views"))
    if request.inference.aoi is not None:
        facts.append(("area of interest", request.inference.aoi))
    return RunRecord(
        name=request.name,
        classes=card.classes,
        label_map=planned.label_map,
        scenes=tuple(scene_record(request, scene) for scene in scenes),
        nodata=request.nodata,
        facts=tuple(facts),
    )


def scene_record(request: Request, scene: ScenePlan) -> SceneRecord:
    """What the report needs to know of a scene."""
    folder = request.folder
    mask = mask_path(folder.masks, scene.id, request.inference.format).relative_to(folder.path)
    return SceneRecord.of(
        scene.ref, scene.info, image=scene.info.uri, mask=mask, blocks=len(scene.grid), area=scene.area
    )
