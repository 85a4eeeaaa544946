"""Where parts of scenes lie to each other."""

import os
from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.warp import transform

from segbatch.geometry import Window
from segbatch.scenes import SceneInfo, SceneRef
from segbatch.scenes.atlas import Atlas, Part, components

UTM18, UTM17 = (CRS.from_epsg(code).to_wkt() for code in (26918, 26917))
Place = tuple[int | None, int | None, int | None, int | None]


def part(
    image: str,
    window: Place | None = None,
    *,
    size: tuple[int, int] = (100, 80),
    crs: str | None = None,
    transform: Affine | None = None,
    label: str | None = None,
    group: str | None = None,
) -> Part:
    width, height = size
    info = SceneInfo(image, width, height, "uint8", ("",), None, None, crs, transform or Affine.identity(), -1, -1)
    return Part(SceneRef(Path(image).stem, image, label or f"{image}.label", group, window=window), info)


def grid(left: float, top: float, size: float = 1.0) -> Affine:
    return Affine(size, 0, left, 0, -size, top)


@given(st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))))
def test_components_are_those_of_the_graph(graph: tuple[int, list[tuple[int, int]]]) -> None:
    count, pairs = graph
    linked = np.eye(count, dtype=bool)
    for one, other in pairs:
        linked[one, other] = linked[other, one] = True
    for _ in range(count):
        linked = linked.astype(int) @ linked > 0
    found = components(count, pairs)
    assert np.array_equal(np.equal.outer(found, found), linked)
    assert list(dict.fromkeys(found)) == list(range(max(found) + 1))


def test_an_image_is_one_canvas_by_whatever_name(tmp_path: Path) -> None:
    (tmp_path / "a.tif").touch()
    os.symlink(tmp_path / "a.tif", tmp_path / "b.tif")
    parts = [part(str(tmp_path / name), label=str(tmp_path / f"{name}.l")) for name in ("a.tif", "b.tif", "c.tif")]
    atlas = Atlas(parts)
    assert [atlas.canvas(one) for one in parts] == [0, 0, 1]


def test_images_without_a_map_that_have_one_label_are_one_canvas() -> None:
    """Two stains of a section; but a label on the map may cover many images."""
    plain = [part("a.png", label="l.png"), part("b.png", label="l.png"), part("c.png", label="l.png", size=(9, 9))]
    atlas = Atlas(plain)
    assert [atlas.canvas(one) for one in plain] == [0, 0, 1]
    mapped = [part(name, label="l.tif", crs=UTM18, transform=grid(x, 0)) for name, x in (("a", 0), ("b", 500))]
    assert Atlas(mapped).canvas(mapped[1]) == 1


def test_windows_go_from_canvas_to_canvas_by_the_map() -> None:
    one = part("a.tif", crs=UTM18, transform=grid(5000, 9000))
    other = part("b.tif", crs=UTM18, transform=grid(5090, 9010, 2.0))
    stranger, plain = part("c.tif"), part("d.tif")
    atlas = Atlas([one, other, stranger, plain])
    assert atlas.onto(Window(90, 0, 10, 20), 0, 1) == Window(0, 5, 5, 10)
    assert atlas.onto(Window(91, 1, 1, 1), 0, 1) == Window(0, 5, 1, 1)
    assert atlas.onto(Window(0, 5, 5, 10), 1, 0) == Window(90, 0, 10, 20)
    assert atlas.onto(Window(3, 4, 5, 6), 2, 2) == Window(3, 4, 5, 6)
    assert atlas.onto(Window(3, 4, 5, 6), 2, 3) is None
    assert atlas.onto(Window(3, 4, 5, 6), 2, 0) is None


@given(st.integers(0, 90), st.integers(0, 70), st.integers(1, 40), st.integers(1, 40), st.floats(0.3, 3))
def test_a_window_in_another_crs_covers_its_pixels(col: int, row: int, width: int, height: int, size: float) -> None:
    here = part("a.tif", crs=UTM18, transform=grid(405222, 4053500))
    x, y = transform(CRS.from_wkt(UTM18), CRS.from_wkt(UTM17), [405222], [4053500])
    there = part("b.tif", crs=UTM17, transform=grid(x[0], y[0], size))
    found = Atlas([here, there]).onto(Window(col, row, width, height), 0, 1)
    assert found is not None
    cols, rows = (values.ravel() + 0.5 for values in np.meshgrid(np.arange(width) + col, np.arange(height) + row))
    moved = transform(CRS.from_wkt(UTM18), CRS.from_wkt(UTM17), *(here.info.transform @ (cols, rows)))
    at_col, at_row = ~there.info.transform @ (np.asarray(moved[0]), np.asarray(moved[1]))
    assert (np.floor(at_col) >= found.col_off).all()
    assert (np.floor(at_col) < found.col_end).all()
    assert (np.floor(at_row) >= found.row_off).all()
    assert (np.floor(at_row) < found.row_end).all()


@pytest.mark.parametrize("off", [-1e-9, 0, 1e-9])
def test_neighbours_that_share_an_edge_touch_and_do_not_overlap(off: float) -> None:
    """Also where their transforms are not exact."""
    one = part("a.tif", crs=UTM18, transform=grid(0, 0, 0.3))
    other = part("b.tif", crs=UTM18, transform=grid(100 * 0.3 + off, 0, 0.3))
    atlas = Atlas([one, other])
    assert [meeting.gap for meeting in atlas.encounters([one], [other], 1)] == [0]


@pytest.mark.parametrize("crs", [UTM18, UTM17])
def test_near_is_counted_in_pixels_of_the_second(crs: str) -> None:
    x, y = transform(CRS.from_wkt(UTM18), CRS.from_wkt(crs), [405000 + 100 + 30], [4053500])
    one = part("a.tif", crs=UTM18, transform=grid(405000, 4053500))
    other = part("b.tif", crs=crs, transform=grid(x[0], y[0], 2.0))
    plain = part("c.png")
    near = Atlas([one, other, plain]).near(20)
    assert {(0, 0), (1, 1), (2, 2), (0, 1)} <= near
    assert (1, 0) not in near
    assert not {pair for pair in near if 2 in pair} - {(2, 2)}


def test_the_nearest_windows_of_two_canvases_meet() -> None:
    ones = [part("a.tif", (0, 0, 10, 10)), part("a.tif", (0, 30, 10, 10))]
    others = [part("a.tif", (50, 0, 10, 10)), part("a.tif", (13, 33, 10, 10))]
    (meeting,) = Atlas([*ones, *others]).encounters(ones, others, 0)
    assert (meeting.one, meeting.other, meeting.gap) == (ones[1], others[1], 3)
    # Tiles of 20 px are centred on the windows, and end where the image does.
    (meeting,) = Atlas([*ones, *others]).encounters(ones, others, 0, tile=20)
    assert meeting.gap == -2


def test_two_dates_on_one_grid_are_one_place() -> None:
    one, two = (part(name, crs=UTM18, transform=grid(9, 9)) for name in ("a", "b"))
    moved, plain = part("c", crs=UTM18, transform=grid(12, 9)), part("d")
    atlas = Atlas([one, two, moved, plain])
    window = Window(3, 0, 10, 10)
    assert atlas.place(one, window) == atlas.place(two, window)
    assert atlas.place(moved, Window(0, 0, 10, 10)) == atlas.place(one, window)
    assert atlas.place(moved, window) != atlas.place(one, window)
    assert atlas.place(plain, window) not in {atlas.place(one, window), atlas.place(plain, Window(0, 0, 10, 10))}
