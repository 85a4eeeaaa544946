"""The catalog: from what a user lists (paths, globs, tables) to scenes with unique ids."""

import glob
import math
import os
import posixpath
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import Any, TypeVar

from segbatch.config import LabelledSceneEntry, Role, Scenes
from segbatch.errors import InputError
from segbatch.geometry import Window
from segbatch.redaction import redact, without_query
from segbatch.scenes.matching import match_files, match_objects
from segbatch.storage import is_store_url, local_file

_T = TypeVar("_T", bound=Hashable)
WINDOW_COLUMNS = ("col_off", "row_off", "width", "height")
_LONGEST_NAME = 160
"""Letters of an id: file systems take 255, and the names of files and of their temporary ones have more beside it."""

_TABLE_COLUMNS = ("image", "label", "group", "pixel_size_um", *WINDOW_COLUMNS)


@dataclass(frozen=True, slots=True)
class SceneRef:
    """One scene of a catalog, not opened yet.

    Args:
        id: Unique in the catalog and safe as a file name.
        image: Path or URL.
        label: Path or URL of the label, or None.
        group: What the scene belongs to (a patient, an animal, a flight), or None.
        pixel_size_um: Micrometres a pixel for scenes without a map, or None.
        window: The part of the scene that training or validation uses; offsets and sizes may be None for
            "from the start" and "to the end". Mapping always covers the whole scene.
    """

    id: str
    image: str
    label: str | None = None
    group: str | None = None
    pixel_size_um: float | None = None
    window: tuple[int | None, int | None, int | None, int | None] | None = None

    def crop(self, width: int, height: int) -> Window:
        """The window of a scene of this size.

        Raises:
            InputError: The window does not lie inside.
        """
        col_off, row_off, cols, rows = self.window or (None, None, None, None)
        col_off, row_off = col_off or 0, row_off or 0
        cols, rows = cols or width - col_off, rows or height - row_off
        if min(col_off, row_off) < 0 or min(cols, rows) < 1 or col_off + cols > width or row_off + rows > height:
            raise InputError(
                f"{self.image} is {width} x {height} pixels; the window of {cols} x {rows} at column {col_off}, "
                f"row {row_off} is not inside it."
            )
        return Window(col_off, row_off, cols, rows)


def list_scenes(scenes: Scenes, role: Role, may_be_none: bool = False) -> list[SceneRef]:
    """The scenes that a configuration names for a role.

    Args:
        scenes: Of the configuration.
        role: What they are for.
        may_be_none: Whether globs and tables may stand for nothing, as of a folder that fills up by and by.

    Raises:
        InputError: The list is empty, or one of its entries stands for nothing.
    """
    entries = scenes.of(role)
    if not entries:
        rule = ", or let scenes.split choose" if role == "validate" else ""
        raise InputError(f"scenes.{role} is empty: list at least one image{rule}.")
    refs: list[SceneRef] = []
    for entry in entries:
        if entry.table is not None:
            listed = read_table(entry.table, scenes.root, entry.where, may_be_none)
            # Mapping covers whole scenes: the parts of an image that a table lists for training are one.
            refs += listed if role != "predict" else dict.fromkeys(replace(ref, window=None) for ref in listed)
            continue
        assert entry.image is not None  # the configuration holds one of the two
        part = entry.window if isinstance(entry, LabelledSceneEntry) else None
        refs += expand(
            entry.image,
            scenes.root,
            label=entry.label,
            group=entry.group,
            pixel_size_um=entry.pixel_size_um,
            window=None if part is None else (part.col_off, part.row_off, part.width, part.height),
            may_be_none=may_be_none,
        )
    return with_unique_ids(refs)


def expand(
    image: str,
    root: str = ".",
    *,
    label: str | None = None,
    group: str | None = None,
    pixel_size_um: float | None = None,
    window: tuple[int | None, int | None, int | None, int | None] | None = None,
    may_be_none: bool = False,
) -> list[SceneRef]:
    """The scenes that one entry of the configuration stands for.

    Args:
        image: Path, glob or URL; relative paths count from ``root``.
        root: Folder, or a place in an object store.
        label: Path of the label. ``{name}`` in it stands for the image's file name without its ending, so
            that one entry can pair a glob of images with their labels.
        group: See `SceneRef`.
        pixel_size_um: See `SceneRef`.
        window: See `SceneRef`.
        may_be_none: Whether a glob may match nothing.

    Raises:
        InputError: A glob matches nothing, its folder does not exist, or many images share one label.
    """
    path = resolve(image, root)
    pattern = resolve(image, glob.escape(resolve("", root)))  # a root called 'site [1]' is none
    images = [path]
    if glob.has_magic(image) and is_store_url(path):
        images = match_objects(path, pattern)
    elif glob.has_magic(image) and "://" not in path and not path.startswith("/vsi"):  # there ? begins a query
        images = match_files(path, pattern)
    if not images and not may_be_none:
        raise InputError(f"No image matches {path}.")
    if label is not None and len(images) > 1 and "{name}" not in label:
        raise InputError(
            f"{len(images)} images match {image}, but they share the label {label}. "
            "Write {name} for the image's name, as in labels/{name}.tif."
        )
    return [
        SceneRef(
            id=stem(found),
            image=found,
            label=None if label is None else resolve(label.replace("{name}", name_of(found)), root),
            group=group,
            pixel_size_um=pixel_size_um,
            window=window,
        )
        for found in images
    ]


def read_table(
    path: str, root: str = ".", where: Mapping[str, Any] | None = None, may_be_none: bool = False
) -> list[SceneRef]:
    """The scenes of a CSV or Parquet table: image, label, group, pixel_size_um, and the columns of a window.

    Relative paths in a table count from the table's folder, so that a data set can be moved as a whole.

    Args:
        path: The table: a file, or an object's URL.
        root: Folder from which a relative ``path`` counts.
        where: Column to value (or list of values): only these rows.
        may_be_none: Whether no row may be left.

    Raises:
        InputError: The table is missing or malformed, or no row is left.
    """
    import pandas as pd

    path = resolve(path, root)
    file = _local_table(path)
    try:
        table = pd.read_parquet(file) if path.endswith(".parquet") else pd.read_csv(file, dtype={"group": str})
    except (ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read as a table: {error}") from error
    table.index = pd.RangeIndex(1, len(table) + 1)  # row numbers for messages, whatever rows are left out
    where = where or {}
    missing = sorted({"image", *where} - set(table.columns))
    if missing:
        raise InputError(f"{path} has no column {missing[0]!r}; its columns: {', '.join(map(str, table.columns))}.")
    for column, value in where.items():
        wanted = value if isinstance(value, list) else [value]
        # One empty cell turns a column of whole numbers into 1.0, 2.0, ...; convert_dtypes turns it back.
        cells = table[column].convert_dtypes().astype(str)
        table = table[cells.isin([str(item) for item in wanted])]
    if table.empty and not may_be_none:
        raise InputError(f"No row of {path} is left where {dict(where)}." if where else f"{path} has no rows.")
    folder = os.path.dirname(path)
    refs = []
    for number, row in zip(table.index, table.to_dict("records"), strict=True):
        cells = {column: row[column] for column in _TABLE_COLUMNS if column in row and not _missing(row[column])}
        if "image" not in cells:
            raise InputError(f"{path}: row {number} has no image.")
        refs.append(
            SceneRef(
                id=stem(str(cells["image"])),
                image=resolve(str(cells["image"]), folder),
                label=resolve(str(cells["label"]), folder) if "label" in cells else None,
                group=str(cells["group"]) if "group" in cells else None,
                pixel_size_um=_pixel_size(cells.get("pixel_size_um"), path, number),
                window=_window(cells, path, number),
            )
        )
    return refs


def _local_table(path: str) -> Path:
    """A table's file, or a copy of an object.

    Raises:
        InputError: It is not there, or the store cannot be read.
    """
    try:
        file = local_file(path)
        is_there = file.is_file()
    except FileNotFoundError:
        is_there = False
    except ValueError as error:
        raise InputError(f"A scene table is a file or in an object store: {error}.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not is_there:
        raise InputError(f"The scene table {path} does not exist.")
    return file


def with_unique_ids(refs: Sequence[SceneRef]) -> list[SceneRef]:
    """The same scenes with ids that differ: where names repeat, the folder's name is put in front.

    Raises:
        InputError: An image (or the same window of it) is listed twice.
    """
    repeated = _repeats((redact(ref.image), ref.window) for ref in refs)
    if repeated:
        raise InputError(f"{min(repeated)[0]} is listed twice.")
    clashing = _repeats(ref.id for ref in refs)
    named = [replace(ref, id=_with_folder(ref.image, ref.id)) if ref.id in clashing else ref for ref in refs]
    still = _repeats(ref.id for ref in named)
    taken = {ref.id for ref in named}
    unique = []
    for ref in named:
        if ref.id in still:
            ref = replace(ref, id=next(name for n in count(1) if (name := f"{ref.id}_{n}") not in taken))
            taken.add(ref.id)
        unique.append(ref)
    return unique


def with_known_ids(refs: Sequence[SceneRef], known: Mapping[str, str]) -> list[SceneRef]:
    """The same scenes, where those that were listed before keep their ids and new ones take no id that was given.

    Args:
        refs: Scenes of today's list, with ids that are unique in it.
        known: Image (as `redact` gives it) to id, of all lists before.
    """
    taken, named = {*known.values()}, []
    for ref in refs:
        if redact(ref.image) in known:
            named.append(replace(ref, id=known[redact(ref.image)]))
            continue
        tried = (ref.id, _with_folder(ref.image, stem(ref.image)))
        more = (f"{tried[1]}_{n}" for n in count(1))
        name = next(name for name in chain(tried, more) if name not in taken)
        taken.add(name)
        named.append(replace(ref, id=name))
    return named


def stem(path: str) -> str:
    """The file's name without its ending, with only letters, digits, '.', '_' and '-'; safe as a file's name."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", name_of(path)).lstrip(".")
    return name[:_LONGEST_NAME] or "scene"


def name_of(path: str) -> str:
    """The file's name without its ending; of addresses without what is not the file's."""
    return Path(without_query(path)).stem


def resolve(path: str, root: str) -> str:
    """An absolute path (workers have other working directories), or a URL below one; URLs stay as they are.

    Raises:
        InputError: It leads out of a bucket.
    """
    if "://" in path or path.startswith("/vsi"):
        return path
    path = os.path.expanduser(path)
    if is_store_url(root) and not os.path.isabs(path):
        scheme, _, folder = root.partition("://")
        bucket, found = folder.partition("/")[0], posixpath.normpath(posixpath.join(folder, path))
        if found.partition("/")[0] != bucket:
            raise InputError(f"{path} leads out of the bucket of {redact(root)}: give its whole URL.")
        return f"{scheme}://{found}"
    return os.path.abspath(os.path.join(os.path.expanduser(root), path))


def _with_folder(path: str, name: str) -> str:
    """A name with that of the file's folder in front, as long as it may be."""
    return f"{stem(os.path.dirname(without_query(path)))}_{name}"[-_LONGEST_NAME:].lstrip(".")


def _repeats(values: Iterable[_T]) -> set[_T]:
    return {value for value, number in Counter(values).items() if number > 1}


def _missing(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell)) or cell == ""


def _window(
    cells: Mapping[str, Any], path: str, number: int
) -> tuple[int | None, int | None, int | None, int | None] | None:
    found: list[int | None] = []
    for column in WINDOW_COLUMNS:
        cell = cells.get(column)
        try:
            value = None if cell is None else float(cell)
        except ValueError:
            value = -1.0
        if value is not None and (not value.is_integer() or value < (column in ("width", "height"))):
            raise InputError(f"{path}: row {number} has {column} {cell!r}; it must be a whole number of pixels.")
        found.append(None if value is None else int(value))
    if found == [None] * 4:
        return None
    col_off, row_off, width, height = found
    return col_off, row_off, width, height


def _pixel_size(cell: Any, path: str, number: int) -> float | None:
    if cell is None:
        return None
    try:
        size = float(cell)
    except ValueError:
        size = -1.0
    if not (0 < size < math.inf):
        raise InputError(f"{path}: row {number} has pixel_size_um {cell!r}; it must be a positive number.")
    return size
