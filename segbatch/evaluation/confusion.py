"""The confusion matrix: the one monoid that every reported figure derives from."""

import numpy as np
from numpy.typing import NDArray


def confusion_matrix(
    label: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    num_classes: int,
) -> NDArray[np.int64]:
    """Count pixels by (label, prediction).

    Pixels where either value is not a class id (ignored labels, nodata in the class mask) are not counted.
    Matrices of disjoint sets of pixels add up to the matrix of their union.

    Args:
        label: Class ids, any shape; ids of ``num_classes`` and above are skipped.
        prediction: Class ids, the shape of ``label``.
        num_classes: Number of classes.

    Returns:
        int64 array (num_classes, num_classes): rows = label, columns = prediction.

    Raises:
        ValueError: The shapes differ.
    """
    if label.shape != prediction.shape:
        raise ValueError(f"label has shape {label.shape}, prediction {prediction.shape}")
    pairs = np.left_shift(label, 8, dtype=np.uint16, casting="unsafe") | prediction
    counts = np.bincount(pairs.ravel(), minlength=1 << 16).reshape(256, 256)
    return counts[:num_classes, :num_classes].astype(np.int64)


def count_values(array: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How often each of the 256 values occurs in an array of any shape."""
    flat = np.ascontiguousarray(array).ravel()
    # Two values at a time: numpy's bincount spends most of its time on widening what it counts.
    pairs = np.bincount(flat[: len(flat) // 2 * 2].view(np.uint16), minlength=1 << 16).reshape(256, 256)
    counts = pairs.sum(axis=0) + pairs.sum(axis=1)
    if len(flat) % 2:
        counts[flat[-1]] += 1
    return counts.astype(np.int64)
