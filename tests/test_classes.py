"""The class table and the map from label values to class ids."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import ImageColor

from segbatch.classes import IGNORE_INDEX, MAX_CLASSES, ClassTable, LabelMap
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
    with pytest.raises(InputError, match="is not of the form '#1f78b4'"):
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
        ({"one": "water"}, "'one' is not a whole number"),
        ({1.5: "water"}, "1.5 is not a whole number"),
        ({None: "water"}, "None is not a whole number"),
    ],
)
def test_a_map_from_names_that_make_no_sense_is_refused(values: dict[object, str], told: str) -> None:
    with pytest.raises(InputError, match=f"label_values: {told}"):
        LabelMap.from_names(values, table("water", "forest"))


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
    ids = LabelMap(num_classes).apply(label, nodata)
    expected = [
        value if 0 <= value < num_classes and value != nodata else IGNORE_INDEX for value in label.ravel().tolist()
    ]
    assert (ids.dtype, ids.shape) == (np.dtype(np.uint8), label.shape)
    assert ids.ravel().tolist() == expected


@given(
    label_arrays(),
    st.dictionaries(st.one_of(st.integers(-4, 8), st.sampled_from([255, 65535, 2**31 - 1])), st.integers(0, 3)),
    st.sampled_from([None, 0, 3, -3]),
)
def test_with_a_mapping_other_values_are_ignored(
    label: np.ndarray, mapping: dict[int, int], nodata: float | None
) -> None:
    """A mapped value counts even where it is the raster's nodata value."""
    ids = LabelMap(4, tuple(mapping.items())).apply(label, nodata)
    assert (ids.dtype, ids.shape) == (np.dtype(np.uint8), label.shape)
    assert ids.ravel().tolist() == [mapping.get(value, IGNORE_INDEX) for value in label.ravel().tolist()]


def test_a_mapped_value_that_the_type_cannot_hold_is_nowhere() -> None:
    """-1 is not 255 and 256 is not 0, although both are modulo 256."""
    label = np.array([0, 255, 3], np.uint8)
    assert LabelMap(2, ((-1, 0), (256, 1), (3, 1))).apply(label).tolist() == [255, 255, 1]


def test_unknown_names_values_without_a_class() -> None:
    label = np.array([[0, 1, 2, 255], [7, -1, 2, 300]], np.int32)
    assert LabelMap(2).unknown(label) == [-1, 2, 7, 300]
    assert LabelMap(3).unknown(label, nodata=300) == [-1, 7]
    assert LabelMap(2).unknown(label[:1, :2]) == []


def test_with_a_mapping_nothing_is_unknown() -> None:
    label = np.array([0, 1, 9, 200], np.uint8)
    assert LabelMap(2, ((1, 0), (9, 1))).unknown(label) == []


@given(label_arrays(), st.integers(2, 6))
def test_what_is_not_unknown_is_a_class_or_ignored(label: np.ndarray, num_classes: int) -> None:
    unknown = set(LabelMap(num_classes).unknown(label))
    values = set(label.ravel().tolist())
    assert values - unknown == values & {*range(num_classes), IGNORE_INDEX}
