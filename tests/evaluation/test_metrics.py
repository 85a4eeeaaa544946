"""Metrics against scikit-learn, and the policy for absent classes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics
from sklearn.dummy import DummyClassifier

from segbatch.evaluation import compute_metrics, confusion_matrix, one_class_miou


@given(st.integers(0, 2**32), st.integers(2, 12), st.integers(1, 300))
def test_equals_scikit_learn(seed: int, num_classes: int, size: int) -> None:
    """On random pixels, some of which draw from a few classes only, so that classes are absent."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, rng.integers(1, num_classes + 1), size).astype(np.uint8)
    prediction = rng.integers(0, rng.integers(1, num_classes + 1), size).astype(np.uint8)
    got = compute_metrics(confusion_matrix(label, prediction, num_classes))

    ids = np.arange(num_classes)
    jaccard = sklearn_metrics.jaccard_score(label, prediction, labels=ids, average=None, zero_division=0)
    f1 = sklearn_metrics.f1_score(label, prediction, labels=ids, average=None, zero_division=0)
    precision = sklearn_metrics.precision_score(label, prediction, labels=ids, average=None, zero_division=0)
    recall = sklearn_metrics.recall_score(label, prediction, labels=ids, average=None, zero_division=0)
    labelled, predicted = np.bincount(label, minlength=num_classes), np.bincount(prediction, minlength=num_classes)
    present = labelled + predicted > 0
    for class_id, figures in enumerate(got.classes):
        assert figures.iou == (pytest.approx(jaccard[class_id]) if present[class_id] else None)
        assert figures.dice == (pytest.approx(f1[class_id]) if present[class_id] else None)
        assert figures.precision == (pytest.approx(precision[class_id]) if predicted[class_id] else None)
        assert figures.recall == (pytest.approx(recall[class_id]) if labelled[class_id] else None)
        assert (figures.support, figures.predicted) == (labelled[class_id], predicted[class_id])
    assert got.miou == pytest.approx(jaccard[present].mean())
    assert got.mdice == pytest.approx(f1[present].mean())
    assert got.pixel_accuracy == pytest.approx(sklearn_metrics.accuracy_score(label, prediction))
    assert got.mean_accuracy == pytest.approx(recall[labelled > 0].mean())
    weighted = sklearn_metrics.jaccard_score(label, prediction, average="weighted", zero_division=0)
    assert got.fwiou == pytest.approx(weighted)


@given(st.integers(0, 2**32), st.integers(2, 12), st.integers(1, 300))
def test_one_class_for_every_pixel_gets_what_a_dummy_classifier_gets(seed: int, num_classes: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, num_classes, size).astype(np.uint8)
    dummy = DummyClassifier(strategy="most_frequent").fit(np.zeros((size, 1)), label)
    expected = sklearn_metrics.jaccard_score(label, dummy.predict(np.zeros((size, 1))), average="macro")
    prediction = rng.integers(0, num_classes, size).astype(np.uint8)
    assert one_class_miou(confusion_matrix(label, prediction, num_classes)) == pytest.approx(expected)


def test_a_class_in_neither_has_no_value_and_is_left_out_of_means() -> None:
    got = compute_metrics(np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]]))
    absent = got.classes[2]
    assert (absent.iou, absent.dice, absent.precision, absent.recall) == (None, None, None, None)
    assert got.miou == pytest.approx((6 / 9 + 3 / 6) / 2)
    assert got.mdice == pytest.approx((12 / 15 + 6 / 9) / 2)
    assert got.mean_accuracy == pytest.approx((6 / 8 + 3 / 4) / 2)


def test_a_class_that_is_only_predicted_counts_as_zero() -> None:
    got = compute_metrics(np.array([[6, 0, 2], [0, 4, 0], [0, 0, 0]]))
    spurious = got.classes[2]
    assert (spurious.iou, spurious.dice, spurious.precision, spurious.recall) == (0.0, 0.0, 0.0, None)
    assert got.miou == pytest.approx((6 / 8 + 1 + 0) / 3)
    assert got.mean_accuracy == pytest.approx((6 / 8 + 1) / 2)


def test_a_class_that_is_never_found_counts_as_zero() -> None:
    got = compute_metrics(np.array([[5, 0], [5, 0]]))
    missed = got.classes[1]
    assert (missed.iou, missed.dice, missed.precision, missed.recall) == (0.0, 0.0, None, 0.0)
    assert got.miou == pytest.approx(0.25)


def test_nothing_counted_gives_no_figures_rather_than_nan() -> None:
    got = compute_metrics(np.zeros((3, 3), np.int64))
    assert (got.miou, got.fwiou, got.mdice, got.pixel_accuracy, got.mean_accuracy) == (None,) * 5
    assert all(figures.support == 0 and figures.iou is None for figures in got.classes)
    assert one_class_miou(np.zeros((3, 3), np.int64)) is None


def test_figures_are_plain_numbers_for_json() -> None:
    got = compute_metrics(np.array([[6, 2], [1, 3]]))
    assert {type(value) for value in (got.miou, got.fwiou, got.pixel_accuracy, got.classes[0].iou)} == {float}
    assert type(got.classes[0].support) is int


def test_counts_beyond_32_bits_stay_exact() -> None:
    count = 3 * 2**40
    got = compute_metrics(np.array([[count, 0], [count, count]], np.int64))
    assert got.classes[0].predicted == 2 * count
    assert got.classes[0].iou == 0.5
    assert math.isclose(got.pixel_accuracy or 0, 2 / 3)
