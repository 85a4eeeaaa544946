"""Percentiles of histograms against numpy's of all values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from segbatch.training.histogram import count_values, percentiles

WANTED = (0.0, 1.0, 50.0, 99.0, 100.0)


@given(
    st.sampled_from(["uint8", "int8", "uint16", "int16"]).flatmap(
        lambda dtype: arrays.arrays(dtype, st.integers(1, 60), elements=arrays.from_dtype(np.dtype(dtype)))
    ),
    st.integers(0, 60),
)
def test_short_integers_have_numpys_percentiles_whatever_the_parts(values: np.ndarray, cut: int) -> None:
    counts = count_values(values[:cut]) + count_values(values[cut:])
    assert counts.sum() == values.size
    expected = np.percentile(values, WANTED, method="inverted_cdf")
    assert percentiles(counts, values.dtype.name, WANTED) == tuple(expected.tolist())


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint32"])
@pytest.mark.parametrize("spread", [1.0, 1e6])
def test_other_numbers_have_them_to_half_a_percent(dtype: str, spread: float) -> None:
    values = (np.random.default_rng(0).normal(0.3, 1, 20_000) * spread * 1000).astype(np.int64)
    values = np.abs(values) if dtype == "uint32" else values
    typed = values.astype(dtype) / (7 if dtype.startswith("float") else 1)
    typed = typed.astype(dtype)
    found = percentiles(count_values(typed), dtype, WANTED)
    assert found == pytest.approx(np.percentile(typed, WANTED, method="inverted_cdf"), rel=0.004)


def test_zero_and_its_neighbours_are_in_order() -> None:
    values = np.array([-2.0, -1e-30, 0.0, 1e-30, 2.0], np.float32)
    found = percentiles(count_values(values), "float32", (20, 40, 60, 80, 100))
    assert list(found) == sorted(found)
    assert found[2] == pytest.approx(0, abs=1e-38)
