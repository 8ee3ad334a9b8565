"""SDS (sharpness-sensitive data selection): which samples a step keeps.

Of the `n` samples of a batch, `k = max(1, ceil(gamma * n))` are kept: those
whose loss rises the most when the weights are perturbed.
"""

import fractions
import functools
from collections.abc import Callable

import keras
from keras import ops

RANKINGS = ("sharpness", "loss", "random")

# gamma is taken as the nearest fraction with at most this denominator, since
# in floating point ceil(0.07 * 100) is 8.
LARGEST_DENOMINATOR = 10_000


def num_selected(batch_size, gamma: float):
    """Number of samples to keep: `max(1, ceil(gamma * batch_size))`.

    Args:
        batch_size: Integer, or scalar integer tensor if it is only known when
            the step runs.
        gamma: Float in `(0, 1]`.

    Returns:
        Integer or scalar integer tensor, at most `batch_size`; a tensor is 0
        for an empty batch.
    """
    ratio = fractions.Fraction(gamma).limit_denominator(LARGEST_DENOMINATOR)
    rounded_up = -((-batch_size * ratio.numerator) // ratio.denominator)
    if isinstance(batch_size, int):
        return max(1, rounded_up)
    # Where the last batch has too few samples for all replicas, one has none.
    return ops.minimum(batch_size, ops.maximum(1, rounded_up))


def select(scores, count):
    """Indices of the samples with the largest scores, in batch order.

    Args:
        scores: Float tensor, shape `(batch_size,)`.
        count: Integer or scalar integer tensor, at most `batch_size`.

    Returns:
        Integer tensor, shape `(count,)`: exactly `count` indices, ties
        included, in ascending order.
    """
    _, indices = ops.top_k(scores, count)
    return ops.sort(indices)


def gather(batch, indices, take: Callable | None = None):
    """The selected samples of every tensor in a nested structure.

    Args:
        batch: Nested structure of tensors, shapes `(batch_size, d0, .. dN)`.
            `None` stays `None`.
        indices: Integer tensor, shape `(count,)`.
        take: Optional function `take(tensor, indices)` that takes rows, for
            backends with other kinds of tensors. Defaults to
            `keras.ops.take` along the first axis.

    Returns:
        The same structure of tensors, shapes `(count, d0, .. dN)`.
    """
    take = take or functools.partial(ops.take, axis=0)
    return keras.tree.map_structure(
        lambda tensor: None if tensor is None else take(tensor, indices), batch
    )
