"""An artificial seam is found, and where there is none nothing is."""

import math
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from segbatch.bench.seams import (
    borders,
    change_rates,
    disagreement,
    inner,
    near_lines,
    paired_rate,
    seam_rate,
)
from segbatch.classes import NODATA

SIDE, CORE, STEP = 512, 128, 8
LINES = borders(SIDE, CORE), borders(SIDE, CORE)


def blobs(seed: int) -> NDArray[np.uint8]:
    """Three classes in patches of some pixels, without any border of their own."""
    rng = np.random.default_rng(seed)
    field = rng.normal(size=(SIDE, SIDE))
    for axis in (0, 1):
        for _ in range(4):
            field = (np.roll(field, 1, axis) + field + np.roll(field, -1, axis)) / 3
    return np.digitize(field, np.quantile(field, [0.4, 0.7])).astype(np.uint8)


def with_seams(mask: NDArray[np.uint8], share: float, seed: int = 0) -> NDArray[np.uint8]:
    """Every core's first row and column wrong in a share of the pixels."""
    rng = np.random.default_rng(seed)
    wrong = mask.copy()
    for line in LINES[0]:
        hit = rng.random(SIDE) < share
        wrong[line, hit] = (mask[line, hit] + 1) % 3
        hit = rng.random(SIDE) < share
        wrong[hit, line] = (mask[hit, line] + 1) % 3
    return wrong


@pytest.mark.parametrize("seed", range(4))
def test_a_mask_without_seams_has_none(seed: int) -> None:
    found = seam_rate(blobs(seed), LINES, step=STEP)
    assert found is not None
    assert found.lines == 6
    assert found.z is not None
    assert abs(found.z) < 4


@pytest.mark.parametrize("seed", range(4))
def test_an_artificial_seam_is_found(seed: int) -> None:
    found = seam_rate(with_seams(blobs(seed), 0.2), LINES, step=STEP)
    assert found is not None
    assert found.z is not None
    assert found.z > 5
    assert found.at_borders > found.elsewhere + 0.05


def test_a_grid_that_the_model_has_everywhere_is_no_seam() -> None:
    mask = blobs(0)
    mask[::STEP] = (mask[::STEP] + (np.arange(SIDE) % 3 == 0)) % 3
    found = seam_rate(mask, (LINES[0], []), step=STEP)
    assert found is not None
    assert abs(found.z or 0.0) < 4


def test_a_pair_of_masks_tells_of_fainter_seams() -> None:
    truth = blobs(1)
    assert paired_rate(truth, truth, LINES) is not None
    same = paired_rate(truth, truth, LINES)
    assert same is not None
    assert (same.added, same.removed, same.z) == (0, 0, None)
    found = paired_rate(with_seams(truth, 0.02), truth, LINES)
    assert found is not None
    assert found.pairs == 6 * SIDE
    assert found.z is not None
    assert found.z > 3
    assert seam_rate(with_seams(truth, 0.02), LINES, step=STEP).z < 4  # type: ignore[union-attr, operator]


def test_the_same_mistakes_both_ways_are_no_seam() -> None:
    truth = blobs(2)
    found = paired_rate(with_seams(truth, 0.02, seed=1), with_seams(truth, 0.02, seed=2), LINES)
    assert found is not None
    assert found.z is not None
    assert abs(found.z) < 3


@pytest.mark.parametrize("axis", [0, 1])
def test_change_rates_by_hand(axis: Literal[0, 1]) -> None:
    mask = np.array([[0, 0, 1], [0, 1, 1], [NODATA, 1, NODATA]], np.uint8)
    mask = mask if axis == 0 else mask.T.copy()
    rates = change_rates(mask, axis)
    assert math.isnan(rates[0])
    assert rates[1:].tolist() == pytest.approx([1 / 3, 0])  # of three pairs one; of one pair none


def test_nodata_makes_no_seam() -> None:
    mask = blobs(3)
    mask[:, 200:] = NODATA
    found = seam_rate(mask, LINES, step=STEP)
    assert found is not None
    assert found.lines == 4  # of the borders between columns only that at 128 has valid pixels
    assert seam_rate(np.full((SIDE, SIDE), NODATA, np.uint8), LINES, step=STEP) is None
    assert paired_rate(np.full((4, 4), NODATA, np.uint8), np.zeros((4, 4), np.uint8), ([2], [2])) is None


def test_one_core_has_no_borders() -> None:
    assert borders(SIDE, SIDE) == []
    assert seam_rate(blobs(0), ([], []), step=STEP) is None


def test_lines_of_another_kind_are_not_compared_with() -> None:
    mask = with_seams(blobs(0), 0.3)
    blocks = borders(SIDE, 2 * CORE), borders(SIDE, 2 * CORE)
    found = seam_rate(mask, blocks, step=STEP, avoid=LINES)
    assert found is not None
    assert found.lines == 2
    assert found.z is not None
    assert found.z > 5


def test_pixels_near_lines() -> None:
    near = near_lines((10, 12), ([5], [1]), 2)
    assert np.flatnonzero(near[:, -1]).tolist() == [3, 4, 5, 6]
    assert np.flatnonzero(near[0]).tolist() == [0, 1, 2]


def test_disagreement_counts_what_both_know() -> None:
    mask, truth = np.array([[0, 1, 2, NODATA]], np.uint8), np.array([[0, 2, NODATA, 1]], np.uint8)
    assert disagreement(mask, truth) == 0.5
    assert disagreement(mask, truth, np.array([[True, False, True, True]])) == 0
    assert math.isnan(disagreement(mask, truth, np.zeros((1, 4), bool)))


def test_the_inner_part_leaves_half_of_a_small_side() -> None:
    assert inner((1024, 100), 256) == (slice(256, 768), slice(25, 75))
