"""Defaults for all backends, for one device and dense arrays.

A backend's module imports what it does not define itself.
"""

import contextlib

import keras
from keras import ops


def batch_size(batch):
    """Number of samples of a batch `(x, y, sample_weight)`: an integer, or a
    tensor if it is not known when the step is traced."""
    leaves = keras.tree.flatten(batch[0])
    return next(leaf for leaf in leaves if leaf is not None).shape[0]


def with_rows(tensor, count, message):
    """The tensor; an error when the step runs if it hasn't `count` rows."""
    del count, message
    return tensor


def take(tensor, indices):
    """The rows of a tensor at ascending indices."""
    return ops.take(tensor, indices, axis=0)


def dense(gradients):
    """Gradients as dense tensors, or `None`."""
    return gradients


def summed(gradients):
    """Gradients summed over the replicas of a strategy."""
    return gradients


def unscaled_loss(loss):
    """The loss as it is logged."""
    return loss


def recorded_if(condition):
    """Context of a pass that writes summaries only on a condition."""
    del condition
    return contextlib.nullcontext()


def shared_prefix(model, plan):
    """Nothing: compilers merge equal parts of two passes by themselves."""
    del model, plan


def check_random_numbers():
    """Warns if the passes of the step draw different random numbers."""


def commit(updates):
    """Assigns what the clean pass would have: pairs `(variable, tensor)`."""
    for variable, value in updates:
        variable.assign(value)


def apply_gradients(model, plan, gradients):
    """Updates the weights with the gradients of `gradients()`."""
    del plan
    model.optimizer.apply(gradients, model.trainable_variables)


def begin_micro_batch(start):
    """Gives the passes of the micro-batch that begins with the sample `start`
    their own random numbers."""


def each_micro_batch(run, num_samples: int, size: int):
    """Runs a step for the micro-batches of a batch of known size.

    Args:
        run: Function `run(start, count)` of the first sample and the number of
            samples. It returns a tuple `(means, rows, fixed)`, lists of tensors
            or `None`.
        num_samples: Integer, number of samples of the batch.
        size: Integer, number of samples of a micro-batch.

    Returns:
        Tuple `(means, rows, fixed)` of the whole batch: means weighted by the
        numbers of samples, concatenated rows, and `fixed` of the first.
    """
    # A replica may have no samples.
    first = min(num_samples, first_count(num_samples, size))
    starts = [0, *range(first, num_samples, size)]
    counts = [first] + [size] * (len(starts) - 1)
    parts = [run(start, c) for start, c in zip(starts, counts, strict=True)]
    means = [
        weighted(means, count / num_samples if num_samples else 1.0)
        for (means, _, _), count in zip(parts, counts, strict=True)
    ]
    rows = [
        None if values[0] is None else ops.concatenate(values)
        for values in zip(*(rows for _, rows, _ in parts), strict=True)
    ]
    total = means[0]
    for more in means[1:]:
        total = added(total, more)
    return total, rows, parts[0][2]


def first_count(num_samples, size: int):
    """Number of samples of the first micro-batch, 1 to `size`."""
    return (num_samples - 1) % size + 1


def weighted(values, share):
    """Tensors times their share of the batch, a float or a float64 scalar."""

    def times_share(value):
        # Keras would turn a float into a float32 scalar.
        is_float = isinstance(share, float)
        return value * (share if is_float else ops.cast(share, value.dtype))

    return [None if value is None else times_share(value) for value in values]


def added(values, others):
    """Sums of the tensors of two lists."""
    return [
        None if value is None else value + other
        for value, other in zip(values, others, strict=True)
    ]
