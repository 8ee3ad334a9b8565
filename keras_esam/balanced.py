"""Class-balanced subsets of a data set."""

import numpy as np


def balanced(labels: np.ndarray, count: int) -> np.ndarray:
    """Indices of `count` samples, equally many of each class in turn.

    They are always the same, and a larger part contains the smaller ones.
    """
    rng = np.random.default_rng(0)
    classes, sizes = np.unique(labels, return_counts=True)
    largest = len(classes) * sizes.min()
    if count % len(classes) or not 0 < count <= largest:
        raise ValueError(
            f"The number of samples must be a multiple of {len(classes)} and "
            f"at most {largest}. Received: {count}"
        )
    each = count // len(classes)
    return np.concatenate(
        [
            rng.permutation(np.flatnonzero(labels == label))[:each]
            for label in classes
        ]
    )
