"""The class table and the map from label values to class ids."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import ImageColor

from segbatch.classes import IGNORE_INDEX, MAX_CLASSES, ClassTable, LabelMap, label_key
from segbatch.errors import InputError

DTYPES: tuple[type[np.integer], ...] = (np.uint8, np.uint16, np.int16, np.int32)


def table(*names: str) -> ClassTable:
    return ClassTable.from_items([(name, None) for name in names])


@pytest.mark.parametrize("count", [0, 1, MAX_CLASSES + 1])
def test_too_few_or_too_many_classes_are_refused(count: int) -> None:
    with pytest.raises(InputError, match=f"{count} classes given: segbatch needs 2 to 255"):
        table(*(f"c{index}" for index in range(count)))


def test_a_repeated_name_is_refused() -> None:
    with pytest.raises(InputError, match="'water' is given twice"):
        table("water", "forest", "water")


@pytest.mark.parametrize("color", ["red", "#12345", "#1234567", "1f78b4", "#1f78bg", "#1f78b4\n"])
def test_a_malformed_color_is_refused(color: str) -> None:
    with pytest.raises(InputError, match="of class '.*' is not of the form '#1f78b4'"):
        ClassTable(("a", "b"), ("#000000", color))


def test_a_missing_color_is_refused_by_the_table_itself() -> None:
    with pytest.raises(InputError, match="2 classes but 1 colors"):
        ClassTable(("a", "b"), ("#000000",))


def test_colors_are_chosen_for_every_class_and_differ() -> None:
    for count in range(2, MAX_CLASSES + 1):
        chosen = table(*(f"c{index}" for index in range(count)))
        assert len(chosen) == len(set(chosen.colors)) == count


def test_given_colors_are_kept_in_lower_case() -> None:
    mixed = ClassTable.from_items([("water", "#1F78B4"), ("forest", None)])
    assert mixed.colors[0] == "#1f78b4"
    assert mixed.colors[1] != mixed.colors[0]


def test_json_round_trip() -> None:
    original = ClassTable.from_items([("Wasser", "#1f78b4"), ("låve", None), ("c", "#ffffff")])
    assert ClassTable.from_json(original.to_json()) == original
    assert original.to_json()[0] == {"name": "Wasser", "color": "#1f78b4"}


def test_the_palette_holds_each_color_and_black_elsewhere() -> None:
    colors = ClassTable.from_items([("a", "#1f78b4"), ("b", "#33a02c"), ("c", None)])
    palette = colors.palette()
    assert (palette.dtype, palette.shape) == (np.dtype(np.uint8), (256, 3))
    assert [tuple(row) for row in palette[:3].tolist()] == [ImageColor.getrgb(color) for color in colors.colors]
    assert not palette[3:].any()


def test_a_map_from_class_names() -> None:
    classes = table("water", "forest")
    assert LabelMap.from_names(None, classes) == LabelMap(2)
    assert LabelMap.from_names({7: "forest", "-1": "water", 3: "forest"}, classes) == LabelMap(
        2, ((-1, 0), (3, 1), (7, 1))
    )


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({1: "wood"}, "1 stands for 'wood', which is none of the classes .water, forest."),
        ({1.5: "water"}, "1.5 is neither a whole number nor text"),
        ({None: "water"}, "None is neither a whole number nor text"),
        ({False: "water"}, "False is neither a whole number nor text.*in quotes"),
        ({" ": "water"}, "' ' is neither a whole number nor text"),
        ({"7": "water", 7: "forest"}, "7 stands for two classes, water and forest"),
        ({"Tree": "water", "tree ": "forest"}, "tree  stands for two classes"),
    ],
)
def test_a_map_from_names_that_make_no_sense_is_refused(values: dict[object, str], told: str) -> None:
    with pytest.raises(InputError, match=f"label_values: {told}"):
        LabelMap.from_names(values, table("water", "forest"))


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (7, 7), ("7", 7), (" 007 ", 7), (7.0, 7), (np.float32(7), 7), (np.int64(-7), -7), ("-7", -7), (True, 1),
        ("Tumor ", "tumor"), ("#1F78B4", "#1f78b4"), (1.5, "1.5"), ("1.5", "1.5"), ("1_0", "1_0"), ("²", "²"),
        ('{ "name": "Tumor", "color": [ 200, 0, 0 ] }', "tumor"), ('{"names": ["CD3", "CD8"]}', "cd3: cd8"),
        ("{broken", "{broken"), ('{"color": 3}', None), (None, None), (float("nan"), None), ("", None), ("  ", None),
    ],
)  # fmt: skip
def test_label_values_are_looked_up_by_what_they_mean(value: object, key: object) -> None:
    assert label_key(value) == key
    assert type(label_key(value)) is type(key)


MIXED = {1: "water", "#00ff00": "forest", "Lake": "water", "wood": "forest"}


def test_each_kind_of_label_goes_by_the_values_of_its_kind() -> None:
    found = LabelMap.from_names(MIXED, table("water", "forest"))
    assert (found.of_values.pairs, found.of_values.strict) == (((1, 0),), False)
    assert (found.of_colors.pairs, found.of_colors.strict) == (((0x00FF00, 1),), False)
    ids, strict = found.of_attributes
    assert ids == {"water": 0, "forest": 1, 1: 0, "lake": 0, "wood": 1}
    assert not strict


def test_a_kind_without_values_goes_by_ids_colours_and_names() -> None:
    classes = ClassTable.from_items([("Water", "#1f78b4"), ("forest", "#000010")])
    for values in (None, {}, {"#ff0000": "forest"}):
        found = LabelMap.from_names(values, classes)
        assert (found.of_values.pairs, found.of_values.strict) == (None, True)
        assert found.of_attributes == ({"water": 0, "forest": 1}, True)
    found = LabelMap.from_names({1: "forest", "tree": "forest"}, classes)
    assert (found.of_colors.pairs, found.of_colors.strict) == (((0x1F78B4, 0), (0x10, 1)), True)


@pytest.mark.parametrize("values", [None, {}, {3: "water", -1: "forest"}, MIXED])
@pytest.mark.parametrize("about_vectors", [(None, None), ("landuse", None), (None, "forest"), ("landuse", "water")])
def test_a_map_survives_json(values: dict[object, str] | None, about_vectors: tuple[str | None, str | None]) -> None:
    classes = table("water", "forest")
    original = LabelMap.from_names(values, classes, *about_vectors)
    data = original.to_json(classes)
    assert LabelMap.from_json(json.loads(json.dumps(data)), classes) == original
    assert ("label_attribute" in data, "label_background" in data) == tuple(item is not None for item in about_vectors)


def test_what_was_said_of_vectors_is_part_of_a_map_s_identity() -> None:
    classes = table("water", "forest")
    about = [(None, None), ("landuse", None), ("landcover", None), (None, "forest"), (None, "water")]
    found = [LabelMap.from_names({1: "water"}, classes, *item).identity for item in about]
    assert found[0] == ((1, 0),)  # as before there were vector labels: runs from then go on
    assert len({str(item) for item in found}) == len(about)


def test_a_background_is_one_of_the_classes() -> None:
    with pytest.raises(InputError, match="label_background: 'sky' is none of the classes .water, forest."):
        LabelMap.from_names(None, table("water", "forest"), background="sky")


def label_arrays() -> st.SearchStrategy[np.ndarray]:
    """Labels of all integer types, with a good share of small, negative and extreme values."""

    def of_type(dtype: type[np.integer]) -> st.SearchStrategy[np.ndarray]:
        low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        near = st.integers(max(low, -4), 8)
        values = st.one_of(near, near, st.sampled_from([255 if high >= 255 else high, low, high]))
        return hnp.arrays(dtype, hnp.array_shapes(max_dims=2, max_side=12), elements=values)

    return st.sampled_from(DTYPES).flatmap(of_type)


@given(label_arrays(), st.integers(2, 6), st.sampled_from([None, 0, 3, -3, 300, 0.5, float("nan")]))
def test_without_a_mapping_values_are_class_ids(label: np.ndarray, num_classes: int, nodata: float | None) -> None:
    ids = LabelMap(num_classes).of_values.apply(label, nodata)
    expected = [
        value if 0 <= value < num_classes and value != nodata else IGNORE_INDEX for value in label.ravel().tolist()
    ]
    assert (ids.dtype, ids.shape) == (np.dtype(np.uint8), label.shape)
    assert ids.ravel().tolist() == expected


@given(
    label_arrays(),
    st.dictionaries(
        st.one_of(st.integers(-4, 8), st.sampled_from([255, 65535, 2**31 - 1])), st.integers(0, 3), min_size=1
    ),
    st.sampled_from([None, 0, 3, -3]),
)
def test_with_a_mapping_other_values_are_ignored(
    label: np.ndarray, mapping: dict[int, int], nodata: float | None
) -> None:
    """A mapped value counts even where it is the raster's nodata value."""
    ids = LabelMap(4, tuple(mapping.items())).of_values.apply(label, nodata)
    assert (ids.dtype, ids.shape) == (np.dtype(np.uint8), label.shape)
    assert ids.ravel().tolist() == [mapping.get(value, IGNORE_INDEX) for value in label.ravel().tolist()]


def test_a_mapped_value_that_the_type_cannot_hold_is_nowhere() -> None:
    """-1 is not 255 and 256 is not 0, although both are modulo 256."""
    label = np.array([0, 255, 3], np.uint8)
    assert LabelMap(2, ((-1, 0), (256, 1), (3, 1))).of_values.apply(label).tolist() == [255, 255, 1]


def test_unknown_names_values_without_a_class() -> None:
    label = np.array([[0, 1, 2, 255], [7, -1, 2, 300]], np.int32)
    assert LabelMap(2).of_values.unknown(label) == [-1, 2, 7, 300]
    assert LabelMap(3).of_values.unknown(label, nodata=300) == [-1, 7]
    assert LabelMap(2).of_values.unknown(label[:1, :2]) == []


def test_with_a_mapping_nothing_is_unknown() -> None:
    label = np.array([0, 1, 9, 200], np.uint8)
    assert LabelMap(2, ((1, 0), (9, 1))).of_values.unknown(label) == []


@given(label_arrays(), st.integers(2, 6))
def test_what_is_not_unknown_is_a_class_or_ignored(label: np.ndarray, num_classes: int) -> None:
    unknown = set(LabelMap(num_classes).of_values.unknown(label))
    values = set(label.ravel().tolist())
    assert values - unknown == values & {*range(num_classes), IGNORE_INDEX}
