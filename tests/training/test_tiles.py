"""Where tiles are cut, and what is read there."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbatch.classes import IGNORE_INDEX, LabelMap
from segbatch.errors import SceneReadError
from segbatch.geometry import Window, reach
from segbatch.training.survey import Survey, TrainingScene
from segbatch.training.tiles import TilePlace, TileReader, TileSampler

MakeScene = Callable[..., TrainingScene]


def bare_scene(window: Window) -> TrainingScene:
    return TrainingScene("s", "s.tif", "l.tif", (1,), window, None)


def survey_of(cell: int, *cells: np.ndarray) -> Survey:
    return Survey(cell, tuple(np.asarray(grid, np.int64) for grid in cells), (0.0,), (1.0,), ((0.0, 0.0, 0.0),))


def uniform(window: Window, cell: int, classes: int = 2) -> np.ndarray:
    return np.ones((-(-window.height // cell), -(-window.width // cell), classes), np.int64)


def sampler(windows: list[Window], cell: int = 16, balance: float = 0.5, seed: int = 0) -> TileSampler:
    grids = [uniform(window, cell) for window in windows]
    return TileSampler([bare_scene(window) for window in windows], survey_of(cell, *grids), balance, seed)


def test_a_place_depends_on_the_seed_and_the_number_alone() -> None:
    windows = [Window(0, 0, 200, 300), Window(50, 20, 80, 90)]
    first = sampler(windows)
    forward = [first.place(number, 32) for number in range(50)]
    again = sampler(windows)
    assert [again.place(number, 32) for number in reversed(range(50))] == forward[::-1]
    assert len(set(forward)) > 40
    assert [sampler(windows, seed=1).place(number, 32) for number in range(50)] != forward


def test_asking_for_a_place_twice_changes_nothing() -> None:
    one = sampler([Window(0, 0, 200, 300)])
    assert one.place(3, 32) == one.place(3, 32) == one.place(3, 32, one.rng(3))


@given(
    col_off=st.integers(0, 50),
    row_off=st.integers(0, 50),
    width=st.integers(1, 150),
    height=st.integers(1, 150),
    side=st.integers(1, 100),
    cell=st.integers(1, 64),
    number=st.integers(0, 2**40),
)
def test_a_tile_lies_inside_its_window_or_is_centred_on_it(
    col_off: int, row_off: int, width: int, height: int, side: int, cell: int, number: int
) -> None:
    window = Window(col_off, row_off, width, height)
    place = sampler([window], cell).place(number, side)
    assert (place.window.width, place.window.height) == (side, side)
    assert reach(window, side).contains(place.window)  # by which splits know what training will show
    for first, length, start, size in (
        (place.window.col_off, side, col_off, width),
        (place.window.row_off, side, row_off, height),
    ):
        if length <= size:
            assert start <= first
            assert first + length <= start + size
        else:
            before, after = start - first, first + length - (start + size)
            assert before >= 0
            assert after >= 0
            assert abs(before - after) <= 1


def test_a_tile_of_twice_the_cell_covers_the_cell_that_it_was_drawn_for() -> None:
    """Training surveys cells of half a tile: a tile drawn around a class has that class in it."""
    window, cell = Window(7, 3, 400, 336), 16
    counts = np.zeros((21, 25, 2), np.int64)
    counts[13, 17, 1] = 1
    drawn = TileSampler([bare_scene(window)], survey_of(cell, counts), 0.5, 0)
    labelled = Window(7 + 17 * cell, 3 + 13 * cell, cell, cell)
    places = [drawn.place(number, 2 * cell) for number in range(200)]
    assert all(place.window.contains(labelled) for place in places)
    assert len(set(places)) > 100


def test_a_rare_class_is_shown_as_often_as_the_root_of_its_share_says() -> None:
    window, cell = Window(0, 0, 160, 160), 16
    counts = np.zeros((10, 10, 2), np.int64)
    counts[..., 0] = 256
    counts[4, 7] = (0, 256)  # 1 % of the pixels, in one cell
    center = Window(7 * cell, 4 * cell, cell, cell)

    def share(balance: float) -> float:
        drawn = TileSampler([bare_scene(window)], survey_of(cell, counts), balance, 0)
        hits = 0
        for number in range(4000):
            # A tile of one pixel is its own centre.
            hits += center.contains(drawn.place(number, 1).window)
        return hits / 4000

    by_class = 1 / (1 + np.sqrt(99))  # 9.1 %
    assert share(0.0) == pytest.approx(0.01, abs=0.006)
    assert share(1.0) == pytest.approx(by_class, abs=0.02)
    assert share(0.5) == pytest.approx((0.01 + by_class) / 2, abs=0.015)


def test_scenes_are_drawn_in_proportion_to_their_labelled_pixels() -> None:
    windows = [Window(0, 0, 64, 64), Window(0, 0, 64, 64), Window(0, 0, 64, 64)]
    grids = [np.ones((4, 4, 2), np.int64) * weight for weight in (6, 3, 0)]
    drawn = TileSampler([bare_scene(window) for window in windows], survey_of(16, *grids), 0.0, 0)
    found = np.bincount([drawn.place(number, 8).scene for number in range(3000)], minlength=3) / 3000
    assert found == pytest.approx([2 / 3, 1 / 3, 0], abs=0.03)
    assert found[2] == 0


@pytest.mark.parametrize("balance", [0.0, 1.0])
def test_no_tile_is_centred_where_nothing_is_labelled(balance: float) -> None:
    counts = np.zeros((4, 4, 3), np.int64)
    counts[1, 2] = (3, 1, 0)
    counts[3, 0] = (0, 2, 0)
    drawn = TileSampler([bare_scene(Window(0, 0, 64, 64))], survey_of(16, counts), balance, 0)
    cells = set()
    for number in range(300):
        place = drawn.place(number, 1).window
        cells.add((place.row_off // 16, place.col_off // 16))
    assert cells == {(1, 2), (3, 0)}


def coordinates(height: int, width: int) -> np.ndarray:
    """Band 1 holds the row, band 2 the column, each counted from 1."""
    rows, cols = np.mgrid[1 : height + 1, 1 : width + 1]
    return np.stack([rows, cols]).astype(np.uint16)


def test_a_tile_is_the_image_and_the_label_at_its_place(make_scene: MakeScene) -> None:
    label = (np.arange(60 * 70).reshape(60, 70) % 3).astype(np.uint8)
    scene = make_scene("plain", coordinates(60, 70), label)
    with TileReader([scene], LabelMap(3)) as reader:
        tile = reader.read(TilePlace(0, Window(20, 10, 32, 32)))
    assert tile.values.dtype == np.uint16
    assert np.array_equal(tile.values, coordinates(60, 70)[:, 10:42, 20:52])
    assert np.array_equal(tile.label, label[10:42, 20:52])
    assert tile.valid.all()


def test_no_label_leaks_in_from_outside_the_scenes_window(make_scene: MakeScene) -> None:
    """The label is 1 in the window and 2 outside, where the validation might be."""
    window = Window(16, 8, 40, 20)
    label = np.full((64, 64), 2, np.uint8)
    label[window.slices] = 1
    scene = make_scene("strict", coordinates(64, 64), label, (16, 8, 40, 20))
    with TileReader([scene], LabelMap(3)) as reader:
        tile = reader.read(TilePlace(0, Window(10, -4, 48, 48)))
        beside = reader.read(TilePlace(0, Window(0, 40, 16, 16)))
    expected = np.full((48, 48), IGNORE_INDEX, np.uint8)
    expected[12:32, 6:46] = 1
    assert np.array_equal(tile.label, expected)
    assert (beside.label == IGNORE_INDEX).all()


def test_what_is_outside_the_scene_or_invalid_has_no_label(make_scene: MakeScene) -> None:
    image = coordinates(20, 20)
    image[:, 5, 6] = 0
    scene = make_scene("hole", image, np.ones((20, 20), np.uint8), nodata=0)
    with TileReader([scene], LabelMap(2)) as reader:
        tile = reader.read(TilePlace(0, Window(-6, -6, 32, 32)))
    valid = np.zeros((32, 32), bool)
    valid[6:26, 6:26] = True
    valid[11, 12] = False
    assert np.array_equal(tile.valid, valid)
    assert np.array_equal(tile.label, np.where(valid, 1, IGNORE_INDEX))
    assert (tile.values[:, ~valid] == 0).all()


def test_bands_and_label_values_are_mapped(make_scene: MakeScene) -> None:
    scene = make_scene("mapped", coordinates(32, 32), np.full((32, 32), 40, np.uint8), bands=(2, 1))
    with TileReader([scene], LabelMap(2, ((40, 1),))) as reader:
        tile = reader.read(TilePlace(0, Window(0, 0, 8, 8)))
    assert np.array_equal(tile.values, coordinates(32, 32)[::-1, :8, :8])
    assert (tile.label == 1).all()


def test_a_damaged_image_is_an_error_that_names_it(make_scene: MakeScene) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (1, 256, 256)).astype(np.uint8)
    scene = make_scene("torn", noise, np.zeros((256, 256), np.uint8), tiled=True, blockxsize=64, blockysize=64)
    with open(scene.image, "r+b") as file:
        file.truncate(20_000)
    with TileReader([scene], LabelMap(2)) as reader, pytest.raises(SceneReadError, match=r"torn.tif"):
        reader.read(TilePlace(0, Window(192, 192, 64, 64)))
