"""Build a run's report from its folder: record and ledger, and what a training left."""

from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from segbatch.classes import ClassTable
from segbatch.commands.cost import cost_facts, run_cost
from segbatch.commands.course import read_course
from segbatch.commands.folder import RunFolder
from segbatch.commands.index import Index
from segbatch.commands.lock import hold
from segbatch.commands.progress import counted
from segbatch.commands.record import RunRecord, SceneRecord
from segbatch.commands.samples import read_samples
from segbatch.inference.tally import SceneTally, tally_ledger
from segbatch.redaction import redact
from segbatch.report.summary import RunSummary, SceneResult, Schedule
from segbatch.report.write import write_report, write_training_report
from segbatch.scenes import SceneRef
from segbatch.storage import ask_ahead, is_remote, is_url, place


def rebuild(folder: RunFolder) -> dict[str, Any] | None:
    """Write the report afresh; of a run that has only trained, or does so now, the training's.

    Returns:
        The content of metrics.json; None where there is only a training.

    Raises:
        FolderInUseError: Another command writes the folder.
        InputError: The folder holds no run that has trained, mapped or evaluated anything.
    """
    if RunRecord.is_in(folder):
        # A command that maps into the folder writes a report when it is done, which this one might undo.
        with hold(folder):
            return report(folder)
    told = _training(folder)
    if not told["training"]:
        return report(folder)
    content = folder.read()
    classes = ClassTable.from_json(content["config"]["classes"])
    cost = run_cost(folder)
    facts = tuple(cost_facts(cost)) if cost else ()
    summary = RunSummary(name=str(content["name"]), classes=classes, scenes=(), facts=facts, cost=cost, **told)
    write_training_report(summary, folder.report)
    return None


def report(folder: RunFolder, refs: Iterable[SceneRef] = ()) -> dict[str, Any]:
    """Sum the ledger's rows and write the report.

    Args:
        folder: The run's.
        refs: Scenes of the run, for pictures of those whose addresses have secrets: the folder keeps none.

    Returns:
        The content of metrics.json.

    Raises:
        InputError: The folder holds no run that has mapped or evaluated anything.
    """
    record, given = RunRecord.load(folder), {ref.id: ref for ref in refs}
    tallies = tally_ledger(folder.ledger, record.blocks, len(record.classes))

    def result(scene: SceneRecord) -> SceneResult:
        return _result(folder.path, _readable(scene, given.get(scene.id)), tallies[scene.id])

    scenes = tuple(ask_ahead(result, record.scenes, is_far=is_remote(folder.path)))
    mapped = [scene for scene, result in zip(record.scenes, scenes, strict=True) if result.is_whole]
    cost = run_cost(folder, mapped)
    if cost is not None:
        folder.update(cost=cost)
    summary = RunSummary(
        name=record.name,
        classes=record.classes,
        scenes=scenes,
        facts=(*record.facts, *(cost_facts(cost) if cost else ())),
        cost=cost,
        schedule=_schedule(folder),
        **_training(folder),
    )
    return write_report(summary, folder.report, label_map=record.label_map, nodata=record.nodata)


def _schedule(folder: RunFolder) -> Schedule | None:
    """What the index knows; None where no schedule maps into the folder."""
    if not Index.is_in(folder):
        return None
    index = Index.load(folder)
    return Schedule(tuple(scene.row for scene in index.scenes), tuple(asdict(run) for run in index.runs))


def _training(folder: RunFolder) -> dict[str, Any]:
    """What is known of the run's training, finished or not: fields of a `RunSummary`, empty without one."""
    section = folder.read().get("training")
    if not section:
        return {"training": (), "steps": (), "samples": ()}
    course = read_course(folder.metrics)
    rows = tuple(section.get("history") or course.epochs)
    return {"training": rows, "steps": course.steps, "samples": read_samples(folder)}


def _readable(scene: SceneRecord, ref: SceneRef | None) -> SceneRecord:
    """A scene's record with addresses that can be read."""
    if ref is None or scene.image != redact(ref.image) or scene.label != (ref.label and redact(ref.label)):
        return scene
    return replace(scene, image=ref.image, label=ref.label)


def _result(run: Path, scene: SceneRecord, tally: SceneTally) -> SceneResult:
    """What is known of a scene; of one that has failed, or is not finished, also why."""
    elsewhere = is_url(scene.mask) or scene.mask.startswith("/vsi")
    mask = scene.mask if elsewhere else str(run / scene.mask)  # an absolute path stays what it is
    error, left = tally.error, None
    if error is not None:
        if scene.blocks > 1:
            error = f"{error} ({len(tally.errors)} of {scene.blocks} blocks failed)"
    elif not tally.is_whole:
        todo = scene.blocks - np.count_nonzero(tally.done)
        left = f"{todo} of {counted(scene.blocks, 'block')} still to do"
    elif scene.image is not None and not elsewhere and not place(mask).exists():
        left = f"{mask} was not written"
    is_whole = error is None and left is None
    return SceneResult(
        id=scene.id,
        group=scene.group,
        image=scene.image,
        label=scene.label,
        mask=mask if is_whole else None,
        width=scene.width,
        height=scene.height,
        pixel_area_m2=scene.pixel_area_m2,
        pixel_size_um=scene.pixel_size_um,
        class_pixels=tuple(tally.class_pixels.tolist()),
        nodata_pixels=tally.nodata_pixels,
        ignored_pixels=tally.ignored_pixels,
        confusion=tally.confusion if scene.label is not None and is_whole else None,
        error=error,
        left=left,
        # Of an evaluation, whose masks are given, also where it has failed.
        shown_mask=scene.mask if is_whole or scene.image is None else None,
    )
