"""Labels that are polygons: burned like GDAL burns the whole raster, whatever the window, CRS or way of reading."""

import json
import os
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import shapely
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.warp import transform
from shapely import Geometry, LineString, MultiPolygon, Point, Polygon, box

from segbatch.classes import ClassTable, LabelMap
from segbatch.errors import InputError, SceneReadError
from segbatch.geometry import Window
from segbatch.scenes import LabelReader, SceneInfo, attributes, check_label, vector_labels
from segbatch.scenes.labels import is_vector

UTM = "EPSG:26918"
NORTH_UP = Affine(0.6, 0, 323_000, 0, -0.6, 4_310_000)
ROTATED = Affine.translation(323_000, 4_310_000) @ Affine.rotation(33) @ Affine.scale(0.6, -0.8)
WIDTH, HEIGHT = 70, 50
CLASSES = ClassTable.from_items([("Water", None), ("forest", None), ("town", None)])
BY_NAME = LabelMap.from_names(None, CLASSES)


def scene(crs: str | None = UTM, placed: Affine = NORTH_UP, width: int = WIDTH, height: int = HEIGHT) -> SceneInfo:
    wkt = CRS.from_user_input(crs).to_wkt() if crs else None
    return SceneInfo("scene.tif", width, height, "uint8", ("",), None, None, wkt, placed, -1, -1)


MICROGRAPH = scene(None, Affine.identity())


def geojson(path: Path, features: Sequence[tuple[Geometry | None, dict[str, Any]]], **members: Any) -> str:
    items = [
        {"type": "Feature", "properties": found, "geometry": None if shape is None else shape.__geo_interface__}
        for shape, found in features
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", **members, "features": items}))
    return str(path)


def named(path: Path, shapes: Sequence[tuple[Geometry, str | None]]) -> str:
    """A GeoJSON whose attribute 'kind' says the class."""
    return geojson(path, [(shape, {"kind": kind}) for shape, kind in shapes])


def ogr(path: Path, shapes: Sequence[Geometry], crs: str | None, drawn: str = "Polygon", **columns: Any) -> str:
    """Write geometries and attributes with the driver that the path's ending names."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'crs' was not provided")
        fields = [np.array(values, object if isinstance(values[0], str) else None) for values in columns.values()]
        wkb = shapely.to_wkb(np.array(shapes, object))
        pyogrio.raw.write(str(path), wkb, fields, list(columns), geometry_type=drawn, crs=crs)
    return str(path)


def moved(shape: Geometry, placed: Affine, crs: str | None = None) -> Geometry:
    """From pixels to a map."""
    on_map = shapely.transform(shape, lambda xy: np.array([placed @ tuple(point) for point in xy]))
    return on_map if crs is None else shapely.transform(on_map, lambda xy: np.column_stack(transform(UTM, crs, *xy.T)))


def burned(path: str, info: SceneInfo = MICROGRAPH, label_map: LabelMap = BY_NAME) -> np.ndarray:
    with LabelReader(path, label_map, info) as reader:
        return reader.read(info.window)


def refusal(path: str, info: SceneInfo = MICROGRAPH, label_map: LabelMap = BY_NAME) -> str:
    with pytest.raises(InputError) as caught:
        check_label(info, path, label_map)
    message = str(caught.value)
    assert path in message
    assert message.count("\n") == 0
    return message


def blobs(number: int, seed: int = 0, reach: float = 12) -> list[Polygon]:
    """Stars with holes, all over the scene and beyond its border, no corner on a pixel's centre."""
    rng = np.random.default_rng(seed)
    found = []
    for centre in rng.random((number, 2)) * (WIDTH + 10, HEIGHT + 10) - 5:
        angles = np.sort(rng.random(9)) * 2 * np.pi
        rays = np.column_stack([np.cos(angles), np.sin(angles)]) * (0.4 + 0.6 * rng.random((9, 1))) * reach
        shape = shapely.make_valid(Polygon(centre + rays, [centre + rays * 0.3]), method="structure")
        found += [part for part in shapely.get_parts(shape) if part.geom_type == "Polygon"]
    return found


def oracle(shapes: Sequence[Geometry], ids: Sequence[int], fill: int = 255) -> np.ndarray:
    """What GDAL burns, the smallest last."""
    order = np.argsort([-shape.area for shape in shapes], kind="stable")
    return rasterize([(shapes[i], ids[i]) for i in order], (HEIGHT, WIDTH), fill=fill, dtype="uint8")


SHAPES = blobs(40)
IDS = np.random.default_rng(3).integers(0, 3, len(SHAPES)).tolist()
KINDS = [CLASSES.names[index] for index in IDS]


# --- burning ---


@pytest.mark.parametrize("background", [None, "town"])
def test_polygons_are_burned_as_gdal_burns_the_whole_raster(tmp_path: Path, background: str | None) -> None:
    path = named(tmp_path / "label.geojson", list(zip(SHAPES, KINDS, strict=True)))
    label_map = LabelMap.from_names(None, CLASSES, background=background)
    assert check_label(MICROGRAPH, path, label_map) == ""
    found = burned(path, label_map=label_map)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, oracle(SHAPES, IDS, 255 if background is None else 2))
    assert set(np.unique(found)) == ({0, 1, 2, 255} if background is None else {0, 1, 2})


@pytest.mark.parametrize(
    ("ending", "crs", "placed"),
    [("gpkg", UTM, NORTH_UP), ("shp", UTM, ROTATED), ("fgb", UTM, NORTH_UP), ("shp", None, None), ("gpkg", None, None)],
)
def test_formats_on_the_scene_s_map_and_in_pixels(
    tmp_path: Path, ending: str, crs: str | None, placed: Affine | None
) -> None:
    info = MICROGRAPH if placed is None else scene(placed=placed)
    shapes = SHAPES if placed is None else [moved(shape, placed) for shape in SHAPES]
    path = ogr(tmp_path / f"label.{ending}", shapes, crs, kind=KINDS)
    check_label(info, path, BY_NAME)
    np.testing.assert_array_equal(burned(path, info), oracle(SHAPES, IDS))


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "EPSG:5070"])
@pytest.mark.parametrize("placed", [NORTH_UP, ROTATED], ids=["north up", "rotated"])
@pytest.mark.parametrize("ending", ["geojson", "gpkg"])
def test_another_crs_agrees_with_pixel_centres_brought_into_it(
    tmp_path: Path, crs: str, placed: Affine, ending: str
) -> None:
    if ending == "geojson" and crs != "EPSG:4326":
        pytest.skip("a GeoJSON is in longitude and latitude")
    info = scene(placed=placed)
    shapes = [moved(shape, placed, crs) for shape in SHAPES]
    path = ogr(tmp_path / f"label.{ending}", shapes, crs, kind=KINDS)
    cols, rows = (grid.ravel() + 0.5 for grid in np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT)))
    centres = transform(UTM, crs, *(info.transform @ (cols, rows)))
    expected = np.full(WIDTH * HEIGHT, 255, np.uint8)
    for index in np.argsort([-shape.area for shape in shapes], kind="stable"):
        expected[shapely.contains_xy(shapes[index], *centres)] = IDS[index]
    found = burned(path, info).ravel()
    assert (found != expected).mean() < 0.001  # a centre may lie within a hair of an edge
    assert (found != 255).mean() > 0.5


def test_neighbours_in_another_crs_leave_no_gap_and_share_no_pixel(tmp_path: Path) -> None:
    """A grid of squares that meet: each pixel is burned, and by the order of drawing alone nothing changes."""
    squares = [box(x, y, x + 7.3, y + 7.3) for x in np.arange(-7, 80, 7.3) for y in np.arange(-7, 60, 7.3)]
    kinds = [CLASSES.names[i % 3] for i in range(len(squares))]
    found = []
    for step in (1, -1):
        shapes = [moved(square, NORTH_UP, "EPSG:4326") for square in squares[::step]]
        found.append(burned(ogr(tmp_path / f"from_{step % 3}.gpkg", shapes, "EPSG:4326", kind=kinds[::step]), scene()))
    assert (found[0] != 255).all()
    np.testing.assert_array_equal(*found)


windows = st.tuples(st.integers(0, WIDTH - 1), st.integers(0, HEIGHT - 1)).flatmap(
    lambda at: st.builds(
        Window, st.just(at[0]), st.just(at[1]), st.integers(1, WIDTH - at[0]), st.integers(1, HEIGHT - at[1])
    )
)


@pytest.mark.parametrize("crs", [UTM, "EPSG:4326"])
@pytest.mark.parametrize("ending", ["gpkg", "geojson"])
@pytest.mark.parametrize("most", [0, 10**6], ids=["by window", "at once"])
def test_a_pixel_is_the_same_in_every_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crs: str, ending: str, most: int
) -> None:
    """Also where the corners are pixel centres, and where each window reads only what is near it."""
    rounded = [shapely.transform(shape, lambda xy: np.floor(xy) + 0.5) for shape in blobs(30, 5, 20)]
    shapes = [part for part in SHAPES + rounded if part.is_valid and part.area]
    kinds = [CLASSES.names[i % 3] for i in range(len(shapes))]
    path = ogr(tmp_path / f"label.{ending}", [moved(s, NORTH_UP, crs if crs != UTM else None) for s in shapes],
               crs, kind=kinds)  # fmt: skip
    info = scene()
    monkeypatch.setattr(vector_labels, "_MOST_IN_MEMORY", 10**6)
    whole = burned(path, info)
    monkeypatch.setattr(vector_labels, "_MOST_IN_MEMORY", most)
    with LabelReader(path, BY_NAME, info) as reader:
        np.testing.assert_array_equal(reader.read(info.window), whole)

        @given(window=windows)
        @settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
        def check(window: Window) -> None:
            np.testing.assert_array_equal(reader.read(window), whole[window.slices])

        check()


def test_the_smaller_lies_on_the_larger_and_of_equals_the_later(tmp_path: Path) -> None:
    pond, wood, copse = box(10, 10, 20, 20), box(0, 0, 40, 40), box(15, 10, 25, 20)
    shapes = [(pond, "water"), (wood, "forest"), (copse, "town")]
    found = burned(named(tmp_path / "a.geojson", shapes))
    assert (found[15, 12], found[15, 17], found[15, 22], found[30, 30], found[45, 60]) == (0, 2, 2, 1, 255)
    found = burned(named(tmp_path / "b.geojson", shapes[::-1]))
    assert (found[15, 12], found[15, 17], found[15, 22], found[30, 30], found[45, 60]) == (0, 0, 2, 1, 255)


def test_parts_count_one_by_one(tmp_path: Path) -> None:
    """All lakes as one feature are larger than an island, but the pond on the island is not."""
    lakes = MultiPolygon([box(0, 0, 30, 30), box(40, 0, 70, 50), box(12, 12, 14, 14)])
    found = burned(named(tmp_path / "a.geojson", [(lakes, "water"), (box(10, 10, 20, 20), "forest")]))
    assert (found[5, 5], found[11, 11], found[13, 13], found[40, 50], found[40, 20]) == (0, 1, 0, 0, 255)


def test_holes_show_what_lies_below(tmp_path: Path) -> None:
    ring = Polygon(box(5, 5, 40, 40).exterior, [box(10, 10, 30, 30).exterior])
    found = burned(named(tmp_path / "a.geojson", [(ring, "forest"), (box(0, 0, 60, 45), "town")]))
    assert (found[20, 20], found[7, 7], found[48, 2]) == (2, 1, 255)


def test_broken_outlines_are_repaired(tmp_path: Path) -> None:
    tie = Polygon([(2, 2), (30, 30), (30, 2), (2, 30)])
    loop = [(35, 5), (60, 5), (60, 30), (40, 30), (40, 10), (55, 10), (55, 35), (35, 35), (35, 5)]
    found = burned(named(tmp_path / "a.geojson", [(tie, "water"), (Polygon(loop), "forest")]))
    assert (found[15, 5], found[15, 28], found[5, 15], found[15, 45]) == (0, 0, 255, 1)


def test_a_thumbnail_is_burned_on_coarse_pixels(tmp_path: Path) -> None:
    path = named(tmp_path / "a.geojson", [(box(0, 0, 35, 50), "forest"), (box(35, 0, 70, 25), "town")])
    with LabelReader(path, BY_NAME, MICROGRAPH) as reader:
        small, large = reader.thumbnail(35), reader.thumbnail(500)
    assert (small.shape, large.shape) == ((25, 35), (HEIGHT, WIDTH))
    np.testing.assert_array_equal(large, burned(path))
    np.testing.assert_array_equal(small[:, :17], 1)
    np.testing.assert_array_equal(small[:12, 18:], 2)
    np.testing.assert_array_equal(small[13:, 18:], 255)


# --- which class ---


def test_qupath(tmp_path: Path) -> None:
    """Its classification counts, although names would match, too; what is unclassified is no label."""
    path = geojson(
        tmp_path / "slide.geojson",
        [
            (box(0, 0, 70, 50), {"objectType": "annotation", "name": "town"}),
            (box(2, 2, 40, 40), {"objectType": "annotation", "name": "town",
                                 "classification": {"name": "Forest", "color": [1, 2, 3]}}),
            (box(10, 10, 20, 20), {"objectType": "annotation", "classification": {"name": "Ignore*", "colorRGB": -1}}),
            (Point(5, 5), {"objectType": "annotation", "classification": {"name": "Water", "color": [1, 2, 3]}}),
        ],
    )  # fmt: skip
    assert "'classification' without a class: Ignore*." in refusal(path)
    label_map = LabelMap.from_names({"forest": "forest"}, CLASSES, background="town")
    note = check_label(MICROGRAPH, path, label_map)
    assert note == f"Label {path}: 2 features without area or without classification left out."
    found = burned(path, label_map=label_map)
    assert (found[5, 5], found[15, 15], found[45, 45]) == (1, 255, 2)


def test_the_attribute_is_found_by_its_values(tmp_path: Path) -> None:
    shapes = [box(0, 0, 30, 30), box(30, 0, 60, 30), box(0, 30, 30, 50)]
    columns = {"id": [1, 2, 3], "code": ["01", "2", "9"], "note": ["water", "x", "y"], "area": [1.5, 2.5, 1.0]}
    path = ogr(tmp_path / "a.gpkg", shapes, None, **columns)
    by_text = LabelMap.from_names({"x": "town", "y": "forest", "water": "Water"}, CLASSES)
    assert burned(path, label_map=by_text)[10, 40] == 2
    by_code = LabelMap.from_names({1: "town", 2: "forest", 9: "Water"}, CLASSES)
    assert burned(path, label_map=by_code)[40, 10] == 0  # all codes are known, of the ids only two
    ambiguous = LabelMap.from_names({1: "town", 2: "forest"}, CLASSES)
    message = refusal(path, label_map=ambiguous)
    assert "several attributes" in message
    assert "id (1, 2, 3); code (01, 2, 9); " in message
    assert "label_attribute" in message
    chosen = LabelMap.from_names({1: "town", 2: "forest"}, CLASSES, attribute="code")
    found = burned(path, label_map=chosen)
    assert (found[10, 10], found[10, 40], found[40, 10]) == (2, 1, 255)


def test_an_attribute_of_too_many_values_is_taken_only_if_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attributes, "_MOST_VALUES", 2)
    path = ogr(
        tmp_path / "a.gpkg", [box(0, 0, 9, 9), box(20, 0, 30, 9), box(0, 20, 9, 30)], None, id=[1, 2, 3], b=[1, 1, 2]
    )
    label_map = LabelMap.from_names({1: "town", 2: "forest", 3: "Water"}, CLASSES)
    assert burned(path, label_map=label_map)[25, 5] == 1
    assert burned(path, label_map=replace(label_map, attribute="id"))[25, 5] == 0


def test_lists_are_no_values(tmp_path: Path) -> None:
    path = geojson(tmp_path / "a.geojson", [(box(0, 0, 9, 9), {"tags": ["town", "x"], "kind": "town"})])
    assert burned(path)[5, 5] == 2
    assert "tags (without values)" in refusal(path, label_map=replace(BY_NAME, attribute="tags"))


def test_values_without_a_class_are_an_error_unless_values_are_given(tmp_path: Path) -> None:
    path = named(tmp_path / "a.geojson", [(box(0, 0, 40, 40), "FOREST "), (box(5, 5, 9, 9), "swamp")])
    message = refusal(path)
    assert "values of 'kind' without a class: swamp. Classes are Water, forest, town; map others with" in message
    found = burned(path, label_map=LabelMap.from_names({"meadow": "town"}, CLASSES))
    assert (found[20, 20], found[7, 7]) == (1, 255)
    assert burned(path, label_map=LabelMap.from_names({"Swamp": "town"}, CLASSES))[7, 7] == 2


def test_what_no_attribute_tells_is_refused_with_what_there_is(tmp_path: Path) -> None:
    path = geojson(tmp_path / "a.geojson", [(box(0, 0, 9, 9), {"type": "pond", "height": 3.5, "empty": None})])
    message = refusal(path)
    for part in (
        "type (pond)",
        "height (3.5)",
        "empty (without values)",
        "Classes are Water, forest, town",
        "label_values",
    ):
        assert part in message
    assert "no attribute 'kind'; its attributes: type, height, empty" in refusal(
        path, label_map=LabelMap.from_names(None, CLASSES, attribute="kind")
    )
    wrong = LabelMap.from_names({"lake": "Water"}, CLASSES, attribute="type")
    assert "It has type (pond)." in refusal(path, label_map=wrong)
    bare = geojson(tmp_path / "b.geojson", [(box(0, 0, 9, 9), {})])
    assert "It has no attributes." in refusal(bare)


def test_one_class_beside_the_background_needs_no_attribute(tmp_path: Path) -> None:
    path = geojson(tmp_path / "a.geojson", [(box(0, 0, 9, 9), {"height": 3}), (box(20, 20, 30, 30), {})])
    two = ClassTable.from_items([("building", None), ("other", None)])
    found = burned(path, label_map=LabelMap.from_names(None, two, background="other"))
    assert (found[5, 5], found[25, 25], found[15, 15]) == (0, 0, 1)
    assert "height (3)" in refusal(path, label_map=LabelMap.from_names(None, two))
    assert "height (3)" in refusal(path, label_map=LabelMap.from_names({"house": "building"}, two, background="other"))


# --- which place ---


def test_a_label_elsewhere_is_refused_or_all_background(tmp_path: Path) -> None:
    path = named(tmp_path / "a.geojson", [(box(100, 100, 120, 120), "forest")])
    assert (
        "lies elsewhere than its scene scene.tif: no pixel of it has a label. Its coordinates are taken for pixels"
        in refusal(path)
    )
    background = LabelMap.from_names(None, CLASSES, background="town")
    assert "all of it is background" in check_label(MICROGRAPH, path, background)
    assert (burned(path, label_map=background) == 2).all()


def test_an_empty_file_is_all_background_where_there_is_one(tmp_path: Path) -> None:
    path = geojson(tmp_path / "a.geojson", [])
    assert "holds nothing" in refusal(path)
    assert "label_background" in refusal(path)
    background = LabelMap.from_names(None, CLASSES, background="town")
    assert "all of it is background" in check_label(scene(), path, background)
    assert (burned(path, scene(), background) == 2).all()


def test_pixels_and_maps_are_not_mixed(tmp_path: Path) -> None:
    on_map = ogr(tmp_path / "a.gpkg", [moved(box(0, 0, 9, 9), NORTH_UP)], UTM, kind=["forest"])
    assert "has a CRS, but the scene scene.tif has no map" in refusal(on_map)
    without = ogr(tmp_path / "b.shp", [moved(box(0, 0, 9, 9), NORTH_UP)], None, kind=["forest"])
    assert "has no CRS, but the scene scene.tif is on a map" in refusal(without, scene())
    metres = named(tmp_path / "c.geojson", [(moved(box(0, 0, 9, 9), NORTH_UP), "forest")])
    assert "is in degrees by its CRS" in refusal(metres, scene())


def test_lines_and_points_are_refused_and_beside_polygons_left_out(tmp_path: Path) -> None:
    line = LineString([(0, 0), (50, 40)])
    assert "holds no polygons, but LineString" in refusal(
        ogr(tmp_path / "a.gpkg", [line], None, "LineString", kind=["a"])
    )
    mixed = named(tmp_path / "b.geojson", [(line, "forest"), (Point(3, 3), "town")])
    assert "all of its 2 features are without area or without kind. Draw polygons" in refusal(mixed)
    path = named(tmp_path / "c.geojson", [(line, "forest"), (box(0, 0, 9, 9), "town")])
    assert "1 feature without area or without kind left out" in check_label(MICROGRAPH, path, BY_NAME)
    assert set(np.unique(burned(path))) == {2, 255}


# --- files ---


def test_a_file_that_is_missing_or_damaged(tmp_path: Path) -> None:
    assert "does not exist" in refusal(str(tmp_path / "none.geojson"))
    (tmp_path / "cut.geojson").write_text('{"type": "FeatureColl')
    assert "cannot be read as polygons" in refusal(str(tmp_path / "cut.geojson"))


def test_a_zipped_file_is_read(tmp_path: Path) -> None:
    named(tmp_path / "a.geojson", list(zip(SHAPES, KINDS, strict=True)))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.geojson", "a.geojson")
    np.testing.assert_array_equal(burned(str(tmp_path / "a.zip")), oracle(SHAPES, IDS))


def test_a_file_that_changed_is_read_anew(tmp_path: Path) -> None:
    path = named(tmp_path / "a.geojson", [(box(0, 0, 9, 9), "town")])
    assert burned(path)[5, 5] == 2
    named(tmp_path / "a.geojson", [(box(0, 0, 9, 9), "forest")])
    os.utime(path, ns=(1, 1))
    assert burned(path)[5, 5] == 1


def test_other_names_of_the_same_number_of_classes_are_others(tmp_path: Path) -> None:
    """Label maps are equal though their class tables are not; what was read with one is not the other's."""
    path = named(tmp_path / "a.geojson", [(box(0, 0, 9, 9), "town")])
    swapped = LabelMap.from_names(None, ClassTable.from_items([("town", None), ("Water", None), ("forest", None)]))
    assert swapped == BY_NAME
    assert (burned(path)[5, 5], burned(path, label_map=swapped)[5, 5]) == (2, 0)


def test_strips_and_blocks_read_a_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = named(tmp_path / "a.geojson", list(zip(SHAPES, KINDS, strict=True)))
    read, calls = pyogrio.raw.read, []

    def counted(*args: Any, **options: Any) -> Any:
        calls.append(options)
        return read(*args, **options)

    monkeypatch.setattr(pyogrio.raw, "read", counted)
    check_label(MICROGRAPH, path, BY_NAME)
    for row in range(0, HEIGHT, 10):
        with LabelReader(path, BY_NAME, MICROGRAPH) as reader:
            reader.read(Window(0, row, WIDTH, 10))
    assert [call["read_geometry"] for call in calls] == [False, True]


def test_large_files_with_an_index_are_read_window_by_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = [moved(shape, NORTH_UP) for shape in SHAPES]
    path = ogr(tmp_path / "label.gpkg", shapes, UTM, kind=KINDS)
    monkeypatch.setattr(vector_labels, "_MOST_IN_MEMORY", 10)
    read, most = pyogrio.raw.read, []

    def counted(*args: Any, **options: Any) -> Any:
        found = read(*args, **options)
        most.append(len(found[1]) if options["read_geometry"] and options["max_features"] is None else 0)
        return found

    monkeypatch.setattr(pyogrio.raw, "read", counted)
    assert check_label(scene(), path, BY_NAME) == ""
    assert max(most) == 0
    with LabelReader(path, BY_NAME, scene()) as reader:
        found = reader.read(Window(30, 20, 5, 5))
    assert 0 < max(most) < len(SHAPES)
    np.testing.assert_array_equal(found, oracle(SHAPES, IDS)[20:25, 30:35])
    elsewhere = scene(placed=NORTH_UP @ Affine.translation(5000, 0))
    assert "lies elsewhere" in refusal(path, elsewhere)


def test_what_goes_wrong_later_fails_the_scene(tmp_path: Path) -> None:
    path = named(tmp_path / "a.geojson", [(box(0, 0, 9, 9), "town")])
    with LabelReader(path, BY_NAME, MICROGRAPH) as reader:
        os.remove(path)
        with pytest.raises(SceneReadError, match="a.geojson cannot be read as polygons"):
            reader.read(MICROGRAPH.window)


def test_scenes_across_the_180th_meridian(tmp_path: Path) -> None:
    (x,), (y,) = transform("EPSG:4326", "EPSG:32601", [180], [54.18])
    info = scene("EPSG:32601", Affine(100, 0, x - 3500, 0, -100, y + 2500))
    east, west = box(179.9, 54.1, 180, 54.3), box(-180, 54.1, -179.9, 54.3)
    for ending in ("geojson", "gpkg"):
        path = ogr(tmp_path / f"a.{ending}", [east, west], "EPSG:4326", kind=["forest", "town"])
        assert check_label(info, path, BY_NAME) == ""
        found = burned(path, info)
        assert (found[:, :34] == 1).all()
        assert (found[:, 36:] == 2).all()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.geojson", True), ("A.GPKG", True), ("https://x.org/a.shp?token=b.tif", True), ("a.tif", False),
     ("geojson", False), ("https://x.org/a.png?b=c.gpkg", False), ("/vsizip/a.zip/b.tif", False)],
)  # fmt: skip
def test_labels_are_told_apart_by_their_names(name: str, expected: bool) -> None:
    assert is_vector(name) is expected


def test_a_label_on_a_raster_s_grid_travels(tmp_path: Path, make_raster: Callable[..., str]) -> None:
    """End to end: the scene is a file, too."""
    from segbatch.scenes import open_scene

    image = make_raster(tmp_path / "a.tif", np.zeros((HEIGHT, WIDTH), np.uint8), crs=UTM, transform=NORTH_UP)
    path = ogr(tmp_path / "a.fgb", [moved(shape, NORTH_UP) for shape in SHAPES], UTM, kind=KINDS)
    with open_scene(image) as reader:
        np.testing.assert_array_equal(burned(path, reader.info), oracle(SHAPES, IDS))
