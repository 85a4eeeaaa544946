"""The confusion matrix against scikit-learn, and its sums."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from segbatch.evaluation import confusion_matrix

IGNORED = 255


def random_pair(seed: int, num_classes: int, size: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """A label and a prediction with ignored and nodata pixels, and with values that are no class."""
    rng = np.random.default_rng(seed)
    values = np.append(np.arange(min(num_classes + 1, 255)), [IGNORED, IGNORED]).astype(np.uint8)
    return rng.choice(values, size), rng.choice(values, size)


@given(st.integers(0, 2**32), st.integers(2, 255))
def test_equals_scikit_learn_where_both_are_classes(seed: int, num_classes: int) -> None:
    label, prediction = random_pair(seed, num_classes)
    counted = (label < num_classes) & (prediction < num_classes)
    expected = np.zeros((num_classes, num_classes), int)
    if counted.any():
        expected = sklearn_metrics.confusion_matrix(label[counted], prediction[counted], labels=np.arange(num_classes))
    got = confusion_matrix(label, prediction, num_classes)
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got, expected)


@given(st.integers(0, 2**32), st.integers(2, 9), st.integers(1, 12))
def test_matrices_of_a_partition_add_up(seed: int, num_classes: int, parts: int) -> None:
    label, prediction = random_pair(seed, num_classes)
    part_of = np.random.default_rng(seed + 1).integers(0, parts, label.size)
    total = sum(
        confusion_matrix(label[part_of == part], prediction[part_of == part], num_classes) for part in range(parts)
    )
    np.testing.assert_array_equal(total, confusion_matrix(label, prediction, num_classes))


def test_rows_are_labels_and_columns_predictions() -> None:
    label = np.array([[0, 0, 1]], np.uint8)
    prediction = np.array([[1, 1, 2]], np.uint8)
    assert confusion_matrix(label, prediction, 3).tolist() == [[0, 2, 0], [0, 0, 1], [0, 0, 0]]


def test_ignored_labels_and_nodata_are_not_counted() -> None:
    label = np.array([0, 255, 1, 255], np.uint8)
    prediction = np.array([0, 1, 255, 255], np.uint8)
    assert confusion_matrix(label, prediction, 2).tolist() == [[1, 0], [0, 0]]


def test_nothing_to_count_gives_zeros() -> None:
    empty = np.zeros((0, 7), np.uint8)
    assert confusion_matrix(empty, empty, 3).tolist() == [[0] * 3] * 3


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"\(4, 6\).*\(6, 4\)"):
        confusion_matrix(np.zeros((4, 6), np.uint8), np.zeros((6, 4), np.uint8), 2)
