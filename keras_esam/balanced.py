"""A part of a data set with equally many samples of each class."""

import numpy as np


def balanced(labels: np.ndarray, count: int) -> np.ndarray:
    """Indices of `count` samples, equally many of each class, always alike.

    A smaller part is within a larger one.

    Args:
        labels: Array of integers, shape `(num_samples,)`.
        count: Integer.

    Returns:
        Array of integers, shape `(count,)`, one class after the other.

    Raises:
        ValueError: If there are not as many of each class.
    """
    rng = np.random.default_rng(0)
    classes, sizes = np.unique(labels, return_counts=True)
    largest = len(classes) * sizes.min()
    if count % len(classes) or not 0 < count <= largest:
        raise ValueError(
            f"The number of samples must be a multiple of {len(classes)} and "
            f"at most {largest}. Received: {count}"
        )
    return np.concatenate(
        [
            rng.permutation(np.flatnonzero(labels == label))[
                : count // len(classes)
            ]
            for label in classes
        ]
    )
