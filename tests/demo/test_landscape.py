"""The procedural landscape, on places of the demo's own seeds."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import jaccard_score
from sklearn.neighbors import NearestCentroid

from segbatch.classes import IGNORE_INDEX
from segbatch.demo import BANDS, CLASSES, make_landscape
from segbatch.demo.places import PREDICT, TRAIN, VALIDATE

PLACES = (*TRAIN, *VALIDATE, *PREDICT)


@pytest.fixture(scope="module")
def landscapes() -> dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    return {place.name: make_landscape(place.seed, place.width, place.height) for place in PLACES}


def test_shapes_and_types(landscapes):
    for place in PLACES:
        image, label = landscapes[place.name]
        assert image.shape == (len(BANDS), place.height, place.width)
        assert label.shape == (place.height, place.width)
        assert image.dtype == label.dtype == np.uint8


def test_the_same_seed_gives_the_same_place():
    first, second = make_landscape(11, 400, 300), make_landscape(11, 400, 300)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_seeds_differ_in_layout_and_in_colour():
    (image, label), (other_image, other_label) = make_landscape(11, 400, 300), make_landscape(12, 400, 300)
    assert (label != other_label).mean() > 0.2
    assert (image != other_image).mean() > 0.8


@pytest.mark.parametrize("seed", range(20, 32))
@pytest.mark.parametrize(("width", "height"), [(256, 256), (257, 511), (640, 384)])
def test_any_seed_and_size_gives_a_place(seed, width, height):
    image, label = make_landscape(seed, width, height)
    assert image.shape == (4, height, width)
    assert set(np.unique(label)) <= {*range(len(CLASSES)), IGNORE_INDEX}
    assert len(np.unique(label)) >= 4


def test_every_class_has_a_share_of_every_place(landscapes):
    for name, (_, label) in landscapes.items():
        shares = np.bincount(label[label != IGNORE_INDEX], minlength=len(CLASSES)) / (label != IGNORE_INDEX).sum()
        assert len(shares) == len(CLASSES)
        assert shares.min() > 0.01, (name, shares)
        assert shares.max() < 0.65, (name, shares)


def test_label_is_ignored_exactly_where_the_image_has_no_data(landscapes):
    for image, label in landscapes.values():
        invalid = label == IGNORE_INDEX
        # No real pixel has the nodata value in any band, so that "all bands" and "any band" mean the same.
        np.testing.assert_array_equal((image == 0).all(axis=0), invalid)
        np.testing.assert_array_equal((image == 0).any(axis=0), invalid)
        assert 0.02 < invalid.mean() < 0.08


def test_the_swath_ends_in_a_slanted_edge_and_has_holes(landscapes):
    for image, _ in landscapes.values():
        invalid = (image == 0).all(axis=0)
        if not invalid[:, 0].any():
            invalid = invalid[:, ::-1]
        wedge = np.logical_and.accumulate(invalid, axis=1)
        edge = wedge.sum(axis=1)
        assert abs(int(edge[0]) - int(edge[-1])) > 0.02 * invalid.shape[1]
        assert 100 < (invalid & ~wedge).sum() < 5000


@pytest.mark.parametrize("place", TRAIN, ids=lambda place: place.name)
def test_colour_alone_does_not_tell_the_classes(landscapes, place):
    image, label = landscapes[place.name]
    known = label != IGNORE_INDEX
    mapped_image, mapped_label = landscapes[PREDICT[0].name]
    mapped = mapped_label != IGNORE_INDEX
    classifier = NearestCentroid().fit(image[:, known].T.astype(np.float32), label[known])

    own = jaccard_score(label[known], classifier.predict(image[:, known].T.astype(np.float32)), average="macro")
    predicted = classifier.predict(mapped_image[:, mapped].T.astype(np.float32))
    miou = jaccard_score(mapped_label[mapped], predicted, average="macro")

    assert miou < 0.6
    # Colour says something all the same: a place of pure noise would pass the line above.
    assert own > 0.25
