"""Map what is new: what a schedule does with a list of scenes that grows, changes and shrinks."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segbatch.commands.account import remember
from segbatch.commands.adopt import adopt, discard, stage
from segbatch.commands.choose import Choice, choose, int8_path, with_wishes
from segbatch.commands.conclude import (
    Found,
    Stamp,
    conclude,
    is_other_version,
    known_index,
    mapping_section,
    stamp,
    whole_fingerprint,
    whole_record,
)
from segbatch.commands.cost import find_prices
from segbatch.commands.folder import RunFolder
from segbatch.commands.index import Index, RunEntry, SceneEntry, timestamp
from segbatch.commands.lock import hold
from segbatch.commands.plan import Opened, Plan, open_request, sizes
from segbatch.commands.predict import check_weights, map_scenes, quantized
from segbatch.commands.progress import counted, listed, say
from segbatch.commands.record import RunRecord
from segbatch.commands.report import report
from segbatch.commands.request import Request
from segbatch.commands.scenes import attempt_all
from segbatch.commands.split import warn_of_known
from segbatch.commands.usage import metered
from segbatch.commands.workers import Crew, find_crew
from segbatch.errors import InputError, SegbatchError
from segbatch.inference.files import MaskFiles
from segbatch.inference.finish import is_finished
from segbatch.inference.plan import ScenePlan, differences, scene_fingerprint
from segbatch.models.card import bundle_hash, read_card
from segbatch.redaction import redact
from segbatch.scenes.catalog import with_known_ids
from segbatch.storage import is_url, write_whole


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a run of the schedule has come to.

    Args:
        run: Its figures.
        failed: (id, why) of scenes that could not be mapped.
        document: The content of metrics.json; None where the report is what it was.
    """

    run: RunEntry
    failed: tuple[tuple[str, str], ...]
    document: dict[str, Any] | None


def map_new(request: Request) -> Outcome:
    """Map the scenes that are new, and those that are no longer what was mapped.

    Scenes that are mapped already are left as they are; of those that are not listed any more masks and figures stay.
    A scene that cannot be read fails alone and is tried again by the next run.

    Raises:
        FolderInUseError: Another command writes the folder.
        InputError: Bad input, or the folder holds something else.
    """
    folder = request.folder
    folder.create()
    with hold(folder):
        folder.sweep()
        finish_adoption(folder)
        index = known_index(request)
        with _noting(folder, index) as begun:
            return _map_new(request, index, begun)


def finish_adoption(folder: RunFolder) -> None:
    """Put in place what a run has mapped that was killed while it did so."""
    if adopt(folder) is not None:
        report(folder)
        discard(folder)


def _map_new(request: Request, index: Index, begun: RunEntry) -> Outcome:
    folder, clock = request.folder, {"start": time.time()}
    refs = with_known_ids(request.refs, {redact(entry.image): entry.id for entry in index.scenes})
    known = {entry.id for entry in index.scenes}
    # Before anything is read: a file that is still being written is another one afterwards.
    request = replace(request, refs=[ref for ref in refs if ref.id not in known or not _is_gone(ref.image)])
    told = list(zip(request.refs, attempt_all(stamp, request.refs), strict=True))
    stamps = {ref.id: found for ref, found in told if not isinstance(found, InputError)}
    untold = {ref.id: str(found) for ref, found in told if isinstance(found, InputError)}
    with ExitStack() as stack:
        found, crew = _look(request, index, stamps, untold, stack)
        _tell_untagged(found, stamps)
        if not found.todo and not found.unreadable and _says_the_same(index, found, stamps):
            if _reprice(request):
                report(folder, request.refs)
            discard(folder)
            run = replace(begun, ended=timestamp(time.time()), skipped=len(found.prints), exit_code=0)
            index.with_run(run).save(folder)
            why = f"{counted(run.skipped, 'scene')} mapped already" if request.refs else "no scene is listed"
            say(f"{run.ended} {folder.path}: nothing new, {why}.")
            return Outcome(run, (), None)
        index.with_run(begun).save(folder)
        problems: list[str] = []
        if found.todo:
            assert found.planned is not None
            assert crew is not None
            _tell_todo(request, index, found, stamps)
            found = _quantized(request, found, found.planned, crew)
            assert found.planned is not None
            folder.update(
                name=request.name, config=request.config, mapping=mapping_section(request, found.planned, "running")
            )
            warn_of_known([scene.ref for scene in found.todo], RunFolder(request.bundle.parent).split)
            problems = _map(request, found, stamps, crew, clock)
    adoption = conclude(request, index, begun, found, stamps, problems)
    adoption.write(folder, whole_record(request, found, adoption.index))
    adopt(folder)
    document = report(folder, request.refs)
    discard(folder, unfinished=bool(problems))
    if problems:
        raise SegbatchError("\n".join(problems))
    run = adoption.index.runs[-1]
    say(f"{run.ended} {folder.path}, run {run.number}: {run}")
    failed = tuple((entry.id, entry.note) for entry in adoption.index.scenes if entry.status == "failed")
    return Outcome(run, failed, document)


def _look(
    request: Request, index: Index, stamps: Mapping[str, Stamp], untold: Mapping[str, str], stack: ExitStack
) -> tuple[Found, Crew | None]:
    """Open what is listed and find what is to do; also who does it, where there is anything.

    Args:
        request: All that is listed and there.
        index: What is known.
        stamps: What the scenes' files are, by id.
        untold: Id to why, where that could not be told.
        stack: Keeps what works.
    """
    check_weights(request.bundle)
    unreadable = dict(untold)
    opened = open_request(replace(request, refs=[ref for ref in request.refs if ref.id in stamps]), unreadable)
    _check_classes(request)
    vanished = frozenset(entry.id for entry in index.scenes) - {ref.id for ref in request.refs}
    _check_presence(request.folder, index, vanished, bool(request.refs))
    planned, crew = _kept_plan(request, opened), None
    if planned is None and opened.scenes:
        crew = find_crew(request, stack, None, sizes(opened.scenes))
        planned = opened.lay_out(_chosen(request, opened, crew))
    if planned is None:
        return Found(None, {}, unreadable, (), vanished), None
    whole = whole_fingerprint(request, planned)
    prints = {scene.id: scene_fingerprint(whole, scene.id, scene.ref.label is not None) for scene in planned.scenes}
    before = {entry.id: (entry.fingerprint, entry.tag) for entry in index.scenes}

    def is_mapped(scene: ScenePlan) -> bool:
        known, tag = before.get(scene.id, (None, None))
        return known == prints[scene.id] and not is_other_version(tag, stamps[scene.id][-1])

    formats, products = request.inference.format, request.products
    there = MaskFiles(request.folder.masks, products)
    todo = tuple(
        scene for scene in planned.scenes if not is_mapped(scene) or not is_finished(there, scene.id, formats, products)
    )
    if todo and crew is None:
        crew = find_crew(request, stack, planned.choice.use_gpu, sizes(todo))
    return Found(planned, prints, unreadable, todo, vanished), crew


def _check_presence(folder: RunFolder, index: Index, vanished: frozenset[str], others: bool) -> None:
    """Not all scenes at once are gone, as those of a folder that is not mounted, which looks empty.

    Args:
        folder: The run's.
        index: What is known.
        vanished: Ids of scenes in the index that are gone.
        others: Whether any other is listed.

    Raises:
        InputError: They are, and no other is listed.
    """
    present = [entry for entry in index.scenes if entry.fingerprint is not None and entry.status != "vanished"]
    if not present or not vanished.issuperset(entry.id for entry in present):
        return
    gone = (
        f"All that {folder.path} has mapped has gone ({counted(len(present), 'scene')}, as {redact(present[0].image)})"
    )
    if others:
        say(f"Warning: {gone}; other scenes are there.", "warning")
        return
    raise InputError(
        f"{gone}, and no other scene is there: is a folder not mounted? If they were taken away on purpose, leave it "
        "at that: their masks stay, and a run with new scenes goes on."
    )


def _kept_plan(request: Request, opened: Opened) -> Plan | None:
    """The plan by what the first run of this bundle has chosen; None where this is the first."""
    kept = request.folder.read().get("mapping") or {}
    if "chosen" not in kept or kept["fingerprint"]["bundle"] != bundle_hash(request.bundle):
        return None
    choice = Choice.from_json(kept["chosen"])
    if request.inference.precision == "int8" and choice.settings.precision != "int8":
        return None  # its windows have to have one shape, which decides what is chosen otherwise
    return opened.lay_out(with_wishes(choice, request))


def _chosen(request: Request, opened: Opened, crew: Crew) -> Choice:
    choice = choose(request, opened.card, opened.scenes, crew.workers, crew.measure)
    # What is quantized takes windows of one shape, also those of larger scenes that come later.
    return replace(choice, uniform=choice.uniform or choice.settings.precision == "int8")


def _quantized(request: Request, found: Found, planned: Plan, crew: Crew) -> Found:
    """With int8, made of the first run's windows: those of others would make another model each night."""
    if planned.choice.settings.precision != "int8":
        return found
    opened = open_request(replace(request, refs=[scene.ref for scene in found.todo]))
    return replace(found, planned=replace(planned, choice=quantized(opened, crew, planned.choice)))


def _map(request: Request, found: Found, stamps: Mapping[str, Stamp], crew: Crew, clock: dict[str, float]) -> list[str]:
    """Map what is to do, beside what is there.

    Returns:
        Why files could not be written.
    """
    assert found.planned is not None
    versions = {scene.id: f"{found.prints[scene.id]} {stamps[scene.id][-1]}" for scene in found.todo}
    staged = stage(request.folder, versions)
    planned = replace(found.planned, scenes=found.todo)
    beside = replace(request, folder=staged, refs=[scene.ref for scene in found.todo])
    if planned.choice.settings.precision == "int8":
        write_whole(int8_path(beside, planned.choice), int8_path(request, planned.choice).read_bytes())
    with metered(request.folder, "mapping", crew.held, clock["start"]):
        problems, last = map_scenes(beside, planned, crew, clock)
    if not problems:
        remember(beside, planned, crew.workers, last)
    return problems


@contextmanager
def _noting(folder: RunFolder, index: Index) -> Iterator[RunEntry]:
    """The entry of a run that begins; one that ends with an error is noted with it."""
    begun = RunEntry(1 + max((run.number for run in index.runs), default=0), timestamp(time.time()))
    try:
        yield begun
    except BaseException as error:
        code = getattr(error, "exit_code", 130 if isinstance(error, KeyboardInterrupt) else 1)
        if Index.is_in(folder):
            latest = Index.load(folder)
            run = next((run for run in latest.runs if run.number == begun.number), begun)
            latest.with_run(replace(run, ended=timestamp(time.time()), exit_code=code)).save(folder)
        raise


def _tell_todo(request: Request, index: Index, found: Found, stamps: Mapping[str, Stamp]) -> None:
    """Say which scenes are new, and why others are mapped again, before they are."""
    before = {entry.id: entry for entry in index.scenes if entry.fingerprint is not None}
    new = [scene.id for scene in found.todo if scene.id not in before]
    again = [scene for scene in found.todo if scene.id in before]
    changed = [scene.id for scene in again if _has_changed(scene, before[scene.id], stamps[scene.id])]
    same = [scene.id for scene in again if scene.id not in changed]
    if new:
        say(f"New: {listed(new)}")
    causes = _causes(request, found, set(same))
    for scenes, why in (
        (changed, "their files have changed"),
        (same, f"they differ in {' and '.join(causes)}" if causes else "their class masks have gone"),
    ):
        if scenes:
            say(f"{len(scenes)} of {counted(len(before), 'scene')} to be mapped again, as {why}: {listed(scenes)}")
    if found.unreadable:
        say(f"Cannot be mapped: {listed(sorted(found.unreadable))}")


def _has_changed(scene: ScenePlan, known: SceneEntry, now: Stamp) -> bool:
    version = scene.info.size, scene.info.modified
    return version != (known.size, known.modified) or is_other_version(known.tag, now[-1])


def _causes(request: Request, found: Found, scenes: set[str]) -> list[str]:
    """What the run's model or settings differ in from those that have mapped scenes whose files are the same."""
    known = (request.folder.read().get("mapping") or {}).get("fingerprint")
    if not known or not scenes:
        return []
    assert found.planned is not None
    new = whole_fingerprint(request, found.planned)
    for part in ("scenes", "settings"):
        there = scenes & set(known[part])
        for whole in (new, known):
            whole[part] = {scene: digest for scene, digest in whole[part].items() if scene in there}
    return differences(known, new)


def _check_classes(request: Request) -> None:
    """Masks of other classes cannot stand beside those that are mapped now."""
    if not RunRecord.is_in(request.folder):
        return
    known, names = RunRecord.load(request.folder).classes.names, read_card(request.bundle).classes.names
    if known != names:
        raise InputError(
            f"{request.folder.path} was mapped with the classes {', '.join(known)}, and {request.bundle} has "
            f"{', '.join(names)}. Choose another output folder."
        )


def _tell_untagged(found: Found, stamps: Mapping[str, Stamp]) -> None:
    """Say that a new version of a file may not be noticed, where its server lets GDAL read it and tells us nothing."""
    scenes = found.planned.scenes if found.planned else ()
    untagged = [redact(scene.ref.image) for scene in scenes if stamps[scene.id][-1] is None]
    untagged = [image for image in untagged if is_url(image)]
    if untagged:
        say(
            f"{counted(len(untagged), 'scene')} such as {untagged[0]}: the server does not tell versions of files, at "
            "least not with the credentials of the environment. One that is replaced is not mapped again.",
            "warning",
        )


def _says_the_same(index: Index, found: Found, stamps: Mapping[str, Stamp]) -> bool:
    """Whether the index has all scenes as they are now, so that no line of it changes."""
    return all(
        entry.status == ("vanished" if entry.id in found.vanished else "mapped")
        and (entry.tag is not None or entry.id not in stamps or stamps[entry.id][-1] is None)
        for entry in index.scenes
    )


def _reprice(request: Request) -> bool:
    """Note prices that have come, or changed, since what is there was mapped; whether there are such."""
    prices, folder = find_prices(request.config), request.folder
    if prices is None or not RunRecord.is_in(folder) or prices == find_prices(folder.read().get("config") or {}):
        return False
    folder.update(config=request.config)
    return True


def _is_gone(image: str) -> bool:
    """Whether a file is no longer there; of what GDAL alone can reach that shows when it is opened."""
    return os.path.isabs(image) and not image.startswith("/vsi") and not Path(image).exists()
