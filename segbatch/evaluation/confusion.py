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
    counted = (label < num_classes) & (prediction < num_classes)
    pairs = label[counted].astype(np.intp) * num_classes + prediction[counted]
    counts = np.bincount(pairs, minlength=num_classes * num_classes)
    return counts.reshape(num_classes, num_classes).astype(np.int64)
