"""Rows of a Ray Dataset give back what was put in."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbatch.inference.rows import SECONDS, mask_to_row, pixels_to_row, row_to_mask, row_to_pixels
from segbatch.inference.stages import BlockMask, BlockPixels

NAMES = ("class_mask", "confidence", "probabilities")

shapes = st.tuples(st.integers(1, 9), st.integers(1, 9))
dtypes = st.sampled_from(["uint8", "int8", "uint16", "int32", "float32", "float64"])
texts = st.text(st.characters(exclude_characters="\0", codec="utf-8"))


def same(found: Any, wanted: Any) -> None:
    """Equal field by field, arrays with their shapes and types."""
    for name in wanted.__dataclass_fields__:
        mine, its = getattr(found, name), getattr(wanted, name)
        assert (mine is None) == (its is None), name
        if isinstance(its, np.ndarray):
            assert (mine.dtype, mine.shape) == (its.dtype, its.shape), name
            np.testing.assert_array_equal(mine, its)
        elif isinstance(its, dict) and name == "arrays":
            assert list(mine) == list(its)
            for key in its:
                np.testing.assert_array_equal(mine[key], its[key])
                assert mine[key].dtype == np.uint8
        else:
            assert mine == its, name


def one_row_each(row: dict[str, Any]) -> None:
    """Ray takes a batch of one row: every column is an array of one element, none with a side of 0."""
    assert all(isinstance(column, np.ndarray) and len(column) == 1 for column in row.values())
    assert all(column.size for column in row.values())


@given(
    shape=shapes,
    dtype=dtypes,
    bands=st.integers(1, 4),
    owned=st.none() | shapes,
    seed=st.integers(0, 99),
    error=st.none() | texts.filter(bool),
)
def test_pixels_come_back(
    shape: tuple[int, int], dtype: str, bands: int, owned: tuple[int, int] | None, seed: int, error: str | None
) -> None:
    rng = np.random.default_rng(seed)
    pixels = BlockPixels(
        scene=3,
        block=2**40,
        values=rng.integers(0, 100, (bands, *shape)).astype(dtype),
        valid=rng.random(shape) > 0.5,
        wanted=None if owned is None else rng.random(owned) > 0.5,
        started=1.7e9 + 1 / 3,
        seconds={"read": 0.1},
        error=error,
    )
    row = pixels_to_row(pixels)
    one_row_each(row)
    found = row_to_pixels(row)
    same(found, pixels)
    assert np.shares_memory(found.values, row["values"])


@pytest.mark.parametrize("wanted", [None, np.zeros((5, 7), bool)])
def test_blocks_without_pixels_come_back(wanted: Any) -> None:
    nothing = np.zeros((1, 0, 0), np.uint16), np.zeros((0, 0), bool)
    pixels = BlockPixels(0, 0, *nothing, wanted, 5.0, {"read": 0.0}, "a.tif is damaged")
    row = pixels_to_row(pixels)
    one_row_each(row)
    same(row_to_pixels(row), pixels)


@given(
    shape=shapes,
    classes=st.integers(2, 5),
    names=st.sampled_from([NAMES[:1], NAMES[:2], NAMES[::2], NAMES]),
    note=texts,
    memory=st.integers(0, 2**40),
    seed=st.integers(0, 99),
)
def test_masks_and_products_come_back(
    shape: tuple[int, int], classes: int, names: tuple[str, ...], note: str, memory: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    sizes = {"class_mask": shape, "confidence": shape, "probabilities": (classes, *shape)}
    mask = BlockMask(
        scene=1,
        block=7,
        arrays={name: rng.integers(0, 255, sizes[name], np.uint8) for name in names},
        windows=12,
        started=1.7e9 + 1 / 3,
        seconds={name: number / 3 for number, name in enumerate(SECONDS)},
        note=note,
        memory=memory,
    )
    row = mask_to_row(mask, names)
    one_row_each(row)
    assert row["fatal"][0] == ""
    found = row_to_mask(row)
    same(found, mask)
    assert all(np.shares_memory(found.arrays[name], row[name]) for name in names)


@pytest.mark.parametrize("names", [NAMES[:1], NAMES])
@pytest.mark.parametrize("fatal", ["", "The bundle is damaged."])
def test_masks_of_nothing_come_back(names: tuple[str, ...], fatal: str) -> None:
    """Their columns are those of any other block."""
    seconds = dict.fromkeys(SECONDS, 0.0)
    nothing = BlockMask(1, 7, {"class_mask": np.zeros((0, 0), np.uint8)}, 0, 2.0, seconds, "a.tif is damaged")
    row = mask_to_row(nothing, names, fatal)
    one_row_each(row)
    same(row_to_mask(row), nothing)
    assert row["fatal"][0] == fatal
    full = {name: np.ones((2, 3), np.uint8) for name in names}
    assert set(row) == set(mask_to_row(BlockMask(1, 7, full, 4, 2.0, seconds), names))


def test_fatal_rows_of_no_arrays_come_back() -> None:
    empty = BlockMask(1, 7, {}, 0, 0.0, dict.fromkeys(SECONDS, 0.0))
    assert list(row_to_mask(mask_to_row(empty, NAMES, "no")).arrays) == ["class_mask"]
