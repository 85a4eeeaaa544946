"""The class table, and the mapping from what labels hold to class ids."""

import colorsys
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbatch.errors import InputError

IGNORE_INDEX = 255
"""Class id of pixels without a usable label: skipped by loss and metrics."""

NODATA = 255
"""Value of a class mask where the scene has no valid pixel."""

MAX_CLASSES = 255

PROBABILITY_STEPS = 254
"""Probabilities are stored as uint8: 0 to 254 stand for 0 to 1, and 255 is nodata."""

_HEX_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]+")


@dataclass(frozen=True, slots=True)
class ClassTable:
    """Names and colours of the classes; a class's id is its position.

    Args:
        names: Unique class names.
        colors: One ``#rrggbb`` string a class.
    """

    names: tuple[str, ...]
    colors: tuple[str, ...]

    def __post_init__(self) -> None:
        if not 2 <= len(self.names) <= MAX_CLASSES:
            raise InputError(f"{len(self.names)} classes given: segbatch needs 2 to {MAX_CLASSES}.")
        if len(self.colors) != len(self.names):
            raise InputError(f"{len(self.names)} classes but {len(self.colors)} colors.")
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise InputError(f"Class name {repeated[0]!r} is given twice: names must differ.")
        for name, color in zip(self.names, self.colors, strict=True):
            if not _HEX_COLOR.fullmatch(color):
                raise InputError(f"Color {color!r} of class {name!r} is not of the form '#1f78b4'.")

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def from_items(cls, items: Sequence[tuple[str, str | None]]) -> "ClassTable":
        """Build a table from (name, color) pairs; a missing color is chosen by hue."""
        colors = [color or _hue_color(index, len(items)) for index, (_, color) in enumerate(items)]
        return cls(tuple(name for name, _ in items), tuple(color.lower() for color in colors))

    @classmethod
    def from_json(cls, items: Sequence[Mapping[str, Any]]) -> "ClassTable":
        """The inverse of `to_json`."""
        return cls.from_items([(str(item["name"]), item.get("color")) for item in items])

    def to_json(self) -> list[dict[str, str]]:
        """As plain data: ``[{"name": ..., "color": ...}, ...]`` in the order of the ids."""
        return [{"name": name, "color": color} for name, color in zip(self.names, self.colors, strict=True)]

    def palette(self) -> NDArray[np.uint8]:
        """RGB by class id, shape (256, 3); ids without a class are black."""
        table = np.zeros((256, 3), np.uint8)
        for index, color in enumerate(self.colors):
            table[index] = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
        return table


def _hue_color(index: int, count: int) -> str:
    red, green, blue = colorsys.hsv_to_rgb(index / count, 0.65, 0.85)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def label_key(value: Any) -> int | str | None:
    """A label value as it is looked up: whole numbers as int, colours as '#1f78b4', all other text without its case.

    Attributes hold numbers as text, text as numbers, and objects of which the name counts, as QuPath's classification.

    Returns:
        None for what is no value: nothing, blank text, an object without a name.
    """
    found = label_text(value)
    return int(found) if _WHOLE_NUMBER.fullmatch(found) else found.casefold() or None


def label_text(value: Any) -> str:
    """A label value as people know it; empty for what is none."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        with suppress(ValueError):
            found = json.loads(value)
            value = found.get("name") or ": ".join(map(str, found.get("names") or ()))  # of QuPath's derived classes
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return ""
    if isinstance(value, bool | np.bool_) or (isinstance(value, float | np.floating) and float(value).is_integer()):
        return str(int(value))
    return str(value).strip()


def check_label_value(value: Any) -> int | str:
    """A value that a configuration gives, as it is looked up.

    Raises:
        InputError: It is neither a whole number nor text.
    """
    key = label_key(value) if isinstance(value, int | str) and not isinstance(value, bool) else None
    if key is None:
        raise InputError(
            f"label_values: {value!r} is neither a whole number nor text. Put text that YAML takes for something "
            "else in quotes, as 'no' and '#1f78b4'."
        )
    return key


def is_color(key: int | str) -> bool:
    """Whether a key of label values is a colour."""
    return isinstance(key, str) and _HEX_COLOR.fullmatch(key) is not None


def packed(color: str) -> int:
    """A colour as one whole number, 0xrrggbb."""
    return int(color[1:], 16)


@dataclass(frozen=True, slots=True)
class ValueMap:
    """From whole numbers, values of a raster or `packed` colours, to class ids.

    Args:
        num_classes: Number of classes.
        pairs: (value, class id). None means that values are class ids.
        strict: Whether a value that stands for no class is more likely a mistake than meant to be ignored.
    """

    num_classes: int
    pairs: tuple[tuple[int, int], ...] | None
    strict: bool

    def others(self, label: NDArray[np.integer], nodata: float | None = None) -> list[int]:
        """Values in ``label`` that stand for no class, sorted; nodata and, among class ids, `IGNORE_INDEX` left out."""
        if self.pairs is None:
            known = (label >= 0) & (label < self.num_classes) | (label == IGNORE_INDEX)
        else:
            known = np.isin(label, [value for value, _ in self.pairs])
        if nodata is not None:
            known |= label == nodata
        return [int(value) for value in np.unique(label[~known])]

    def unknown(self, label: NDArray[np.integer], nodata: float | None = None) -> list[int]:
        """Values in ``label`` that stand for no class and may not be ignored, sorted."""
        return self.others(label, nodata) if self.strict else []

    def apply(self, label: NDArray[np.integer], nodata: float | None = None) -> NDArray[np.uint8]:
        """Class ids of ``label``, any shape, as uint8 with `IGNORE_INDEX` where there is no class.

        Args:
            label: Values as stored, any integer dtype.
            nodata: The label raster's nodata value, which is ignored unless it is a mapped value.
        """
        ids = np.full(label.shape, IGNORE_INDEX, np.uint8)
        if self.pairs is None:
            known = (label >= 0) & (label < self.num_classes)
            if nodata is not None:
                known &= label != nodata
            np.copyto(ids, label, where=known, casting="unsafe")
            return ids
        if label.dtype == np.uint8:
            table = np.full(256, IGNORE_INDEX, np.uint8)
            for value, class_id in self.pairs:
                if 0 <= value < len(table):
                    table[value] = class_id
            return table[label]
        for value, class_id in self.pairs:
            ids[label == value] = class_id
        return ids


@dataclass(frozen=True, slots=True)
class LabelMap:
    """From what labels hold to class ids.

    Each kind of label goes by the values of its kind: rasters by whole numbers, coloured masks by colours, vectors
    by text and whole numbers. Where a kind has none, rasters hold class ids, coloured masks the classes' colours and
    vectors the classes' names. Values given, others are ignored; without any, another value is an error, since it is
    more likely a mistake.

    Args:
        num_classes: Number of classes.
        values: (label value, class id) pairs, values as `label_key` gives them. None where nothing was said.
        attribute: Attribute of vector labels that holds the class; None to find it.
        background: Class of what no polygon of a vector label covers; None where that has no label.
        classes: Names and colours that labels may go by. A run's classes are told elsewhere: they do not count when
            maps are compared.
    """

    num_classes: int
    values: tuple[tuple[int | str, int], ...] | None = None
    attribute: str | None = None
    background: int | None = None
    classes: ClassTable | None = field(default=None, compare=False)

    @classmethod
    def from_names(
        cls,
        values: Mapping[Any, str] | None,
        classes: ClassTable,
        attribute: str | None = None,
        background: str | None = None,
    ) -> "LabelMap":
        """From label value to class name.

        Args:
            values: None where nothing is said.
            classes: The class table.
            attribute: See `LabelMap`.
            background: Name of the class.

        Raises:
            InputError: A value is neither a whole number nor text, or a name is none of the classes.
        """
        listed = ", ".join(classes.names)
        if background is not None and background not in classes.names:
            raise InputError(f"label_background: {background!r} is none of the classes ({listed}).")
        pairs: dict[int | str, int] = {}
        for value, name in (values or {}).items():
            if name not in classes.names:
                raise InputError(f"label_values: {value} stands for {name!r}, which is none of the classes ({listed}).")
            key = check_label_value(value)
            class_id = classes.names.index(name)
            if pairs.setdefault(key, class_id) != class_id:
                raise InputError(
                    f"label_values: {value} stands for two classes, {classes.names[pairs[key]]} and {name}."
                )
        return cls(
            len(classes),
            None if values is None else tuple(sorted(pairs.items(), key=_by_kind)),
            attribute,
            None if background is None else classes.names.index(background),
            classes,
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any], classes: ClassTable) -> "LabelMap":
        """The inverse of `to_json`; among other entries, too.

        Raises:
            KeyError, AttributeError, InputError: The data are not a label map's.
        """
        return cls.from_names(data["label_values"], classes, data.get("label_attribute"), data.get("label_background"))

    def to_json(self, classes: ClassTable) -> dict[str, Any]:
        """As plain data, by the configuration's keys; those of vectors only where something was said of them."""
        names = classes.names
        data: dict[str, Any] = {
            "label_values": None if self.values is None else {str(key): names[index] for key, index in self.values}
        }
        if self.attribute is not None:
            data["label_attribute"] = self.attribute
        if self.background is not None:
            data["label_background"] = names[self.background]
        return data

    @property
    def identity(self) -> Any:
        """What decides the class ids beside the class table, as plain data."""
        about_vectors = self.attribute, self.background
        return self.values if about_vectors == (None, None) else [self.values, *about_vectors]

    @property
    def of_values(self) -> ValueMap:
        """The map of a raster's values."""
        pairs = tuple((key, index) for key, index in self.values or () if isinstance(key, int))
        return (
            ValueMap(self.num_classes, pairs, strict=False) if pairs else ValueMap(self.num_classes, None, strict=True)
        )

    @property
    def has_colors(self) -> bool:
        """Whether colours were given."""
        return any(is_color(key) for key, _ in self.values or ())

    @property
    def of_colors(self) -> ValueMap:
        """The map of `packed` colours."""
        pairs = tuple((packed(str(key)), index) for key, index in self.values or () if is_color(key))
        if pairs or self.classes is None:
            return ValueMap(self.num_classes, pairs, strict=not pairs)
        own = {packed(color): index for index, color in enumerate(self.classes.colors)}
        return ValueMap(self.num_classes, tuple(own.items()), strict=True)

    @property
    def of_attributes(self) -> tuple[dict[int | str, int], bool]:
        """From values of vectors' attributes to class ids, and whether other values are more likely a mistake."""
        pairs = {key: index for key, index in self.values or () if not is_color(key)}
        names = () if self.classes is None else self.classes.names
        named = {key: index for index, name in enumerate(names) if (key := label_key(name)) is not None}
        return {**named, **pairs}, not pairs


def _by_kind(pair: tuple[int | str, int]) -> tuple[bool, int | str]:
    """Whole numbers before text, each in its order."""
    return isinstance(pair[0], str), pair[0]
