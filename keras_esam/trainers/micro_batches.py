"""m-sharpness: a step's batch in micro-batches with a perturbation each.

A micro-batch goes through the step as if it were the batch of a replica: its
own perturbation, its own selection of samples, its own statistics in
BatchNormalization. The first one has what is left over, the others have `size`
samples. What comes out of them is a tuple of

    means  the loss, the gradients, new values of floating-point state, what is
           added to metrics: their mean over the micro-batches, weighted by
           their numbers of samples
    rows   predictions, rises of the losses, new scales and histories of float8
           training: one after the other
    fixed  new values of other state, such as seeds, which are alike in all

each of them a list of tensors or `None`.

Reference:

- [Foret et al., 2021](https://arxiv.org/abs/2010.01412), section 4.1
"""

import keras
from keras import ops

from keras_esam import sample_losses
from keras_esam import selection
from keras_esam.trainers import passes


def gradients(model, batch, weights, state, plan):
    """As `ESAMStep._two_gradients`, for the micro-batches of a batch."""
    assigned, y_pred = [], None
    num_samples = model._batch_size(batch)

    def run(start, count):
        nonlocal y_pred
        part = selection.gather(
            batch, start + ops.arange(count), take=model._take
        )
        clean, gradients, rise = model._two_gradients(
            part, weights, state, plan
        )
        y_pred = clean.y_pred
        assigned[:] = [variable for variable, _ in clean.updates]
        values = [
            _increase(variable, value, _ratio(num_samples, count))
            if _is_sum(variable)
            else value
            for variable, value in clean.updates
        ]
        means = [clean.loss, *model._dense(gradients)]
        means += [v if _is_float(v) else None for v in values]
        fixed = [None if _is_float(v) else v for v in values]
        outputs = keras.tree.flatten(y_pred)
        masks = [sample_losses.keras_mask(output) for output in outputs]
        new_values = [
            None if gradients[i] is None else ops.expand_dims(gradients[i], 0)
            for i in model._overwritten
        ]
        return means, [*new_values, rise, *outputs, *masks], fixed

    means, rows, fixed = model._each_micro_batch(
        run, num_samples, model.micro_batch_size
    )
    loss, gradients = means[0], means[1 : 1 + len(weights)]
    # As Keras does when it accumulates gradients.
    for index in model._overwritten:
        new_values = rows.pop(0)
        if new_values is not None:
            gradients[index] = ops.max(new_values, axis=0)
    rise, *rows = rows
    values = [
        other if mean is None else mean
        for mean, other in zip(means[1 + len(weights) :], fixed, strict=True)
    ]
    updates = [
        (variable, _increased(variable, value) if _is_sum(variable) else value)
        for variable, value in zip(assigned, values, strict=True)
    ]
    outputs, masks = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    for output, mask in zip(outputs, masks, strict=True):
        keras.src.backend.set_keras_mask(output, mask)
    whole = passes.ForwardPass(
        keras.tree.pack_sequence_as(y_pred, outputs),
        loss,
        sample_losses=None,
        weights=weights,
        updates=updates,
    )
    return whole, gradients, rise


def each_micro_batch(run, num_samples: int, size: int):
    """Runs a step for the micro-batches of a batch of known size.

    Args:
        run: Function `run(start, count)` of the first sample and the number of
            samples that returns a tuple `(means, rows, fixed)`.
        num_samples: Integer, number of samples of the batch.
        size: Integer, number of samples of a micro-batch.

    Returns:
        Tuple `(means, rows, fixed)` of the whole batch.
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
    return total, rows, parts[-1][2]


def first_count(num_samples, size: int):
    """Number of samples of the first micro-batch, 1 to `size`."""
    return (num_samples - 1) % size + 1


def weighted(values, share):
    """Tensors times their share of the batch, a float or a float64 scalar."""

    def times_share(value):
        # Keras would make a float32 scalar of a float.
        is_float = isinstance(share, float)
        return value * (share if is_float else ops.cast(share, value.dtype))

    return [None if value is None else times_share(value) for value in values]


def added(values, others):
    """Sums of the tensors of two lists."""
    return [
        None if value is None else value + other
        for value, other in zip(values, others, strict=True)
    ]


def _is_sum(variable):
    """Whether it adds up over the replicas, as the state of metrics does."""
    return variable.aggregation == "sum"


def _ratio(num_samples, count):
    """How many times `count` goes into the batch, 1 if both are 0."""
    if isinstance(count, int):
        return num_samples / count if count else 1.0
    return ops.where(count == 0, 1.0, num_samples / count)


def _increase(variable, value, factor):
    """What a micro-batch adds, so that the mean is what all of them add."""
    increase = ops.cast(value - variable.value, "float32")
    return increase * ops.cast(factor, "float32")


def _increased(variable, increase):
    if not _is_float(variable):
        increase = ops.round(increase)
    return variable.value + ops.cast(increase, variable.dtype)


def _is_float(tensor):
    return "float" in keras.backend.standardize_dtype(tensor.dtype)
