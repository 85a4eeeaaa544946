"""The scenes to learn from and those that validate: opened, split by the rule if there is one, and kept apart."""

import csv
import io
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segbatch.classes import LabelMap
from segbatch.commands.progress import counted, listed, say
from segbatch.commands.scenes import check_alike, check_all, open_role
from segbatch.config import Role, RunConfig, Training
from segbatch.errors import InputError
from segbatch.geometry import Window
from segbatch.redaction import redact
from segbatch.scenes import LabelReader
from segbatch.scenes.atlas import Part
from segbatch.scenes.catalog import WINDOW_COLUMNS, SceneRef, read_table
from segbatch.scenes.leakage import check_leakage
from segbatch.scenes.split import Rule, divide

Labelled = dict[Role, list[Part]]

_BLOCK = 2048
_LOOK, _LOOK_BYTES = 1024, 2**28
"""Largest side in pixels of the shrunken labels by which classes are shared out, and what all of them may take."""

_MOST_NAMES = 8
_COLUMNS = ("image", "label", "group", "pixel_size_um", "role", *WINDOW_COLUMNS)


def open_labelled(config: RunConfig, others: Sequence[Training] = ()) -> Labelled:
    """Open the scenes for training and validation, and say what is for what.

    Args:
        config: The configuration.
        others: Trainings that have the same scenes: their tiles, too, must keep away from what validates.

    Raises:
        InputError: A scene does not pass, a rule leaves one side empty, or training and validation overlap.
    """
    chosen, trainings = config.scenes.split, [config.training, *others]
    tile = max(map(_largest_tile, trainings))
    buffer, by_block = config.scenes.buffer, False
    if chosen is None:
        found: Labelled = {"train": open_role(config, "train"), "validate": open_role(config, "validate")}
    else:
        parts, by_block = open_role(config, "train"), chosen.by == "block"
        if buffer is None:
            buffer = max(training.tile for training in trainings) // 2 if by_block else 0
        rule = Rule(chosen.by, chosen.validate_, chosen.seed, chosen.block or _BLOCK, buffer, tile)
        counter = label_counter(parts, config.label_map())
        division = divide(parts, rule, counter)
        found = {"train": division.train, "validate": division.validate}
    check_alike(config, [*found["train"], *found["validate"]])
    check_tile(config.training.tile, [part.window for part in found["train"]])
    warnings = check_leakage(found["train"], found["validate"], buffer=buffer, tile=tile, by_block=by_block)
    say(f"Training on {_described(found['train'])}; validating on {_described(found['validate'])}")
    if chosen is not None:
        _say_shares(found, sum(part.window.area for part in parts), counter, config)
    for warning in warnings[:_MOST_NAMES]:
        say(warning)
    if len(warnings) > _MOST_NAMES:
        say(f"... and {len(warnings) - _MOST_NAMES} more such warnings.")
    return found


def check_tile(tile: int, windows: Sequence[Window]) -> None:
    """At least one scene holds a whole tile; what is missing of others is filled with nothing.

    Raises:
        InputError: None does.
    """
    largest = max(windows, key=lambda window: min(window.width, window.height))
    side = min(largest.width, largest.height)
    if side < tile:
        advice = f"Set training.tile to {side // 32 * 32}." if side >= 32 else "Tiles have 32 pixels a side at least."
        raise InputError(
            f"training.tile {tile} fits into none of the training scenes; the largest is {largest.width} x "
            f"{largest.height} pixels. {advice}"
        )


def split_table(config: RunConfig, scenes: Labelled) -> bytes:
    """The split as a CSV table, which `scenes.train` and `scenes.validate` take by its column ``role``.

    A split by block does not look at groups: with them, who is given the table would find one on both sides.
    """
    grouped = config.scenes.split is None or config.scenes.split.by != "block"
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for role, parts in scenes.items():
        for part in parts:
            ref, window = part.ref, part.window
            place = window.col_off, window.row_off, window.width, window.height
            group = ref.group if grouped else None
            image, label = redact(ref.image), redact(ref.label or "")
            writer.writerow([image, label, group, ref.pixel_size_um, role, *place])
    return text.getvalue().encode()


def warn_of_known(refs: Sequence[SceneRef], split: Path) -> None:
    """Say which labelled scenes a model was trained on: their accuracy says little of others.

    Args:
        refs: Scenes to map.
        split: Table of the model's training; nothing is said where there is none.
    """
    if not split.is_file():
        return
    known: set[str] = set()
    with suppress(InputError):
        known = {ref.image for ref in read_table(str(split))}
    names = [ref.id for ref in refs if ref.label is not None and redact(ref.image) in known]
    if names:
        say(
            f"Warning: the model was trained or validated on {listed(names)}: "
            f"{'its' if len(names) == 1 else 'their'} accuracy will not be that of other scenes."
        )


def label_counter(
    parts: Sequence[Part], label_map: LabelMap
) -> Callable[[Part, Sequence[Window]], NDArray[np.float64]]:
    """A function that tells about how many pixels of each class windows have, by a look at shrunken labels.

    Raises:
        InputError: A label cannot be read.
    """
    distinct = list({(part.ref.image, part.ref.label): part for part in parts}.values())
    side = min(_LOOK, max(64, math.isqrt(_LOOK_BYTES // len(distinct))))

    def look(part: Part) -> NDArray[np.uint8]:
        assert part.ref.label is not None  # open_role refused scenes without
        with LabelReader(part.ref.label, label_map, part.info) as label:
            return label.thumbnail(side)

    shrunken = check_all(look, distinct, lambda part: part.ref)
    looks = {(part.ref.image, part.ref.label): ids for part, ids in zip(distinct, shrunken, strict=True)}

    def count(part: Part, windows: Sequence[Window]) -> NDArray[np.float64]:
        ids = looks[part.ref.image, part.ref.label]
        down, right = ids.shape[0] / part.info.height, ids.shape[1] / part.info.width
        found = np.zeros((len(windows), label_map.num_classes))
        for number, window in enumerate(windows):
            rows = slice(int(window.row_off * down), max(int(window.row_off * down) + 1, int(window.row_end * down)))
            cols = slice(int(window.col_off * right), max(int(window.col_off * right) + 1, int(window.col_end * right)))
            seen = ids[rows, cols]
            shares = np.bincount(seen.ravel(), minlength=256)[: label_map.num_classes] / seen.size
            found[number] = shares * window.area
        return found

    return count


def _largest_tile(training: Training) -> int:
    """Pixels a side that training cuts at most."""
    return round(training.tile * training.scale) if training.augment == "full" else training.tile


def _say_shares(
    scenes: Labelled, area: int, count: Callable[[Part, Sequence[Window]], NDArray[np.float64]], config: RunConfig
) -> None:
    """How a rule came out: shares, what of all the ``area`` pixels is left out, and classes that one side lacks."""
    train, validate = (
        np.sum([count(part, [part.window])[0] for part in scenes[role]], axis=0) for role in ("train", "validate")
    )
    total, names = train.sum() + validate.sum(), config.class_table().names
    left = area - sum(part.window.area for parts in scenes.values() for part in parts)
    say(
        f"  validation has {validate.sum() / total if total else 0:.0%} of the labelled pixels"
        + (f"; {_megapixels(left)} around its blocks are left out ({left / area:.0%})" if left else "")
    )
    for missing, here, there in ((train, validate, "trained on"), (validate, train, "validated")):
        gone = [name for name, less, more in zip(names, missing, here, strict=True) if less == 0 and more > 0]
        if gone:
            say(f"  Warning: {listed(gone)} will hardly be {there}. Another scenes.split.seed may share it out better.")


def _described(parts: Sequence[Part]) -> str:
    """What parts are, for people: 4 windows of 2 scenes (24.1 Mpx)."""
    images = list(dict.fromkeys(part.ref.image for part in parts))
    groups = list(dict.fromkeys(part.ref.group for part in parts if part.ref.group is not None))
    whole = all(part.window == part.info.window for part in parts)
    windows = "" if whole else f"{counted(len(parts), 'window')} of "
    of = f" of {listed(groups)}" if groups else ""
    pixels = sum(part.window.area for part in parts)
    return f"{windows}{counted(len(images), 'scene')}{of} ({_megapixels(pixels)})"


def _megapixels(pixels: int) -> str:
    return f"{pixels / 1e6:.{1 if pixels >= 1e6 else 3}f} Mpx"
