"""Compare class masks that are there already with labels."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from segbatch.classes import ClassTable, LabelMap
from segbatch.commands.folder import RunFolder
from segbatch.commands.lock import hold
from segbatch.commands.progress import say, tell_standstill
from segbatch.commands.record import RunRecord, SceneRecord
from segbatch.commands.report import report
from segbatch.commands.scenes import check_all
from segbatch.errors import InputError, SegbatchError
from segbatch.geometry import BlockGrid, Lattice, Window
from segbatch.inference.ledger import LedgerRow, LedgerWriter
from segbatch.masks.describe import check_ids, describe_mask, read_mask
from segbatch.redaction import redact
from segbatch.runtime import ray_session
from segbatch.scenes import LabelReader, SceneInfo, SceneRef, check_label
from segbatch.scenes.catalog import resolve, stem, with_unique_ids
from segbatch.storage import remove_folder, remove_tree

_SIDE = 4096
"""Side in pixels of the parts that are compared at once."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a class mask to compare.

    Args:
        ref: The class mask (as image) and its label.
        number: Of the part.
        window: Its pixels.
    """

    ref: SceneRef
    number: int
    window: Window


def evaluate(
    predictions: Sequence[str],
    labels: Sequence[str],
    folder: RunFolder,
    *,
    classes: ClassTable | None,
    label_map: LabelMap | None,
    engine: Literal["ray", "inline"],
    address: str,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Compare class masks with labels and write a report. An earlier evaluation of the same files is done again.

    Args:
        predictions: Class masks: TIFFs and other rasters, or Zarr stores of segbatch.
        labels: One for each, in the same order.
        folder: Where the report goes.
        classes: The class table; None to take the one in the first class mask.
        label_map: From what labels hold to class ids; None where nothing was said of them.
        engine: ray or inline.
        address: Of the Ray cluster.
        overwrite: Throw an evaluation of other files away that the folder holds.

    Returns:
        The content of metrics.json.

    Raises:
        InputError: Bad input, or the folder holds something else.
    """
    if len(predictions) != len(labels):
        raise InputError(f"{len(predictions)} class masks but {len(labels)} labels: give as many, in the same order.")
    table = classes or _read_classes(predictions[0])
    values = label_map or LabelMap.from_names(None, table)
    refs = with_unique_ids(
        [
            SceneRef(id=stem(mask), image=resolve(mask, "."), label=resolve(label, "."))
            for mask, label in zip(predictions, labels, strict=True)
        ]
    )
    infos = _check_all(refs, table, values, has_file=classes is not None)
    folder.create()
    with hold(folder):
        _claim(folder, refs, overwrite)
        return _evaluate(folder, refs, infos, table, values, engine, address)


def _claim(folder: RunFolder, refs: Sequence[SceneRef], overwrite: bool) -> None:
    """Make sure that the folder is free, or holds an evaluation of these files or one that may be thrown away.

    Raises:
        InputError: The folder holds something else.
    """
    content = folder.read()
    if any(content.get(step) for step in ("mapping", "training", "tune")):
        raise InputError(f"{folder.path} holds a run. Choose another folder for the evaluation.")
    folder.refuse_foreign()
    known = content.get("evaluation")
    if known and not overwrite and _pairs(known["predictions"], known["labels"]) != _pairs(*_files(refs)):
        raise InputError(
            f"{folder.path} holds an evaluation of other class masks or labels. Choose another output folder, or give "
            "--overwrite to throw it away."
        )


def _files(refs: Sequence[SceneRef]) -> tuple[list[str], list[str]]:
    """Class masks and labels."""
    return [ref.image for ref in refs], [str(ref.label) for ref in refs]


def _pairs(masks: Sequence[str], labels: Sequence[str]) -> set[tuple[str, ...]]:
    """What is compared with what, as run.json has it."""
    return {tuple(redact(resolve(path, ".")) for path in pair) for pair in zip(masks, labels, strict=True)}


def _evaluate(
    folder: RunFolder,
    refs: Sequence[SceneRef],
    infos: Sequence[SceneInfo],
    table: ClassTable,
    values: LabelMap,
    engine: str,
    address: str,
) -> dict[str, Any]:
    masks, labels = _files(refs)
    folder.update(evaluation={"predictions": masks, "labels": labels})
    remove_folder(folder.ledger)  # or not at all: rows that stay would count
    remove_tree(folder.report)
    grids = [BlockGrid(Lattice(info.width, info.height, _SIDE, _SIDE, 0), 1, 1) for info in infos]
    RunRecord(
        name=f"evaluation {folder.path.absolute().name}",
        classes=table,
        label_map=values,
        scenes=tuple(
            SceneRecord.of(ref, info, image=None, mask=ref.image, blocks=len(grid))
            for ref, info, grid in zip(refs, infos, grids, strict=True)
        ),
        nodata=None,
        facts=(("class masks", str(len(refs))),),
    ).save(folder)
    parts = [
        Part(ref, number, block.owned)
        for ref, grid in zip(refs, grids, strict=True)
        for number, block in enumerate(grid)
    ]
    writer = LedgerWriter(folder.ledger)
    for line in _compare(partial(compare, label_map=values), parts, engine, address):
        writer.append(LedgerRow.from_json(line))
    return report(folder)


def compare(part: Part, label_map: LabelMap) -> str:
    """The ledger row of a part, as JSON; what cannot be read gives a row with an error."""
    started, clock = time.time(), time.perf_counter()
    assert part.ref.label is not None
    try:
        mask = read_mask(part.ref.image, part.window, label_map.num_classes)
        with LabelReader(part.ref.label, label_map, describe_mask(part.ref.image)[0]) as reader:
            label = reader.read(part.window)
    except SegbatchError as problem:
        return LedgerRow.failed(
            part.ref.id, part.number, str(problem), num_classes=label_map.num_classes, started=started
        ).to_json()
    return LedgerRow.of(
        part.ref.id,
        part.number,
        mask,
        label,
        num_classes=label_map.num_classes,
        windows=0,
        started=started,
        seconds={"read": time.perf_counter() - clock},
    ).to_json()


def _compare(function: Any, parts: Sequence[Part], engine: str, address: str) -> Iterator[str]:
    if engine == "inline":
        yield from map(function, parts)
        return
    with ray_session(address):
        from segbatch.inference.pipeline import map_items

        yield from map_items(function, parts, nothing="no part of a scene was compared", tell=tell_standstill)


def _read_classes(path: str) -> ClassTable:
    classes = describe_mask(resolve(path, "."))[1]
    if classes is None:
        raise InputError(f"{path} does not say what its classes are: name a file that does with --classes.")
    return classes


def _check_all(refs: Sequence[SceneRef], table: ClassTable, label_map: LabelMap, has_file: bool) -> list[SceneInfo]:
    """Open all class masks and labels.

    Args:
        refs: The class masks (as images) and their labels.
        table: The class table.
        label_map: From what labels hold to class ids.
        has_file: Whether both are of a file that was given; else of the first class mask.

    Raises:
        InputError: A line for each problem.
    """
    source = "the file of --classes" if has_file else redact(refs[0].image)

    def check(ref: SceneRef) -> SceneInfo:
        info, own = describe_mask(ref.image)
        if own is not None:
            _check_order(ref.image, own, table, source)
        return _check(ref, info, label_map)

    try:
        return check_all(check, refs)
    except InputError as error:
        if "label_values" not in str(error):  # which is no option of the command line
            raise
        where = "the file of --classes" if has_file else "a YAML file with the classes: --classes FILE"
        raise InputError(f"{error}\nlabel_values go into {where}.") from error


def _check_order(mask: str, own: ClassTable, table: ClassTable, source: str) -> None:
    """Refuse a class mask in which a name stands for another id. Names that only one table has may be translations.

    Args:
        mask: The class mask.
        own: Its own class table.
        table: The one that counts.
        source: Where that is from.

    Raises:
        InputError: There is such a name.
    """
    moved = [
        (index, table.names.index(name))
        for index, name in enumerate(own.names)
        if name in table.names and table.names.index(name) != index
    ]
    if moved:
        number = min(moved[0])  # which both tables have
        raise InputError(
            f"Class {number} of the class mask {mask} is {own.names[number]!r}, but {source} calls it "
            f"{table.names[number]!r}: list the classes in the mask's order, which segbatch info shows."
        )


def _check(ref: SceneRef, info: SceneInfo, label_map: LabelMap) -> SceneInfo:
    """Refuse a class mask that is none, or does not go with its label."""
    if len(info.data_bands) != 1:
        raise InputError(f"{ref.image} has {len(info.data_bands)} bands; a class mask has one.")
    if "float" in info.dtype:
        raise InputError(f"{ref.image} holds {info.dtype}; class ids are whole numbers.")
    if info.nodata is not None and 0 <= info.nodata < label_map.num_classes:
        raise InputError(
            f"{ref.image} says that {info.nodata:g} is nodata, but it is a class id too: those pixels would not "
            "count. Class ids begin at 0, and nodata is 255."
        )
    check_ids(ref.image, label_map.num_classes)
    assert ref.label is not None
    if warning := check_label(info, ref.label, label_map):
        say(warning)
    return info
