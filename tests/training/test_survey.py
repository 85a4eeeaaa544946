"""The survey against numpy on the whole arrays."""

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rasterio.features import rasterize

from segbatch.classes import ClassTable, LabelMap
from segbatch.errors import InputError, SceneReadError
from segbatch.geometry import Window
from segbatch.training.survey import (
    BandSums,
    Strip,
    Survey,
    Tally,
    TrainingScene,
    load_survey,
    save_survey,
    strips,
    survey_strip,
)

MakeScene = Callable[..., TrainingScene]
TakeSurvey = Callable[..., Survey]


def random_label(rng: np.random.Generator, shape: tuple[int, int], classes: int = 3) -> NDArray[np.uint8]:
    label = rng.integers(0, classes, shape).astype(np.uint8)
    label[rng.random(shape) < 0.2] = 255
    return label


def test_counts_and_statistics_are_numpys(make_scene: MakeScene, take_survey: TakeSurvey) -> None:
    """Two scenes of different sizes; one with nodata and a window, one with float pixels' NaN left out."""
    rng = np.random.default_rng(0)
    cell, classes = 32, 3
    images = [rng.integers(1, 60000, (2, 100, 75)).astype(np.uint16), rng.integers(1, 900, (2, 41, 130)).astype("u2")]
    images[0][:, 20:40, 30:60] = 0
    images[1][:, :, 0] = 0
    labels = [random_label(rng, image.shape[1:]) for image in images]
    windows = [(10, 5, 60, 90), (0, 0, 130, 41)]
    scenes = tuple(
        make_scene(f"s{index}", image, label, window, nodata=0)
        for index, (image, label, window) in enumerate(zip(images, labels, windows, strict=True))
    )
    survey = take_survey(scenes, cell, LabelMap(classes))

    pixels, ids = [], []
    for image, label, window in zip(images, labels, windows, strict=True):
        part = Window(*window).slices
        valid = (image != 0).any(axis=0)[part]
        pixels.append(image[:, part[0], part[1]][:, valid].astype(np.float64))
        ids.append(np.where(valid, label[part], 255))
    together = np.concatenate(pixels, axis=1)
    assert survey.mean == pytest.approx(together.mean(axis=1), rel=1e-12)
    assert survey.std == pytest.approx(together.std(axis=1), rel=1e-9)
    expected = np.percentile(together, [1, 50, 99], axis=1, method="inverted_cdf").T
    assert survey.percentiles == tuple(map(tuple, expected.tolist()))
    for grid, found in zip(survey.cells, ids, strict=True):
        assert grid.shape == (-(-found.shape[0] // cell), -(-found.shape[1] // cell), classes)
        for row, col, class_id in np.ndindex(grid.shape):
            inside = found[row * cell : (row + 1) * cell, col * cell : (col + 1) * cell]
            assert grid[row, col, class_id] == np.count_nonzero(inside == class_id)
    assert survey.class_pixels.tolist() == [sum(np.count_nonzero(found == c) for found in ids) for c in range(classes)]
    with_class = [[cell for grid in survey.cells for row in grid for cell in row if cell[c]] for c in range(classes)]
    assert survey.shared_pixels.tolist() == [sum(int(cell.sum()) for cell in cells) for cells in with_class]


def test_pixels_that_are_no_numbers_count_nowhere(make_scene: MakeScene, take_survey: TakeSurvey) -> None:
    rng = np.random.default_rng(1)
    image = rng.normal(5, 2, (2, 40, 40)).astype(np.float32)
    image[0, :10] = np.nan
    image[1, 10:20] = np.inf
    label = random_label(rng, (40, 40))
    survey = take_survey((make_scene("nan", image, label),), 16, LabelMap(3))
    real = image[:, 20:].reshape(2, -1).astype(np.float64)
    assert survey.mean == pytest.approx(real.mean(axis=1), rel=1e-9)
    assert survey.std == pytest.approx(real.std(axis=1), rel=1e-9)
    assert survey.class_pixels.sum() == np.count_nonzero(label[20:] != 255)


def test_only_the_chosen_bands_in_their_order(make_scene: MakeScene, take_survey: TakeSurvey) -> None:
    image = np.stack([np.full((32, 32), value, np.uint8) for value in (10, 20, 30)])
    scene = make_scene("bands", image, np.zeros((32, 32), np.uint8), bands=(3, 1))
    assert take_survey((scene,), 32, LabelMap(2)).mean == (30.0, 10.0)


def test_the_order_of_arrival_does_not_matter_to_the_last_bit(make_scene: MakeScene) -> None:
    rng = np.random.default_rng(2)
    scenes = tuple(
        make_scene(f"o{index}", rng.normal(1e4, 1, (1, 64, 48)), random_label(rng, (64, 48))) for index in range(2)
    )
    parts = [survey_strip(scenes[index], index, row, 16, LabelMap(3)) for index, row in strips(scenes, 16)]
    assert len(parts) == 8

    def put_together(parts: Sequence[Strip]) -> Survey:
        tally = Tally(scenes, 16, 3)
        for part in parts:
            tally.add(part)
        return tally.survey()

    reference = put_together(parts)
    for order in itertools.islice(itertools.permutations(parts), 0, 40000, 4001):
        other = put_together(order)
        assert (other.mean, other.std) == (reference.mean, reference.std)
        assert other.percentiles == reference.percentiles
        assert all(np.array_equal(a, b) for a, b in zip(other.cells, reference.cells, strict=True))


def test_a_kept_survey_is_the_same_survey(scene: TrainingScene, take_survey: TakeSurvey, tmp_path: Path) -> None:
    survey = take_survey((scene, scene), 16, LabelMap(2))
    save_survey(survey, tmp_path / "kept" / "survey.npz")
    again = load_survey(tmp_path / "kept" / "survey.npz")
    assert (again.cell, again.mean, again.std, again.percentiles) == (
        survey.cell,
        survey.mean,
        survey.std,
        survey.percentiles,
    )
    assert [grid.tolist() for grid in again.cells] == [grid.tolist() for grid in survey.cells]


def test_strips_cover_each_scene_once(make_scene: MakeScene) -> None:
    sizes = [(33, 40), (32, 200), (1, 1)]
    scenes = tuple(
        make_scene(f"c{index}", np.zeros((1, *size), np.uint8), np.zeros(size, np.uint8))
        for index, size in enumerate(sizes)
    )
    assert list(strips(scenes, 32)) == [(0, 0), (0, 1), (1, 0), (2, 0)]


@pytest.mark.parametrize("value", [0, 7, 60000])
def test_a_constant_band_has_deviation_one(make_scene: MakeScene, take_survey: TakeSurvey, value: int) -> None:
    image = np.full((2, 50, 50), value, np.uint16)
    image[1] = np.arange(50)
    survey = take_survey((make_scene("flat", image, np.zeros((50, 50), np.uint8)),), 16, LabelMap(2))
    assert survey.std[0] == 1
    assert survey.std[1] == pytest.approx(np.arange(50).std())


def test_small_numbers_are_not_taken_for_a_constant_band() -> None:
    """Radiance or backscatter in SI units may vary between 1e-9 and 1e-8."""
    values = np.random.default_rng(3).uniform(1e-9, 1e-8, (1, 1000))
    _, std = BandSums.of(values[:, None], np.ones((1, 1000), bool)).mean_std()
    assert std == pytest.approx(values.std(axis=1), rel=1e-6)


def test_a_constant_band_is_recognised_in_spite_of_rounding() -> None:
    values = np.full((1, 100_003), 0.1)
    mean, std = BandSums.of(values[:, None], np.ones(values.shape, bool)).mean_std()
    assert (mean[0], std) == (pytest.approx(0.1), (1.0,))


@pytest.mark.parametrize(
    ("image", "label", "said"),
    [
        (np.zeros((1, 40, 40), np.uint8), np.zeros((40, 40), np.uint8), "no valid pixel.*nodata"),
        (np.ones((1, 40, 40), np.uint8), np.full((40, 40), 255, np.uint8), "no labelled pixel.*label_values"),
    ],
)
def test_scenes_that_teach_nothing_are_bad_input(
    make_scene: MakeScene, take_survey: TakeSurvey, image: NDArray[Any], label: NDArray[Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        take_survey((make_scene("void", image, label, nodata=0),), 16, LabelMap(2))


def test_labels_outside_the_window_are_not_counted(make_scene: MakeScene, take_survey: TakeSurvey) -> None:
    label = np.zeros((40, 40), np.uint8)
    label[:20] = 1
    scene = make_scene("window", np.ones((1, 40, 40), np.uint8), label, (0, 20, 40, 20))
    assert take_survey((scene,), 16, LabelMap(2)).class_pixels.tolist() == [800, 0]


def test_a_value_without_a_class_is_an_error_of_its_scene(make_scene: MakeScene, tmp_path: Path) -> None:
    label = np.zeros((40, 40), np.uint8)
    label[39, 39] = 9
    scene = make_scene("odd", np.ones((1, 40, 40), np.uint8), label)
    assert survey_strip(scene, 0, 0, 16, LabelMap(2)).cells.sum() == 16 * 40
    with pytest.raises(SceneReadError, match=r"odd_label.tif has values without a class: 9"):
        survey_strip(scene, 0, 2, 16, LabelMap(2))


def test_polygons_are_counted_strip_by_strip(make_scene: MakeScene, tmp_path: Path) -> None:
    """As the raster that GDAL would burn."""
    triangle = [[2.2, 3.1], [60.7, 9.9], [31.4, 92.3], [2.2, 3.1]]
    feature = {
        "type": "Feature",
        "properties": {"kind": "b"},
        "geometry": {"type": "Polygon", "coordinates": [triangle]},
    }
    path = tmp_path / "label.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    image = np.ones((1, 100, 70), np.uint8)
    scene = make_scene("a", image, np.zeros((100, 70), np.uint8))
    label_map = LabelMap.from_names(None, ClassTable.from_items([("a", None), ("b", None)]), background="a")
    expected = rasterize([(feature["geometry"], 1)], (100, 70))
    drawn = replace(scene, label=str(path))
    parts = [survey_strip(drawn, 0, row, 32, label_map) for row in range(4)]
    for row, part in enumerate(parts):
        for col in range(3):
            inside = expected[row * 32 : row * 32 + 32, col * 32 : col * 32 + 32]
            assert part.cells[0, col].tolist() == [np.count_nonzero(inside == index) for index in (0, 1)]
