"""Rules that divide labelled scenes into those to learn from and those that validate."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from segbatch.errors import InputError
from segbatch.geometry import Window, carve, gaps, square_blocks
from segbatch.scenes.atlas import Atlas, Part, components, shown
from segbatch.scenes.catalog import with_unique_ids

_DRAWS = 16
"""Splits that are drawn, to take the one that shares out the classes best."""

CountLabels = Callable[[Part, Sequence[Window]], NDArray[np.float64]]
"""About how many labelled pixels of each class windows of a part's scene have, (windows, classes)."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How to split.

    Args:
        by: What stays together.
        share: Of the labelled pixels, for validation.
        seed: Of the draw.
        block: Side of a block in pixels.
        buffer: Pixels between training and validation.
        tile: Side in pixels of the largest tile that training cuts.
    """

    by: Literal["scene", "group", "block"]
    share: float
    seed: int
    block: int
    buffer: int
    tile: int


@dataclass(frozen=True, slots=True)
class Division:
    """Both sides of a split.

    Args:
        train: Parts to learn from.
        validate: Parts that validate.
    """

    train: list[Part]
    validate: list[Part]


def divide(parts: Sequence[Part], rule: Rule, count_labels: CountLabels) -> Division:
    """Split by a rule. The same parts and rule give the same split.

    Raises:
        InputError: One side would have nothing.
    """
    atlas = Atlas(parts)
    if rule.by == "block":
        return _by_block(parts, atlas, rule, count_labels)
    units = _units(parts, atlas, rule)
    if max(units) == 0:
        raise InputError(_single(parts, atlas, rule))
    counts = np.concatenate([count_labels(part, [part.window]) for part in parts])
    totals = np.zeros((max(units) + 1, counts.shape[1]))
    np.add.at(totals, units, counts)
    chosen = draw(totals, range(len(totals)), rule.share, rule.seed)
    sides: tuple[list[Part], list[Part]] = ([], [])
    for part, unit in zip(parts, units, strict=True):
        sides[int(chosen[unit])].append(part)
    return Division(*sides)


def draw(counts: NDArray[np.float64], strata: Sequence[int], share: float, seed: int) -> NDArray[np.bool_]:
    """Choose which of at least two units validate.

    Units are drawn in proportion from all strata until their labelled pixels come nearest to the share. Of many such
    draws, the one is taken that leaves fewest classes without a unit on either side, and of those the one in which
    the shares of all classes are nearest.

    Args:
        counts: (units, classes) labelled pixels.
        strata: Of each unit, what it is drawn from, such as the scene of a block.
        share: Of the labelled pixels.
        seed: Seed.

    Returns:
        (units,) bool: at least one is True, and one False.
    """
    weights = counts.sum(axis=1)
    if (weights > 0).sum() < 2:  # labels so sparse that a look at them finds none
        weights = np.ones(len(counts))
    stratum = np.asarray(strata)
    totals, members = counts.sum(axis=0), np.bincount(stratum)
    present = totals > 0
    best: tuple[tuple[int, float], NDArray[np.bool_]] | None = None
    for number in range(_DRAWS):
        rng = np.random.default_rng([seed, number])
        shuffled = rng.permutation(len(counts))
        # The n units of a stratum come at (u + 0, 1, ... n - 1) / n, so that each gives its share, or nearly.
        drawn = stratum[shuffled]
        place = (_rank(drawn) + rng.random(len(members))[drawn]) / members[drawn]
        chosen = _fill(weights, shuffled[np.argsort(place, kind="stable")], share * weights.sum())
        taken = counts[chosen].sum(axis=0)[present] / totals[present]
        lacking = int(((taken == 0) | (taken == 1)).sum())
        off = abs(weights[chosen].sum() / weights.sum() - share)
        score = lacking, round(float(off + np.abs(taken - share).sum() / max(1, len(taken))), 9)
        if best is None or score < best[0]:
            best = score, chosen
    assert best is not None
    return best[1]


def _rank(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many equal values come before each."""
    order = np.argsort(values, kind="stable")
    _, first, lengths = np.unique(values[order], return_index=True, return_counts=True)
    ranks = np.empty(len(values), np.int64)
    ranks[order] = np.arange(len(values)) - np.repeat(first, lengths)
    return ranks


def _fill(weights: NDArray[np.float64], order: NDArray[np.int64], wanted: float) -> NDArray[np.bool_]:
    """Take units in order, each that brings the sum nearer to what is wanted; at least one, and not all."""
    chosen = np.zeros(len(weights), bool)
    usable = order[weights[order] > 0]
    lightest = usable[np.argmin(weights[usable])]
    left, spare = wanted, len(usable) - 1
    for unit in usable:
        if spare == 0 or 2 * left <= weights[lightest]:
            break
        if weights[unit] < 2 * left:
            chosen[unit] = True
            left, spare = left - weights[unit], spare - 1
    if not chosen.any():
        chosen[lightest] = True
    return chosen


def _units(parts: Sequence[Part], atlas: Atlas, rule: Rule) -> list[int]:
    """For each part, the number of what it stays together with."""
    first: dict[object, int] = {}
    pairs = []
    for number, part in enumerate(parts):
        pairs.append((first.setdefault(atlas.canvas(part), number), number))
        if rule.by == "group":
            if part.ref.group is None:
                raise InputError(f"{part.ref.image} has no group, which scenes.split by group needs: give it one.")
            pairs.append((first.setdefault(("group", part.ref.group), number), number))
    for one, other, gap in atlas.encounters(parts, parts, rule.buffer):
        if gap < rule.buffer or gap < 0:
            pairs.append((first[atlas.canvas(one)], first[atlas.canvas(other)]))
    return components(len(parts), pairs)


def _single(parts: Sequence[Part], atlas: Atlas, rule: Rule) -> str:
    groups = {part.ref.group for part in parts}
    if rule.by == "group" and len(groups) == 1:
        return f"scenes.split by group needs two groups, but all scenes are of the group {groups.pop()!r}."
    canvases = len({atlas.canvas(part) for part in parts})
    if canvases == 1:
        return f"scenes.split by {rule.by} needs two scenes, but there is {parts[0].ref.image} alone: split by block."
    return (
        f"scenes.split by {rule.by}: all {canvases} scenes belong together, for they overlap"
        + (f", or come within {rule.buffer} px of each other," if rule.buffer else "")
        + " on the map. Split by block."
    )


def _by_block(parts: Sequence[Part], atlas: Atlas, rule: Rule, count_labels: CountLabels) -> Division:
    by_part = [square_blocks(part.window, rule.block) for part in parts]
    blocks = [(number, window) for number, windows in enumerate(by_part) for window in windows]
    # Blocks of one place, as at two dates, are drawn together: what one keeps back the other must not show.
    names: dict[object, int] = {}
    units = [names.setdefault(atlas.place(parts[number], window), len(names)) for number, window in blocks]
    if len(names) < 2:
        raise InputError(
            f"scenes.split by block: {parts[0].ref.image} is a single block of {rule.block} px. "
            "Make scenes.split.block smaller."
        )
    counts = np.concatenate([count_labels(part, windows) for part, windows in zip(parts, by_part, strict=True)])
    totals = np.zeros((len(names), counts.shape[1]))
    np.add.at(totals, units, counts)
    strata = [0] * len(names)
    for (number, _), unit in zip(blocks, units, strict=True):
        strata[unit] = atlas.canvas(parts[number])
    chosen = draw(totals, strata, rule.share, rule.seed)
    kept = [(number, window) for (number, window), unit in zip(blocks, units, strict=True) if chosen[unit]]
    train = _around(parts, kept, atlas, rule)
    if not train:
        raise InputError(
            f"scenes.split by block: blocks of {rule.block} px with {rule.buffer} px around them leave nothing to "
            "learn from. Change scenes.split.block, scenes.split.validate or scenes.buffer."
        )
    return Division(_cut(parts, train), _cut(parts, kept))


def _around(
    parts: Sequence[Part], kept: Sequence[tuple[int, Window]], atlas: Atlas, rule: Rule
) -> list[tuple[int, Window]]:
    """What of the parts is farther than the buffer from the blocks that are kept back, as windows.

    Windows too narrow for a tile whose tiles would show a block are left out.
    """
    by_canvas: defaultdict[int, list[Window]] = defaultdict(list)
    for number, window in kept:
        by_canvas[atlas.canvas(parts[number])].append(window)
    sources: defaultdict[int, list[int]] = defaultdict(list)
    for source, target in sorted(atlas.near(rule.buffer + rule.tile)):
        sources[target].append(source)
    found = []
    for number, part in enumerate(parts):
        canvas = atlas.canvas(part)
        moved = (atlas.onto(window, source, canvas) for source in sources[canvas] for window in by_canvas[source])
        blocks = [window for window in moved if window is not None]
        for window in carve(part.window, [block.buffered(rule.buffer) for block in blocks], rule.tile):
            if not blocks or gaps([shown(window, part.info, rule.tile)], blocks).min() >= 0:
                found.append((number, window))
    return found


def _cut(parts: Sequence[Part], windows: Sequence[tuple[int, Window]]) -> list[Part]:
    refs = [
        replace(parts[number].ref, window=(window.col_off, window.row_off, window.width, window.height))
        for number, window in windows
    ]
    named = with_unique_ids(refs)
    return [Part(ref, parts[number].info) for ref, (number, _) in zip(named, windows, strict=True)]
