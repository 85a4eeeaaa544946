"""Which attribute of polygons says what class they are, and of which class each is."""

from collections.abc import Iterable, Sequence
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
    given = label_map.attribute
    if given is not None and given not in file.attributes:
        raise InputError(f"Label {file.path} has no attribute {given!r}; its attributes: {_names(file.attributes)}.")
    for names, most in [([given], None)] if given else [([_QUPATH], None), (file.attributes, _MOST_VALUES)]:
        values = _read(file, names, most)
        found = _only_known(file, values, ids)
        if found is not None:
            break
    else:
        if given is None and strict and label_map.num_classes == 2 and label_map.background is not None:
            return Naming(None, pairs, 1 - label_map.background)
        held = "; ".join(_described(name, known) for name, known in list(values.items())[:6])
        raise InputError(
            f"Label {file.path}: no value of an attribute stands for a class. It has {held or 'no attributes'}. "
            f"{_way_out(label_map)}"
        )
    others = _others(values[found], ids)
    if strict and others:
        raise InputError(
            f"Label {file.path} has values of {found!r} without a class: {_names(others, 8)}. {_way_out(label_map)}"
        )
    return Naming(found, pairs)


def _only_known(file: PolygonFile, values: dict[str, _Values], ids: dict[int | str, int]) -> str | None:
    """The only attribute of which all values are known, or else the only one of which some are; None if there is none.

    Raises:
        InputError: There are several.
    """
    known = [name for name, found in values.items() if ids.keys() & found.keys()]
    best = [name for name in known if not _others(values[name], ids)] or known
    if len(best) > 1:
        raise InputError(
            f"Label {file.path}: values of several attributes stand for classes: "
            f"{'; '.join(_described(name, values[name]) for name in best)}. Say with label_attribute which to take."
        )
    return best[0] if best else None


def _others(values: _Values, ids: dict[int | str, int]) -> list[str]:
    """Values that stand for no class, as the file has them, sorted."""
    return sorted(text for key, text in values.items() if key not in ids)


def _read(file: PolygonFile, names: Sequence[str], most: int | None) -> dict[str, _Values]:
    """The values of some attributes, without those that have more of them than ``most``."""
    wanted = [name for name in file.attributes if name in names]  # in the order in which they come
    found: dict[str, _Values] = {}
    for name, column in zip(wanted, read_attributes(file, wanted) if wanted else (), strict=True):
        distinct = set(column.tolist()) if column.dtype != object or _is_flat(column) else set()
        if most is None or len(distinct) <= most:
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
