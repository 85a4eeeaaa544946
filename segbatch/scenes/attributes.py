"""Which attribute of polygons says what class they are, and of which class each is."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segbatch.classes import IGNORE_INDEX, LabelMap, label_key, label_text
from segbatch.errors import InputError
from segbatch.scenes.polygons import PolygonFile, read_attributes

_QUPATH = "classification"

_MOST_VALUES = 10_000
"""An attribute of more values than these is a number or a text of each feature, not its class."""

_Values = dict[int | str, str]
"""Values of an attribute as the file has them, by `label_key`."""


@dataclass(frozen=True, slots=True)
class Naming:
    """Tells the classes of features.

    Args:
        attribute: The attribute that says it, or None where all features are of one class.
        ids: (value, class id) pairs, values as `label_key` gives them.
        sole: Class id of all features, where there is no attribute.
    """

    attribute: str | None
    ids: tuple[tuple[int | str, int], ...]
    sole: int | None = None

    def class_ids(self, values: NDArray[Any]) -> NDArray[np.int16]:
        """Class ids of features by their values: `IGNORE_INDEX` for values without a class, -1 for no value."""
        if self.sole is not None:
            return np.full(len(values), self.sole, np.int16)
        ids: dict[int | str | None, int] = {**dict(self.ids), None: -1}
        known = {value: ids.get(label_key(value), IGNORE_INDEX) for value in set(values.tolist())}
        return np.array([known[value] for value in values.tolist()], np.int16)


def find_classes(file: PolygonFile, label_map: LabelMap) -> Naming:
    """Find the attribute whose values stand for classes.

    QuPath's classification comes first, then the only attribute of which all values are known, then the only one of
    which some are. Polygons of which nothing tells the class are of the other one where one of two is background.

    Raises:
        InputError: No attribute does, several do, or a value stands for no class and may not be ignored.
    """
    ids, strict = label_map.of_attributes
    pairs = tuple(ids.items())
    if file.features == 0:
        if label_map.background is None:
            raise InputError(f"Label {file.path} holds nothing. Where all is background, say so with label_background.")
        return Naming(None, pairs, label_map.background)
    wanted = label_map.attribute
    if wanted is not None and wanted not in file.attributes:
        raise InputError(f"Label {file.path} has no attribute {wanted!r}; its attributes: {_names(file.attributes)}.")
    if (
        wanted is None
        and _QUPATH in file.attributes
        and ids.keys() & (values := _read(file, [_QUPATH]))[_QUPATH].keys()
    ):
        wanted = _QUPATH
    else:
        values = _read(file, file.attributes if wanted is None else [wanted])
    if wanted is None:
        known = [name for name, found in values.items() if ids.keys() & found.keys()]
        best = [name for name in known if not found_others(values[name], ids)] or known
        if len(best) > 1:
            raise InputError(
                f"Label {file.path}: values of several attributes stand for classes: "
                f"{'; '.join(_described(name, values[name]) for name in best)}. Say with label_attribute which to take."
            )
        wanted = best[0] if best else None
    if wanted is None and strict and label_map.num_classes == 2 and label_map.background is not None:
        return Naming(None, pairs, 1 - label_map.background)
    if wanted is None or not ids.keys() & values[wanted].keys():
        held = "; ".join(_described(name, found) for name, found in list(values.items())[:6])
        raise InputError(
            f"Label {file.path}: no value of an attribute stands for a class. It has {held or 'no attributes'}. "
            f"{_way_out(label_map)}"
        )
    others = found_others(values[wanted], ids)
    if strict and others:
        raise InputError(
            f"Label {file.path} has values of {wanted!r} without a class: {_names(others, 8)}. {_way_out(label_map)}"
        )
    return Naming(wanted, pairs)


def found_others(values: _Values, ids: dict[int | str, int]) -> list[str]:
    """Values that stand for no class, as the file has them, sorted."""
    return sorted(text for key, text in values.items() if key not in ids)


def _read(file: PolygonFile, names: Iterable[str]) -> dict[str, _Values]:
    wanted = [name for name in file.attributes if name in set(names)]  # in the order in which they come
    found: dict[str, _Values] = {}
    for name, column in zip(wanted, read_attributes(file, wanted), strict=True):
        distinct = set(column.tolist()) if column.dtype != object or _is_flat(column) else set()
        if len(distinct) <= _MOST_VALUES:
            found[name] = {key: label_text(value) for value in distinct if (key := label_key(value)) is not None}
    return found


def _is_flat(column: NDArray[np.object_]) -> bool:
    """Whether the values are single ones, not lists of them."""
    return all(value is None or isinstance(value, str | int | float) for value in column[:1000].tolist())


def _described(name: str, values: _Values) -> str:
    return f"{name} ({_names(sorted(values.values()), 4)})" if values else f"{name} (without values)"


def _names(names: Iterable[str], most: int = 12) -> str:
    listed = [name if len(name) <= 40 else f"{name[:37]}..." for name in names]
    return ", ".join(listed[:most]) + (", ..." if len(listed) > most else "") or "none"


def _way_out(label_map: LabelMap) -> str:
    classes = "" if label_map.classes is None else f"Classes are {_names(label_map.classes.names)}; "
    return f"{classes}map others with label_values, as 'their value: class'."
