"""What a run of a schedule has come to: which scenes take the place of what is there, and what is known of all."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from segbatch.commands.adopt import Adoption
from segbatch.commands.folder import RunFolder
from segbatch.commands.index import Index, RunEntry, SceneEntry, timestamp
from segbatch.commands.plan import Plan
from segbatch.commands.predict import run_record, scene_record
from segbatch.commands.progress import say
from segbatch.commands.record import RunRecord, SceneRecord
from segbatch.commands.request import Request
from segbatch.commands.scenes import attempt_all
from segbatch.errors import InputError
from segbatch.inference.files import MaskFiles
from segbatch.inference.finish import is_finished, mask_path
from segbatch.inference.plan import ScenePlan, costs, file_stamp, fingerprint, scene_fingerprint
from segbatch.inference.tally import SceneTally, tally_ledger
from segbatch.models.card import bundle_hash, read_card
from segbatch.scenes import SceneRef
from segbatch.scenes.remote import etag

Stamp = tuple[Any, ...]
"""What tells a scene's files apart from later ones of the same name; their tags on the web or in a store last."""

_WHILE_READ = "it changed while it was read; the next run maps it"


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What today's list has.

    Args:
        planned: How the scenes that can be opened are mapped; None where there are none.
        prints: Their fingerprints, by id.
        unreadable: Id to why, of the others.
        todo: Those to map.
        vanished: Ids of scenes in the index that are not in the list, or whose file is gone.
    """

    planned: Plan | None
    prints: Mapping[str, str]
    unreadable: Mapping[str, str]
    todo: tuple[ScenePlan, ...]
    vanished: frozenset[str]


def stamp(ref: SceneRef) -> Stamp:
    """What a scene's files are at present.

    Raises:
        InputError: A server does not tell now.
    """
    files = [ref.image] if ref.label is None else [ref.image, ref.label]
    image, *label = map(etag, files)
    tag = None if image is None else " ".join([image, *(found or "-" for found in label)])
    return *map(file_stamp, files), tag


def is_other_version(known: str | None, tag: str | None) -> bool:
    """Whether tags are of two versions. Where one could not be had, that is no reason to map a scene again."""
    return known is not None and tag is not None and known != tag


def known_index(request: Request) -> Index:
    """The index of the folder; of one that was mapped into without a schedule, as if it had been.

    Raises:
        InputError: The folder holds something else.
    """
    folder = request.folder
    if Index.is_in(folder):
        return Index.load(folder)
    content = folder.read()
    if content.get("evaluation"):
        raise InputError(f"{folder.path} holds an evaluation. Choose another output folder.")
    folder.refuse_foreign()
    known = (content.get("mapping") or {}).get("fingerprint")
    if not known or not RunRecord.is_in(folder):
        return Index()
    whole, scenes = RunRecord.load(folder), []
    tallies = tally_ledger(folder.ledger, whole.blocks, len(whole.classes))
    for record in whole.scenes:
        if record.id not in known["scenes"] or not tallies[record.id].is_whole:
            continue
        image = str(record.image)
        size, modified = file_stamp(image)[1:]
        digest = scene_fingerprint(known, record.id, record.label is not None)
        scenes.append(_entry(record, image, tallies[record.id], digest, (size, modified), known["bundle"], None, None))
    return Index(tuple(scenes))


def conclude(
    request: Request,
    index: Index,
    begun: RunEntry,
    found: Found,
    stamps: Mapping[str, Stamp],
    problems: Sequence[str],
) -> Adoption:
    """What is put in place: scenes that are whole, and what is known of all from now on."""
    staged = RunFolder(request.folder.next)
    classes = len(read_card(request.bundle).classes)
    tallies = tally_ledger(staged.ledger, {scene.id: len(scene.grid) for scene in found.todo}, classes)
    before = {entry.id: entry for entry in index.scenes}
    plans = {scene.id: scene for scene in (found.planned.scenes if found.planned else ())}
    todo, bundle = {scene.id for scene in found.todo}, bundle_hash(request.bundle)
    there = MaskFiles(staged.masks, request.products)
    tried = [ref for ref in request.refs if ref.id in stamps and (ref.id in todo or ref.id in found.unreadable)]
    moved = _moved(tried, stamps)
    adopted, entries, failures = [], {}, {}
    for ref in request.refs:
        plan, why = plans.get(ref.id), found.unreadable.get(ref.id, "")
        entry = before.get(ref.id) or _blank(request, ref, plan)
        if ref.id in todo or why:
            why = why or tallies[ref.id].error or ""
            if ref.id in moved:
                say(f"{ref.id}: {_WHILE_READ}.")
                entry = replace(entry, status="changed", note=_WHILE_READ)
            elif why:
                entry = replace(entry, status="failed", note=why)
            elif is_finished(there, ref.id, request.inference.format, request.products):
                assert plan is not None
                adopted.append(ref.id)
                version = plan.info.size, plan.info.modified
                record, digest = scene_record(request, plan), found.prints[ref.id]
                tag = stamps[ref.id][-1]
                entry = _entry(record, ref.image, tallies[ref.id], digest, version, bundle, begun.number, tag)
            else:
                entry = replace(entry, status="failed", note="its files could not be written")
            if entry.fingerprint is None:
                failures[ref.id] = entry.note
                entry = replace(entry, record=_blank(request, ref, plan).record)
        elif plan is not None:
            tag = stamps[ref.id][-1] or entry.tag
            entry = replace(entry, status="mapped", note="", record=asdict(scene_record(request, plan)), tag=tag)
        entries[ref.id] = entry
    gone = {scene: replace(before[scene], status="vanished", note="") for scene in found.vanished}
    # Of what vanished before it was mapped there is nothing to keep.
    forgotten = [scene for scene, entry in gone.items() if entry.fingerprint is None]
    kept = {**before, **gone, **entries}
    scenes = tuple(entry for scene, entry in kept.items() if scene not in forgotten)
    failed = sum(entry.status == "failed" for entry in entries.values())
    run = replace(
        begun,
        ended=timestamp(time.time()),
        new=sum(scene not in before or before[scene].fingerprint is None for scene in adopted),
        changed=sum(scene in before and before[scene].fingerprint is not None for scene in adopted),
        skipped=len(found.prints) - len(found.todo),
        vanished=sum(before[scene].status != "vanished" for scene in gone if scene not in forgotten),
        failed=failed,
        exit_code=1 if problems else 3 if failed else 0,
    )
    state = "failed" if problems or failed else "done"
    mapping = (
        mapping_section(request, found.planned, state) if found.planned else request.folder.read().get("mapping") or {}
    )
    return Adoption(
        scenes=adopted,
        formats=request.inference.format,
        products=request.products,
        forgotten=forgotten,
        failures=failures,
        index=Index(scenes, index.runs).with_run(run),
        mapping=mapping,
    )


def _moved(refs: Sequence[SceneRef], stamps: Mapping[str, Stamp]) -> set[str]:
    """Ids of scenes whose files are no longer what they were before they were read.

    One whose server does not tell now keeps its mask: the next run compares the tags.
    """
    moved = set()
    for ref, now in zip(refs, attempt_all(stamp, refs), strict=True):
        before = stamps[ref.id]
        if not isinstance(now, InputError) and (now[:-1] != before[:-1] or is_other_version(before[-1], now[-1])):
            moved.add(ref.id)
    return moved


def _entry(
    record: SceneRecord,
    image: str,
    tally: SceneTally,
    fingerprint: str,
    version: tuple[int, int],
    bundle: str,
    run: int | None,
    tag: str | None,
) -> SceneEntry:
    """The entry of a scene that is mapped; ``version`` is its file's size and modification time."""
    pixels = int(tally.class_pixels.sum())
    return SceneEntry(
        id=record.id,
        image=image,
        status="mapped",
        note="",
        fingerprint=fingerprint,
        size=version[0],
        modified=version[1],
        mapped_at=timestamp(tally.ended),
        run=run,
        bundle=bundle,
        km2=None if record.pixel_area_m2 is None else pixels * record.pixel_area_m2 / 1e6,
        seconds=tally.seconds,
        record=asdict(record),
        tag=tag,
    )


def _blank(request: Request, ref: SceneRef, plan: ScenePlan | None) -> SceneEntry:
    """The entry of a scene that was never mapped; its one row in the ledger will say why."""
    if plan is not None:
        record = replace(scene_record(request, plan), blocks=1)
    else:
        mask = mask_path(request.folder.masks, ref.id, request.inference.format).relative_to(request.folder.path)
        record = SceneRecord(ref.id, ref.group, ref.image, ref.label, str(mask), 0, 0, 1, None, ref.pixel_size_um)
    return SceneEntry(ref.id, ref.image, "failed", "", None, -1, -1, "", None, "", None, 0.0, asdict(record))


def whole_record(request: Request, found: Found, index: Index) -> RunRecord:
    """What the report needs to know: of all scenes that have ever been mapped, and of those that failed."""
    scenes = tuple(SceneRecord(**entry.record) for entry in index.scenes)
    if found.planned is not None:
        record = run_record(request, found.planned, costs(found.planned.scenes, found.planned.choice.settings.views))
    elif RunRecord.is_in(request.folder):
        record = RunRecord.load(request.folder)
    else:
        card = read_card(request.bundle)
        labels = replace(request.label_map or card.label_map, classes=card.classes)
        record = RunRecord(request.name, card.classes, labels, (), request.nodata, ())
    pixels = sum(scene.width * scene.height for scene in scenes) / 1e6
    ours = {"scenes": str(len(scenes)), "pixels": f"{pixels:.1f} million"}
    return replace(record, scenes=scenes, facts=tuple((name, ours.get(name, text)) for name, text in record.facts))


def whole_fingerprint(request: Request, planned: Plan) -> dict[str, Any]:
    """What decides the result of all scenes that are listed."""
    return fingerprint(planned.scenes, bundle_hash(request.bundle), planned.label_map, planned.choice.settings)


def mapping_section(request: Request, planned: Plan, state: str) -> dict[str, Any]:
    """The section of run.json."""
    return {
        "state": state,
        "fingerprint": whole_fingerprint(request, planned),
        "bundle": str(request.bundle),
        "chosen": planned.choice.to_json(),
    }
