"""SDS (sharpness-sensitive data selection): which samples a step keeps.

Of the `n` samples of a batch, SDS keeps the `k = max(1, ceil(gamma * n))`
samples whose loss rises the most when the weights are perturbed.
"""

import dataclasses
import fractions
from collections.abc import Callable

import numpy as np
from keras import ops


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Scores by which SDS ranks the samples; the largest are kept.

    Args:
        scores: Function `scores(losses, increase, draw)` that returns a tensor
            of shape `(batch_size,)`. `losses` and `increase` are such tensors:
            the logged losses, and how much the perturbation raises them.
            `draw()` returns uniform random numbers, one for each sample.
        needs_losses: Boolean, whether it needs the `losses`. If not, they are
            `None`.
        needs_increase: Boolean, whether it needs the `increase`, for which the
            step runs one more forward pass. If not, it is `None`.
    """

    scores: Callable
    needs_losses: bool = True
    needs_increase: bool = False


RANKINGS = {
    "sharpness": Ranking(
        lambda losses, increase, draw: increase, needs_increase=True
    ),
    "loss": Ranking(lambda losses, increase, draw: losses),
    "random": Ranking(
        lambda losses, increase, draw: draw(), needs_losses=False
    ),
}

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
        Integer or scalar integer tensor, at most `batch_size`. The latter is 0
        for a replica that gets no sample of a small last batch.
    """
    ratio = fractions.Fraction(gamma).limit_denominator(LARGEST_DENOMINATOR)
    # The product of the batch size may have more than 32 bits.
    whole = batch_size // ratio.denominator * ratio.numerator
    rest = batch_size % ratio.denominator * ratio.numerator
    rounded_up = whole - (-rest // ratio.denominator)
    if isinstance(batch_size, int):
        return min(max(1, rounded_up), batch_size)
    return ops.minimum(ops.maximum(1, rounded_up), batch_size)


def rounded_to_even(count, batch_size):
    """Adds one to an odd number of samples if the batch has more.

    With an odd batch size the gradient of oneDNN's strided convolutions writes
    beyond its memory.
    """
    if isinstance(count, int):
        return min(count + count % 2, batch_size)
    return ops.minimum(count + count % 2, batch_size)


def spread(batch_size, count):
    """Indices of samples at equal distances, from the first one on.

    Args:
        batch_size: Integer or scalar integer tensor.
        count: Integer or scalar integer tensor, at most `batch_size`.

    Returns:
        Integer tensor, shape `(count,)`, in ascending order. Unlike the first
        samples of a batch, these are not all of one kind if the batch is
        sorted, and not all on one device if it is sharded.
    """
    # The products may have more than 32 bits, which JAX does not have.
    if isinstance(count, int):
        return ops.convert_to_tensor(
            np.arange(count) * batch_size // max(1, count), "int32"
        )
    batch_size, count = (ops.cast(n, "int64") for n in (batch_size, count))
    # A replica that gets no sample has a count of 0.
    places = ops.arange(count, dtype="int64") * batch_size
    return ops.cast(places // ops.maximum(1, count), "int32")


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
