"""The class table, and the mapping from label values to class ids."""

import colorsys
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
        for color in self.colors:
            if not _HEX_COLOR.fullmatch(color):
                raise InputError(f"Color {color!r} is not of the form '#1f78b4'.")

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


@dataclass(frozen=True, slots=True)
class LabelMap:
    """From the values of a label raster to class ids.

    Args:
        num_classes: Number of classes.
        values: (label value, class id) pairs. None means that label values are class ids.
            With pairs given, values that are not among them are ignored; without them a value that is
            neither a class id nor `IGNORE_INDEX` is an error, since it is more likely a mistake.
    """

    num_classes: int
    values: tuple[tuple[int, int], ...] | None = None

    @classmethod
    def from_names(cls, values: Mapping[Any, str] | None, classes: ClassTable) -> "LabelMap":
        """From label value to class name; None means that label values are class ids.

        Raises:
            InputError: A value is not a whole number or a name is none of the classes.
        """
        if values is None:
            return cls(len(classes))
        pairs = []
        for value, name in values.items():
            if name not in classes.names:
                raise InputError(
                    f"label_values: {value} stands for {name!r}, which is none of the classes "
                    f"({', '.join(classes.names)})."
                )
            try:
                pairs.append((int(str(value)), classes.names.index(name)))  # by way of str: int(1.5) is 1
            except ValueError as error:
                raise InputError(f"label_values: {value!r} is not a whole number.") from error
        return cls(len(classes), tuple(sorted(pairs)))

    def unknown(self, label: NDArray[np.integer], nodata: float | None = None) -> list[int]:
        """Values in ``label`` that stand for no class and may not be ignored, sorted."""
        if self.values is not None:
            return []
        found = np.unique(label)
        known = (found >= 0) & (found < self.num_classes) | (found == IGNORE_INDEX)
        if nodata is not None:
            known |= found == nodata
        return [int(value) for value in found[~known]]

    def apply(self, label: NDArray[np.integer], nodata: float | None = None) -> NDArray[np.uint8]:
        """Class ids of ``label``, any shape, as uint8 with `IGNORE_INDEX` where there is no class.

        Args:
            label: Values as stored, any integer dtype.
            nodata: The label raster's nodata value, which is ignored unless it is a mapped value.
        """
        ids = np.full(label.shape, IGNORE_INDEX, np.uint8)
        if self.values is None:
            known = (label >= 0) & (label < self.num_classes)
            if nodata is not None:
                known &= label != nodata
            np.copyto(ids, label, where=known, casting="unsafe")
            return ids
        if label.dtype == np.uint8:
            table = np.full(256, IGNORE_INDEX, np.uint8)
            for value, class_id in self.values:
                if 0 <= value < len(table):
                    table[value] = class_id
            return table[label]
        for value, class_id in self.values:
            ids[label == value] = class_id
        return ids
