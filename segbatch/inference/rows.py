"""What travels between the stages, as rows of a Ray Dataset: columns of one element each.

Arrays stay whole and uncopied: Arrow keeps them as tensors in the object store, and readers get views of these.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from segbatch.inference.stages import DEVICE_SECONDS, BlockMask, BlockPixels
from segbatch.masks import CLASS_MASK

SECONDS = ("read", "wait", "idle", *DEVICE_SECONDS)
"""Stages whose seconds travel with a class mask."""

Row = dict[str, Any]


def pixels_to_row(pixels: BlockPixels) -> Row:
    """A block as read."""
    return {
        "scene": np.array([pixels.scene]),
        "block": np.array([pixels.block]),
        "values": _packed(pixels.values),
        "valid": _packed(np.packbits(pixels.valid)),
        "wanted": _packed(np.packbits(np.zeros(0, bool) if pixels.wanted is None else pixels.wanted)),
        "wanted_shape": np.array([(0, 0) if pixels.wanted is None else pixels.wanted.shape]),
        "empty": np.array([not pixels.valid.size]),
        "started": np.array([pixels.started]),
        "read": np.array([pixels.seconds["read"]]),
        "error": np.array([pixels.error or ""]),
    }


def row_to_pixels(row: Row) -> BlockPixels:
    """The inverse of `pixels_to_row`; pixels are views of the row's."""
    values = _unpacked(row["values"], bool(row["empty"][0]))
    wanted = tuple(row["wanted_shape"][0].tolist())
    return BlockPixels(
        scene=int(row["scene"][0]),
        block=int(row["block"][0]),
        values=values,
        valid=_bits(row["valid"][0], values.shape[-2:]),
        wanted=_bits(row["wanted"][0], wanted) if all(wanted) else None,
        started=float(row["started"][0]),
        seconds={"read": float(row["read"][0])},
        error=str(row["error"][0]) or None,
    )


def mask_to_row(predicted: BlockMask, names: Sequence[str], fatal: str = "") -> Row:
    """A block as predicted.

    Args:
        predicted: The block.
        names: Of all arrays that blocks of the run may have: Ray's rows are alike.
        fatal: What ends the run.
    """
    nothing = np.zeros((0, 0), np.uint8)
    return {
        "scene": np.array([predicted.scene]),
        "block": np.array([predicted.block]),
        **{name: _packed(predicted.arrays.get(name, nothing)) for name in names},
        "names": np.array([" ".join(name for name, array in predicted.arrays.items() if array.size)]),
        "windows": np.array([predicted.windows]),
        "started": np.array([predicted.started]),
        **{f"seconds_{name}": np.array([seconds]) for name, seconds in predicted.seconds.items()},
        "error": np.array([predicted.error or ""]),
        "note": np.array([predicted.note]),
        "memory": np.array([predicted.memory]),
        "fatal": np.array([fatal]),
    }


def row_to_mask(row: Row) -> BlockMask:
    """The inverse of `mask_to_row`; arrays are views of the row's."""
    arrays = {name: row[name][0] for name in str(row["names"][0]).split()}
    return BlockMask(
        scene=int(row["scene"][0]),
        block=int(row["block"][0]),
        arrays=arrays or {CLASS_MASK: np.zeros((0, 0), np.uint8)},
        windows=int(row["windows"][0]),
        started=float(row["started"][0]),
        seconds={name: float(row[f"seconds_{name}"][0]) for name in SECONDS},
        error=str(row["error"][0]) or None,
        note=str(row["note"][0]),
        memory=int(row["memory"][0]),
    )


def _packed(array: np.ndarray) -> np.ndarray:
    """A row's column; Arrow's tensors have no zero-sized sides."""
    return array[None] if array.size else np.zeros((1,) * (array.ndim + 1), array.dtype)


def _unpacked(column: np.ndarray, empty: bool) -> np.ndarray:
    array: np.ndarray = column[0]
    return array[:, :0, :0] if empty else array


def _bits(packed: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The bool array that was packed; a byte a pixel would be a fifth of what goes through the object store."""
    count = math.prod(shape)
    return np.unpackbits(packed, count=count).view(bool).reshape(shape) if count else np.zeros(shape, bool)
