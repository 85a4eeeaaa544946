"""Rules that divide labelled scenes."""

from collections.abc import Sequence

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.crs import CRS

from segbatch.errors import InputError
from segbatch.geometry import Window, reach
from segbatch.scenes import SceneInfo, SceneRef
from segbatch.scenes.atlas import Part
from segbatch.scenes.leakage import check_leakage
from segbatch.scenes.split import Division, Rule, divide, draw

UTM18 = CRS.from_epsg(26918).to_wkt()
WORLD = 160
"""Side in pixels of the map on which the tests count."""


def part(image: str, left: int = 0, top: int = 0, size: tuple[int, int] = (100, 80), **ref: object) -> Part:
    """A scene on a map of 1 m pixels, its upper left corner at (left, -top)."""
    on_map = Affine(1, 0, left, 0, -1, -top)
    info = SceneInfo(image, *size, "uint8", ("",), None, None, UTM18, on_map, -1, -1)
    return Part(SceneRef(image, f"/{image}.tif", f"/{image}_label.tif", **ref), info)  # type: ignore[arg-type]


def rule(by: str, share: float = 0.2, seed: int = 0, block: int = 20, buffer: int = 0, tile: int = 1) -> Rule:
    return Rule(by, share, seed, block, buffer, tile)  # type: ignore[arg-type]


def area(part: Part, windows: Sequence[Window]) -> NDArray[np.float64]:
    """Labels everywhere, of two classes."""
    return np.array([[window.area * 0.75, window.area * 0.25] for window in windows])


def names(parts: Sequence[Part]) -> set[str]:
    return {one.ref.image.strip("/").removesuffix(".tif") for one in parts}


counts = st.integers(2, 14).flatmap(
    lambda units: st.lists(st.lists(st.integers(0, 50), min_size=3, max_size=3), min_size=units, max_size=units)
)


@given(counts, st.floats(0.02, 0.98), st.integers(0, 5), st.data())
def test_a_draw_leaves_both_sides_something_and_is_the_same_again(
    counts: list[list[int]], share: float, seed: int, data: st.DataObject
) -> None:
    table = np.array(counts, float)
    strata = data.draw(st.lists(st.integers(0, 3), min_size=len(counts), max_size=len(counts)))
    chosen = draw(table, strata, share, seed)
    assert 0 < chosen.sum() < len(chosen)
    assert np.array_equal(chosen, draw(table, strata, share, seed))
    weights = table.sum(axis=1)
    if (weights > 0).sum() >= 2:
        # No unit that validates does so without labels, and training has labels too.
        assert (weights[chosen] > 0).all()
        assert weights[~chosen].sum() > 0


@given(st.lists(st.integers(1, 60), min_size=2, max_size=9), st.floats(0.05, 0.95), st.integers(0, 3))
def test_no_single_unit_more_or_less_would_be_nearer_to_the_share(weights: list[int], share: float, seed: int) -> None:
    total = np.array(weights, float)
    chosen = draw(total[:, np.newaxis], range(len(weights)), share, seed)
    off = abs(total[chosen].sum() - share * total.sum())
    for unit in range(len(weights)):
        other = chosen.copy()
        other[unit] = True
        if not chosen[unit] and not other.all() and chosen.sum() > 1:
            assert abs(total[other].sum() - share * total.sum()) >= off - 1e-9


def test_what_is_too_large_for_the_share_is_passed_over() -> None:
    weights = np.array([10.0] * 9 + [100.0] * 30)
    assert weights[draw(weights[:, np.newaxis], range(39), 0.01, 0)].tolist() == [10, 10, 10]


def test_blocks_come_from_all_scenes_in_proportion() -> None:
    strata = [0] * 50 + [1] * 50 + [2] * 100
    chosen = draw(np.ones((200, 1)), strata, 0.2, 3)
    assert np.bincount(np.array(strata)[chosen]).tolist() == [10, 10, 20]


def test_a_rare_class_is_on_both_sides_where_that_can_be() -> None:
    table = np.full((40, 2), [100.0, 0.0])
    table[[3, 17], 1] = 1
    for seed in range(10):
        chosen = draw(table, range(40), 0.2, seed)
        assert table[chosen, 1].sum() == table[~chosen, 1].sum() == 1


def test_seeds_draw_differently() -> None:
    draws = {tuple(np.flatnonzero(draw(np.ones((30, 1)), range(30), 0.2, seed))) for seed in range(5)}
    assert len(draws) == 5
    assert all(len(chosen) == 6 for chosen in draws)


def test_scenes_stay_whole_and_together_with_what_overlaps_them() -> None:
    parts = [part("a", window=(0, 0, 50, 80)), part("a", window=(50, 0, 50, 80))]
    parts += [part("b", 300), part("c", 399), part("d", 600), part("e", 700)]
    for seed in range(6):
        found = divide(parts, rule("scene", 0.4, seed), area)
        assert not names(found.train) & names(found.validate)
        assert names(found.train) | names(found.validate) == set("abcde")
        assert ("b" in names(found.train)) == ("c" in names(found.train))  # overlap by a pixel
        assert {*found.train, *found.validate} == set(parts)
        check_leakage(found.train, found.validate, buffer=0, tile=1)
    # d and e adjoin: a buffer joins them.
    apart = {("d" in names(divide(parts, rule("scene", 0.4, seed), area).train)) for seed in range(6)}
    assert apart == {True, False}
    for seed in range(6):
        found = divide(parts, rule("scene", 0.4, seed, buffer=1), area)
        assert ("d" in names(found.train)) == ("e" in names(found.train))


def test_groups_stay_whole() -> None:
    parts = [part(f"{group}{n}", 1000 * n + 200 * k, group=group) for k, group in enumerate("xyzw") for n in range(3)]
    found = divide(parts, rule("group", 0.25), area)
    assert len({one.ref.group for one in found.validate}) == 1
    assert len(found.validate) == 3
    assert not {one.ref.group for one in found.validate} & {one.ref.group for one in found.train}


@pytest.mark.parametrize(
    ("parts", "by", "message"),
    [
        ([part("a")], "scene", "by scene needs two scenes, but there is /a.tif alone: split by block"),
        ([part("a"), part("b", 50)], "scene", "all 2 scenes belong together, for they overlap on the map. Split by"),
        ([part("a", group="x"), part("b", 500)], "group", "/b.tif has no group, which scenes.split by group needs"),
        ([part("a", group="x"), part("b", 500, group="x")], "group", "all scenes are of the group 'x'"),
        ([part("a", size=(29, 29))], "block", "/a.tif is a single block of 20 px. Make scenes.split.block smaller"),
        ([part("a", size=(40, 40))], "block", "leave nothing to learn from"),
    ],
)
def test_a_side_without_anything_is_refused(parts: list[Part], by: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        divide(parts, rule(by, 0.5, buffer=20 if by == "block" else 0), area)
    assert message in str(caught.value)


offsets = st.integers(0, 60)
scenes = st.lists(
    st.tuples(offsets, offsets, st.integers(5, 90), st.integers(5, 90)), min_size=1, max_size=3, unique=True
)


def on_map(parts: Sequence[Part], shown: int | None = None) -> NDArray[np.bool_]:
    """Pixels of the map that parts cover, or that tiles of their windows show."""
    seen = np.zeros((WORLD, WORLD), bool)
    for one in parts:
        window = one.window if shown is None else reach(one.window, shown).intersection(one.info.window)
        assert window is not None
        left, top = int(one.info.transform.c), -int(one.info.transform.f)
        seen[Window(left + window.col_off, top + window.row_off, window.width, window.height).slices] = True
    return seen


def grown(pixels: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """Pixels with fewer than ``by`` pixels between them and any of these."""
    found = pixels.copy()
    for row, col in np.argwhere(pixels):
        found[max(0, row - by) : row + by + 1, max(0, col - by) : col + by + 1] = True
    return found


@given(scenes, st.floats(0.1, 0.6), st.integers(0, 3), st.integers(8, 40), st.integers(0, 9), st.integers(1, 30))
def test_training_keeps_away_from_validation_on_the_map(
    places: list[tuple[int, int, int, int]], share: float, seed: int, block: int, buffer: int, tile: int
) -> None:
    """Whether scenes overlap, adjoin or lie apart: by pixels of the map, and for pixels that tiles show too."""
    parts = [part(str(n), left, top, (width, height)) for n, (left, top, width, height) in enumerate(places)]
    asked = rule("block", share, seed, block, buffer, tile)
    try:
        found = divide(parts, asked, area)
    except InputError:
        return
    assert divide(parts, asked, area) == found
    kept = on_map(found.validate)
    assert not (on_map(found.train) & grown(kept, buffer)).any()
    assert not (on_map(found.train, tile) & kept).any()
    check_leakage(found.train, found.validate, buffer=buffer, tile=tile, by_block=True)
    # All that is far enough away is used, but for what is too narrow for a tile.
    missing = on_map(parts) & ~on_map(found.train) & ~grown(kept, buffer)
    if tile <= 2 * buffer + 1:
        assert not missing.any()


def windows(found: Division) -> list[Window]:
    return [one.window for one in found.train]


def test_training_windows_share_no_pixel_and_have_names_of_their_own() -> None:
    found = divide([part("a", size=(300, 200), group="x")], rule("block", buffer=5, tile=20), area)
    cover = np.zeros((200, 300), int)
    for window in windows(found):
        cover[window.slices] += 1
    assert cover.max() == 1
    for side in (found.train, found.validate):
        assert len({one.ref.id for one in side}) == len(side)
        assert {one.ref.group for one in side} == {"x"}
    share = sum(one.window.area for one in found.validate) / (300 * 200)
    assert share == pytest.approx(0.2, abs=0.005)


def test_blocks_of_two_dates_are_kept_back_together() -> None:
    found = divide([part("a"), part("b")], rule("block"), area)
    by_image = [{one.window for one in found.validate if one.ref.image == image} for image in ("/a.tif", "/b.tif")]
    assert by_image[0] == by_image[1]


def test_blocks_are_of_the_listed_window() -> None:
    found = divide([part("a", window=(10, 20, 60, 40))], rule("block"), area)
    for one in [*found.train, *found.validate]:
        assert Window(10, 20, 60, 40).contains(one.window)
    assert {(one.window.col_off - 10) % 20 for one in found.validate} == {0}
