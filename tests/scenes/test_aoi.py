"""Areas of interest: files in any CRS against shapely, PROJ and GDAL, and masks that no window changes."""

import json
import pickle
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import shapely
from affine import Affine
from hypothesis import assume, given
from hypothesis import strategies as st
from rasterio.features import geometry_mask
from rasterio.warp import transform
from shapely import Geometry, MultiPolygon, Point, Polygon, box

from segbatch.errors import InputError
from segbatch.geometry import Window
from segbatch.scenes.aoi import aoi_in_pixels, read_aoi
from segbatch.scenes.area import SceneArea
from segbatch.scenes.scene import SceneInfo

UTM = "EPSG:26918"
NORTH_UP = Affine(0.6, 0, 323_000, 0, -0.6, 4_310_000)
WIDTH, HEIGHT = 60, 40


def scene(crs: str | None = UTM, transform: Affine = NORTH_UP, width: int = WIDTH, height: int = HEIGHT) -> SceneInfo:
    from rasterio.crs import CRS

    wkt = CRS.from_user_input(crs).to_wkt() if crs else None
    return SceneInfo("scene.tif", width, height, "uint8", ("",), None, None, wkt, transform, -1, -1)


MICROGRAPH = scene(None, Affine.identity())


def geojson(path: Path, geometries: Sequence[Any], **members: Any) -> str:
    """Write geometries (of shapely, or as GeoJSON has them), one a feature."""
    features = [
        {
            "type": "Feature",
            "properties": {},
            "geometry": item.__geo_interface__ if isinstance(item, Geometry) else item,
        }
        for item in geometries
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", **members, "features": features}))
    return str(path)


def named_crs(name: str) -> dict[str, Any]:
    return {"crs": {"type": "name", "properties": {"name": name}}}


def ogr(path: Path, geometries: Sequence[Geometry], crs: str | None, kind: str = "Polygon", **options: Any) -> str:
    """Write geometries with the driver that the path's ending names."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        names = [np.arange(len(geometries))], ["n"]
        wkb = shapely.to_wkb(np.array(geometries, object))
        pyogrio.raw.write(str(path), wkb, *names, geometry_type=kind, crs=crs, **options)
    return str(path)


def on_map(geometry: Geometry, transform: Affine) -> Geometry:
    """From pixels to the units of a scene's CRS."""
    return shapely.transform(geometry, lambda xy: np.array([transform @ tuple(point) for point in xy]))


def in_pixels(*geometries: Geometry) -> SceneArea:
    """An area drawn in pixels, as it comes from a file."""
    return SceneArea(shapely.to_wkb(shapely.union_all(geometries)))


def centres(window: Window) -> tuple[np.ndarray, np.ndarray]:
    rows, cols = np.mgrid[window.slices]
    return cols + 0.5, rows + 0.5


def contained(geometry: Geometry, window: Window) -> np.ndarray:
    return shapely.contains_xy(geometry, *centres(window))


def refusal(path: str, info: SceneInfo | None = None) -> str:
    with pytest.raises(InputError) as caught:
        aoi_in_pixels(read_aoi(path), info or scene())
    message = str(caught.value)
    assert path in message
    assert message.count("\n") <= 1
    return message


# --- masks ---

FIELD = Polygon([(3.2, 2.1), (50.7, 8.3), (41.9, 36.4), (10.1, 30.2)], [[(20, 12), (31.3, 13), (24.4, 25.1)]])
ISLANDS = MultiPolygon([box(2, 2, 7.3, 9.9), box(7.3, 20.2, 30, 38), Polygon([(40, 1), (59, 1), (50, 17.7)])])


@pytest.mark.parametrize("shape", [FIELD, ISLANDS], ids=["with a hole", "of parts"])
def test_mask_is_what_shapely_and_gdal_find_inside(shape: Geometry) -> None:
    whole = Window(0, 0, WIDTH, HEIGHT)
    mask = in_pixels(shape).mask(whole)
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, contained(shape, whole))
    gdal = geometry_mask([shape], (HEIGHT, WIDTH), Affine.identity(), all_touched=False, invert=True)
    np.testing.assert_array_equal(mask, gdal)


# Coordinates that are mostly corners and centres of pixels, where rounding decides.
coordinate = st.one_of(
    st.integers(-4, 100).map(lambda half: half / 2), st.integers(-8, 600).map(lambda n: n / 12), st.floats(-3, 50)
)
corners = st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=9)
windows = st.builds(Window, st.integers(-9, 50), st.integers(-9, 50), st.integers(1, 60), st.integers(1, 60))


def areas_among(geometry: Geometry) -> Geometry:
    """Its polygons, without points and lines."""
    parts = shapely.get_parts(shapely.get_parts([geometry]))
    return shapely.union_all(parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON])


def drawn(outlines: Sequence[Sequence[tuple[float, float]]]) -> Geometry:
    """What outlines go round, in a scene of 48 x 48 pixels."""
    shapes = [areas_among(shapely.make_valid(Polygon(outline))) for outline in outlines]
    return areas_among(shapely.intersection(shapely.union_all(shapes), box(0, 0, 48, 48)))


@given(outlines=st.lists(corners, min_size=1, max_size=3), window=windows)
def test_a_pixel_is_the_same_in_every_window(outlines: list[list[tuple[float, float]]], window: Window) -> None:
    area = in_pixels(drawn(outlines))
    canvas = Window(-10, -10, 130, 130)
    rows, cols = window.relative_to(canvas).slices
    mask = area.mask(window)
    np.testing.assert_array_equal(mask, area.mask(canvas)[rows, cols])
    if mask.any():
        assert area.intersects(window)
    if area.covers(window):
        assert mask.all()


@given(outlines=st.lists(corners, min_size=1, max_size=3))
def test_only_centres_on_an_edge_may_differ_from_shapely(outlines: list[list[tuple[float, float]]]) -> None:
    shape = drawn(outlines)
    window = Window(0, 0, 48, 48)
    differs = in_pixels(shape).mask(window) != contained(shape, window)
    points = shapely.points(*(grid[differs] for grid in centres(window)))
    with np.errstate(divide="ignore"):  # GEOS divides by zero on its way
        assert (shapely.distance(shape.boundary, points) < 1e-9).all()


@given(
    outline=st.lists(st.tuples(st.integers(0, 48), st.integers(0, 48)), min_size=3, max_size=7),
    shift=st.tuples(st.integers(0, 40), st.integers(0, 40)),
)
def test_areas_that_share_edges_share_no_pixel_and_lose_none(
    outline: list[tuple[int, int]], shift: tuple[int, int]
) -> None:
    """With corners on pixel centres, so that edges go through as many centres as they can."""
    corner = np.array(outline) + 0.5
    shape = shapely.make_valid(Polygon(corner), method="structure", keep_collapsed=False)
    rest = shapely.difference(box(-1, -1, 50, 50), shape)
    # Where outlines were cut, an edge of one need not be an edge of the other.
    assume(len(shapely.get_coordinates(rest)) == len(shapely.get_coordinates(shape)) + 5)
    window = Window(*shift, 9, 9)
    assert (in_pixels(shape).mask(window) ^ in_pixels(rest).mask(window)).all()


def test_a_centre_on_an_edge_belongs_to_what_is_right_or_below() -> None:
    mask = in_pixels(box(1.5, 2.5, 4.5, 5.5)).mask(Window(0, 0, 8, 8))
    assert np.argwhere(mask).tolist() == [[row, col] for row in (2, 3, 4) for col in (1, 2, 3)]


@pytest.mark.parametrize("seed", range(4))
def test_rounding_at_centres_on_sloped_edges_is_the_same_in_every_window(seed: int) -> None:
    """Edges go through many centres, but begin and end where no float lies on the line."""
    rng = np.random.default_rng(seed)
    strips = []
    for centre, slope in zip(rng.integers(0, 100, (60, 2)) + 0.5, rng.integers(1, 12, (60, 2)), strict=True):
        start, end = centre - rng.random() * 9 * slope, centre + rng.random() * 9 * slope
        strips.append(Polygon([start, end, end + np.array([1, 0]), start + np.array([1, 0])]))
    area = in_pixels(*strips)
    whole = area.mask(Window(0, 0, 128, 128))
    for col_off in range(0, 118, 2):
        for row_off in (0, 30, 60, 90):
            window = Window(col_off, row_off, 10, 30)
            np.testing.assert_array_equal(area.mask(window), whole[window.slices])


def test_windows_wholly_inside_and_outside() -> None:
    area = in_pixels(box(10, 10, 40, 30), box(50, 10, 55, 30))
    inside, outside, between, across = (
        Window(10, 10, 30, 20), Window(0, 0, 10, 5), Window(41, 10, 8, 8), Window(38, 28, 4, 4)
    )  # fmt: skip
    assert [area.covers(window) for window in (inside, outside, between, across)] == [True, False, False, False]
    assert [area.intersects(window) for window in (inside, outside, between, across)] == [True, False, False, True]
    assert [area.pixels(window) for window in (inside, outside, between, across)] == [600, 0, 0, 4]
    assert area.mask(inside).all()
    assert not area.mask(outside).any()
    assert area.mask(across).sum() == 4


def test_many_edges_in_one_window() -> None:
    """More crossings than are held at once: a comb of teeth as high as the window, each half a pixel of four."""
    teeth = [box(4 * n, 0, 4 * n + 2, 500) for n in range(2500)]
    mask = in_pixels(*teeth).mask(Window(0, 0, 10_000, 500))
    np.testing.assert_array_equal(mask, np.broadcast_to(np.arange(10_000) % 4 < 2, mask.shape))


def test_an_area_travels_and_is_equal_by_content() -> None:
    area, twin, other = in_pixels(FIELD), in_pixels(FIELD), in_pixels(ISLANDS)
    window = Window(0, 0, WIDTH, HEIGHT)
    area.mask(window)
    travelled = pickle.loads(pickle.dumps(area))
    assert travelled == area == twin != other
    assert travelled.digest == area.digest == twin.digest != other.digest
    assert len(pickle.dumps(area)) < 1000
    np.testing.assert_array_equal(travelled.mask(window), area.mask(window))


# --- files ---


def test_every_format_gives_the_same_area(tmp_path: Path) -> None:
    shapes = [on_map(FIELD, NORTH_UP)]
    paths = [
        ogr(tmp_path / "a.gpkg", shapes, UTM),
        ogr(tmp_path / "a.shp", shapes, UTM),
        ogr(tmp_path / "a.fgb", shapes, UTM),
        geojson(tmp_path / "a.geojson", shapes, **named_crs("urn:ogc:def:crs:EPSG::26918")),
    ]
    areas = [aoi_in_pixels(read_aoi(path), scene()) for path in paths]
    assert len({area.digest for area in areas}) == 1
    np.testing.assert_array_equal(areas[0].mask(scene().window), contained(FIELD, scene().window))


def test_features_and_parts_overlap_and_touch(tmp_path: Path) -> None:
    one, two, three = box(5, 5, 20, 20), box(10, 10, 30, 30), box(30, 10, 40, 30)
    several = geojson(tmp_path / "features.geojson", [one, two, None, three])
    # Parts that overlap make a multipolygon invalid, and are no holes.
    parts = geojson(tmp_path / "parts.geojson", [MultiPolygon([one, two, three])])
    areas = [aoi_in_pixels(read_aoi(path), MICROGRAPH) for path in (several, parts)]
    assert areas[0] == areas[1]
    expected = contained(shapely.union_all([one, two, three]), MICROGRAPH.window)
    np.testing.assert_array_equal(areas[0].mask(MICROGRAPH.window), expected)


def test_a_bow_tie_is_both_its_wings(tmp_path: Path) -> None:
    path = geojson(tmp_path / "tie.geojson", [Polygon([(2, 2), (30, 30), (30, 2), (2, 30)])])
    wings = MultiPolygon([Polygon([(2, 2), (16, 16), (2, 30)]), Polygon([(30, 2), (30, 30), (16, 16)])])
    mask = aoi_in_pixels(read_aoi(path), MICROGRAPH).mask(MICROGRAPH.window)
    differs = np.argwhere(mask != contained(wings, MICROGRAPH.window))
    assert all(abs(row - col) == 0 or row + col == 31 for row, col in differs)  # on the wings' edges
    assert mask.sum() > 380


def test_what_an_outline_goes_round_twice_is_inside(tmp_path: Path) -> None:
    loop = [(5, 5), (30, 5), (30, 30), (10, 30), (10, 10), (25, 10), (25, 35), (5, 35), (5, 5)]
    mask = aoi_in_pixels(read_aoi(geojson(tmp_path / "loop.geojson", [Polygon(loop)])), MICROGRAPH).mask(
        MICROGRAPH.window
    )
    assert mask[15, 15]


def test_points_and_heights_beside_polygons_are_left_out(tmp_path: Path) -> None:
    lifted = {"type": "Polygon", "coordinates": [[[*point, 7.5] for point in box(2, 3, 9, 8).exterior.coords]]}
    collection = {"type": "GeometryCollection", "geometries": [Point(1, 1).__geo_interface__, lifted]}
    for features in ([lifted], [Point(30, 30), collection]):
        aoi = read_aoi(geojson(tmp_path / "a.geojson", features))
        assert np.argwhere(aoi_in_pixels(aoi, MICROGRAPH).mask(MICROGRAPH.window)).shape == (35, 2)


def test_outlines_that_are_not_closed_are_closed(tmp_path: Path) -> None:
    open_ended = {"type": "Polygon", "coordinates": [[[2, 3], [9, 3], [9, 8], [2, 8]]]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # GDAL tells too
        aoi = read_aoi(geojson(tmp_path / "a.geojson", [open_ended]))
    assert aoi_in_pixels(aoi, MICROGRAPH).mask(MICROGRAPH.window).sum() == 35


def test_points_beside_a_layer_of_polygons_are_no_second_layer(tmp_path: Path) -> None:
    ogr(tmp_path / "a.gpkg", [Point(1, 1)], UTM, kind="Point", layer="poles")
    path = ogr(tmp_path / "a.gpkg", [on_map(FIELD, NORTH_UP)], UTM, layer="fields", append=True)
    assert not aoi_in_pixels(read_aoi(path), scene()).is_empty


# --- maps ---


def oracle(shape: Geometry, crs: str, info: SceneInfo) -> np.ndarray:
    """Which pixel centres, brought into the polygons' CRS, lie in them."""
    cols, rows = (grid.ravel() for grid in centres(info.window))
    x, y = info.transform @ (cols, rows)
    inside = shapely.contains_xy(shape, *transform(info.crs, crs, x, y))
    return inside.reshape(info.height, info.width)


def near_edges(mask: np.ndarray) -> np.ndarray:
    """Pixels with a neighbour on the other side."""
    padded = np.pad(mask, 1, mode="edge")
    return np.logical_or.reduce(
        [padded[1 + row : 1 + row + mask.shape[0], 1 + col : 1 + col + mask.shape[1]] != mask
         for row in (-1, 0, 1) for col in (-1, 0, 1)]
    )  # fmt: skip


def assert_agrees(area: SceneArea, shape: Geometry, crs: str, info: SceneInfo) -> None:
    """A pixel may differ from the oracle if an edge is within a hair (a fiftieth of a pixel) of its centre."""
    mask, expected = area.mask(info.window), oracle(shape, crs, info)
    assert expected.any()
    assert not expected.all()
    differs = np.argwhere(mask != expected)
    assert len(differs) <= 0.05 * near_edges(expected).sum() + 1
    around = [
        oracle(shape, crs, scene(info.crs, info.transform @ Affine.translation(dx, dy), info.width, info.height))
        for dx, dy in ((0.02, 0), (-0.02, 0), (0, 0.02), (0, -0.02))
    ]
    assert all(any(moved[row, col] != expected[row, col] for moved in around) for row, col in differs)


ROTATED = Affine.translation(323_000, 4_310_000) @ Affine.rotation(33) @ Affine.scale(0.6, -0.8)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "EPSG:32617", "EPSG:5070"])
@pytest.mark.parametrize("placed", [NORTH_UP, ROTATED], ids=["north up", "rotated"])
def test_another_crs_agrees_with_pixel_centres_brought_into_it(tmp_path: Path, crs: str, placed: Affine) -> None:
    info = scene(transform=placed, width=300, height=250)
    shape = on_map(shapely.transform(FIELD, lambda xy: xy * (5, 6)), placed)
    shape = shapely.transform(shape, lambda xy: np.column_stack(transform(UTM, crs, *xy.T)))
    path = ogr(tmp_path / "a.gpkg", [shape], crs)
    assert_agrees(aoi_in_pixels(read_aoi(path), info), shape, crs, info)


def test_long_edges_bend_as_they_do_on_the_map(tmp_path: Path) -> None:
    """A parallel across 100 km of UTM sags by 150 m; the outline has no corner in between."""
    info = scene(transform=Affine(100, 0, 250_000, 0, -100, 4_360_000), width=1000, height=900)
    shape = box(-85, 38.85, -60, 39.1)
    path = geojson(tmp_path / "a.geojson", [shape])
    area = aoi_in_pixels(read_aoi(path), info)
    assert_agrees(area, shape, "EPSG:4326", info)
    first = np.argmax(area.mask(info.window), axis=0)
    assert first[0] - first[500] >= 1 or first[500] - first[0] >= 1
    assert len(area.wkb) < 10_000


def test_the_scenes_own_crs_is_exact_in_a_rotated_scene(tmp_path: Path) -> None:
    info = scene(transform=ROTATED)
    area = aoi_in_pixels(read_aoi(ogr(tmp_path / "a.gpkg", [on_map(FIELD, ROTATED)], UTM)), info)
    np.testing.assert_array_equal(area.mask(info.window), contained(FIELD, info.window))


def test_the_scenes_own_crs_keeps_every_corner(tmp_path: Path) -> None:
    """Also those that are too near each other to matter after reprojecting."""
    fine = shapely.segmentize(Point(30, 20).buffer(15, 2000), 1)
    area = aoi_in_pixels(read_aoi(ogr(tmp_path / "a.gpkg", [on_map(fine, NORTH_UP)], UTM)), scene())
    assert len(shapely.get_coordinates(shapely.from_wkb(area.wkb))) == len(shapely.get_coordinates(fine)) > 8000


def test_the_order_of_features_and_corners_is_no_difference(tmp_path: Path) -> None:
    corners = list(FIELD.exterior.coords)[:-1]
    turned = Polygon([*corners[2:], *corners[:2]], [FIELD.interiors[0].reverse()])
    island = box(52, 30, 58, 38)
    one = aoi_in_pixels(read_aoi(geojson(tmp_path / "a.geojson", [FIELD, island])), MICROGRAPH)
    other = aoi_in_pixels(read_aoi(geojson(tmp_path / "b.geojson", [island, turned])), MICROGRAPH)
    assert one.digest == other.digest


@pytest.mark.parametrize("shape", [box(-180, -90, 180, 90), box(-180, 0, 0, 90)], ids=["world", "quarter"])
def test_an_area_far_larger_than_the_projection_reaches(tmp_path: Path, shape: Geometry) -> None:
    area = aoi_in_pixels(read_aoi(geojson(tmp_path / "a.geojson", [shape])), scene())
    assert area.covers(scene().window)


def test_a_scene_far_larger_than_the_areas_projection_reaches(tmp_path: Path) -> None:
    info = scene("EPSG:4326", Affine(0.25, 0, -180, 0, -0.25, 90), 1440, 720)
    shape = box(150_000, 3_000_000, 1_200_000, 6_000_000)
    area = aoi_in_pixels(read_aoi(ogr(tmp_path / "a.gpkg", [shape], UTM)), info)
    inside = np.argwhere(area.mask(info.window))
    (top, left), (bottom, right) = inside.min(axis=0), inside.max(axis=0)
    assert (90 - bottom / 4, 90 - top / 4) == pytest.approx((27.1, 54.1), abs=0.5)
    assert (left / 4 - 180, right / 4 - 180) == pytest.approx((-80.3, -64.3), abs=0.5)


def test_a_scene_of_the_world_that_the_areas_projection_turns_inside_out(tmp_path: Path) -> None:
    info = scene("EPSG:3857", Affine(100_000, 0, -2e7, 0, -100_000, 2e7), 400, 400)
    shape = box(1_000_000, 1_000_000, 2_400_000, 3_000_000)
    area = aoi_in_pixels(read_aoi(ogr(tmp_path / "a.gpkg", [shape], "EPSG:3035")), info)
    assert_agrees(area, shape, "EPSG:3035", info)


EAST, WEST, ACROSS = box(179.5, 54, 180, 54.18), box(-180, 54, -179, 54.18), box(179.5, 54, 181, 54.18)


@pytest.mark.parametrize("size", [100, 1], ids=["40 km", "400 m"])
@pytest.mark.parametrize("drawn_as", [MultiPolygon([EAST, WEST]), ACROSS], ids=["split", "beyond 180"])
def test_a_scene_across_the_180th_meridian(tmp_path: Path, drawn_as: Geometry, size: int) -> None:
    """Edges bend as finely as in scenes elsewhere: 400 m are not taken for a tour of the world."""
    (x,), (y,) = transform("EPSG:4326", "EPSG:32601", [180], [54.18])
    info = scene("EPSG:32601", Affine(size, 0, x - 200 * size, 0, -size, y + 50 * size), 400, 100)
    area = aoi_in_pixels(read_aoi(geojson(tmp_path / "a.geojson", [drawn_as])), info)
    assert_agrees(area, MultiPolygon([EAST, WEST]), "EPSG:4326", info)


def test_longitudes_from_0_to_360(tmp_path: Path) -> None:
    info = scene("EPSG:4326", Affine(1, 0, 0, 0, -1, 90), 360, 180)
    for path in (
        geojson(tmp_path / "a.geojson", [box(-80, 30, -70, 40)]),
        geojson(tmp_path / "b.geojson", [box(280, 30, 290, 40)]),
    ):
        mask = aoi_in_pixels(read_aoi(path), info).mask(info.window)
        assert mask.sum() == 100
        assert mask[50:60, 280:290].all()


def test_a_cap_and_a_ring_around_the_pole(tmp_path: Path) -> None:
    info = scene("EPSG:3413", Affine(10_000, 0, -3e6, 0, -10_000, 3e6), 600, 600)
    for name, south, north in (("cap", 75, 90), ("ring", 70, 80)):
        path = geojson(tmp_path / f"{name}.geojson", [box(-180, south, 180, north)])
        area = aoi_in_pixels(read_aoi(path), info)
        cols, rows = centres(info.window)
        x, y = info.transform @ (cols.ravel(), rows.ravel())
        latitude = np.array(transform(info.crs, "EPSG:4326", x, y)[1]).reshape(600, 600)
        differs = area.mask(info.window) != ((latitude > south) & (latitude < north))
        assert differs.sum() <= 8, name


def test_an_area_beside_the_scene_is_empty(tmp_path: Path) -> None:
    info = scene()
    for shape in (box(-60, 10, -59, 11), box(120, -40, 121, -39)):
        area = aoi_in_pixels(read_aoi(geojson(tmp_path / "a.geojson", [shape])), info)
        assert area.is_empty
        assert not area.intersects(info.window)
        assert not area.mask(info.window).any()
        assert area.pixels(info.window) == 0
    touching = on_map(box(-10, 0, 0, HEIGHT), NORTH_UP)
    assert aoi_in_pixels(read_aoi(ogr(tmp_path / "a.gpkg", [touching], UTM)), info).is_empty


def test_nothing_beyond_the_scene_is_inside(tmp_path: Path) -> None:
    shape = on_map(box(-50, -50, 200, 200), NORTH_UP)
    area = aoi_in_pixels(read_aoi(ogr(tmp_path / "a.gpkg", [shape], UTM)), scene())
    mask = area.mask(Window(-3, -3, WIDTH + 6, HEIGHT + 6))
    assert mask.sum() == WIDTH * HEIGHT
    assert mask[3:-3, 3:-3].all()


# --- scenes without a map ---


def test_a_scene_without_a_map_takes_pixels(tmp_path: Path) -> None:
    expected = contained(FIELD, MICROGRAPH.window)
    for path in (
        geojson(tmp_path / "qupath.geojson", [FIELD]),
        ogr(tmp_path / "bare.shp", [FIELD], None),
        ogr(tmp_path / "bare.gpkg", [FIELD], None),
    ):
        np.testing.assert_array_equal(aoi_in_pixels(read_aoi(path), MICROGRAPH).mask(MICROGRAPH.window), expected)


def test_a_scene_without_a_map_takes_no_map_coordinates(tmp_path: Path) -> None:
    for path in (
        ogr(tmp_path / "a.gpkg", [FIELD], "EPSG:4326"),
        geojson(tmp_path / "a.geojson", [FIELD], **named_crs("urn:ogc:def:crs:EPSG::26918")),
    ):
        message = refusal(path, MICROGRAPH)
        assert "scene.tif has no map" in message
        assert "as GeoJSON" in message


# --- bad input ---


def test_a_file_that_is_missing_or_no_vector_file(tmp_path: Path) -> None:
    assert "does not exist" in refusal(str(tmp_path / "none.geojson"))
    for name, text in (("cut.geojson", '{"type": "FeatureColl'), ("a.gpkg", "no"), ("a.tif", "II*")):
        (tmp_path / name).write_text(text)
        assert "cannot be read as polygons" in refusal(str(tmp_path / name))
    assert "cannot be read as polygons" in refusal(str(tmp_path))


def test_a_file_without_polygons(tmp_path: Path) -> None:
    line = shapely.LineString([(0, 0), (5, 5)])
    table = tmp_path / "a.csv"
    table.write_text("a,b\n1,2\n")
    assert "only LineString, Point without area" in refusal(geojson(tmp_path / "mixed.geojson", [Point(1, 1), line]))
    assert "holds no polygons, but Point" in refusal(geojson(tmp_path / "points.geojson", [Point(1, 1)]))
    assert "no polygons, but LineString" in refusal(ogr(tmp_path / "lines.shp", [line], UTM, kind="LineString"))
    assert "no polygons, but no geometry" in refusal(str(table))
    assert "holds nothing" in refusal(geojson(tmp_path / "empty.geojson", []))
    flat = {"type": "Polygon", "coordinates": [[[0, 0], [5, 5], [0, 0], [0, 0]]]}
    assert "only Polygon without area" in refusal(geojson(tmp_path / "flat.geojson", [flat]))


def test_several_layers_of_polygons_are_named(tmp_path: Path) -> None:
    for layer in ("fields", "forests"):
        path = ogr(tmp_path / "a.gpkg", [FIELD], UTM, layer=layer, append=layer == "forests")
    assert "(fields, forests)" in refusal(path)


def test_an_area_without_a_crs_for_a_scene_on_a_map(tmp_path: Path) -> None:
    message = refusal(ogr(tmp_path / "a.shp", [FIELD], None))
    assert "has no CRS" in message
    assert ".prj" in message


def test_metres_that_are_said_to_be_degrees(tmp_path: Path) -> None:
    """The commonest mistake with GeoJSON."""
    message = refusal(geojson(tmp_path / "a.geojson", [on_map(FIELD, NORTH_UP)]))
    assert "is in degrees by its CRS" in message
    assert "323002, 4.30998e+06" in message


def test_coordinates_that_are_not_finite(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    shape = shapely.from_wkt("POLYGON ((0 0, 5 0, 5 inf, 0 0))")
    assert "not a finite number" in refusal(ogr(path, [shape], UTM))


def test_what_the_scenes_crs_cannot_express(tmp_path: Path) -> None:
    world = scene("EPSG:3857", Affine(40_000, 0, -2e7, 0, -40_000, 2e7), 1000, 1000)
    cut = ogr(tmp_path / "c.gpkg", [box(-1e6, 1e6, 1e6, 2e6)], "EPSG:3413")
    lon_lat = scene("EPSG:4326", Affine(0.25, 0, -180, 0, -0.25, 90), 1440, 720)
    assert "cannot be brought into the CRS of the scene scene.tif" in refusal(
        ogr(tmp_path / "a.gpkg", [box(-1e9, 0, 1e9, 1e9)], "EPSG:32633"), world
    )
    assert "across the 180th meridian or a pole" in refusal(cut, lon_lat)
    beyond = ogr(tmp_path / "d.gpkg", [box(-1.9e7, 8e6, 1.9e7, 9e6)], "ESRI:54009")
    for _ in range(30):  # GDAL falls silent after a while
        assert "cannot be brought into the CRS" in refusal(beyond, lon_lat)
    nowhere = replace(scene(), crs='LOCAL_CS["unnamed",UNIT["metre",1]]')
    assert len(refusal(ogr(tmp_path / "e.gpkg", [FIELD], UTM), nowhere)) < 400


# --- cost ---


def test_importing_the_module_loads_no_library_of_geometry() -> None:
    code = "import sys, segbatch.scenes.aoi; print({'shapely', 'pyogrio', 'rasterio'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
