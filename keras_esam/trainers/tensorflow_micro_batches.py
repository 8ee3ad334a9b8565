"""Micro-batches in a loop of the graph, for batches of any size."""

import tensorflow as tf

from keras_esam.trainers import micro_batches


def each_micro_batch(run, num_samples, size):
    """As `micro_batches.each_micro_batch`, traced once for all micro-batches.

    Args:
        run: Function `run(start, count)` of two integers or scalar tensors that
            returns a tuple `(means, rows, fixed)`.
        num_samples: Integer or scalar tensor, number of samples of the batch.
        size: Integer, number of samples of a micro-batch.

    Returns:
        Tuple `(means, rows, fixed)` of the whole batch.
    """
    if tf.executing_eagerly():
        return micro_batches.each_micro_batch(run, int(num_samples), size)
    num_samples = tf.convert_to_tensor(num_samples, tf.int32)
    scalar = tf.TensorSpec((), tf.int32)
    step = tf.function(run, autograph=False).get_concrete_function(
        scalar, scalar
    )

    def weighted_step(start, count):
        means, rows, fixed = step(start, count)
        share = tf.cast(count, tf.float64) / tf.cast(num_samples, tf.float64)
        share = tf.where(num_samples == 0, tf.ones_like(share), share)
        return micro_batches.weighted(means, share), rows, fixed

    # A replica may have no samples.
    first = tf.minimum(
        num_samples, micro_batches.first_count(num_samples, size)
    )
    means, rows, fixed = weighted_step(tf.constant(0), first)
    num_more = (num_samples - first) // size
    arrays = [
        tf.TensorArray(
            row.dtype, num_more, element_shape=[None, *row.shape[1:]]
        )
        for row in _present(rows)
    ]

    def body(index, total, arrays):
        means, rows, _ = weighted_step(first + index * size, tf.constant(size))
        arrays = [
            array.write(index, row)
            for array, row in zip(arrays, _present(rows), strict=True)
        ]
        return (
            index + 1,
            micro_batches.added(total, _present(means)),
            arrays,
        )

    _, total, arrays = tf.while_loop(
        lambda index, *_: index < num_more,
        body,
        (tf.constant(0), _present(means), arrays),
        parallel_iterations=1,
    )
    # No element, no concatenation.
    joined = tf.cond(
        num_more > 0,
        lambda: [
            tf.concat([row, array.concat()], axis=0)
            for row, array in zip(_present(rows), arrays, strict=True)
        ],
        lambda: _present(rows),
    )
    return _like(means, total), _like(rows, joined), fixed


def _present(values):
    return [value for value in values if value is not None]


def _like(values, present):
    """The tensors of `present` in the places of those of `values`."""
    present = iter(present)
    return [None if value is None else next(present) for value in values]
