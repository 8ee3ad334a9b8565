"""Rows of batches whose sizes may only be known when a step runs."""

import keras
import tensorflow as tf

from keras_esam.backends import defaults


def batch_size(batch):
    """Integer if it is known when the step is traced, else a tensor."""
    leaves = keras.tree.flatten(batch[0])
    first = next(leaf for leaf in leaves if leaf is not None)
    return first.shape[0] or tf.shape(first)[0]


def with_rows(tensor, count, message):
    """The tensor; an error when the step runs if its rows are not `count`.

    Args:
        tensor: Dense, ragged or sparse tensor.
        count: Integer or scalar tensor, the expected number of rows.
        message: String, message of the error.
    """
    is_dense = not isinstance(tensor, (tf.RaggedTensor, tf.SparseTensor))
    if is_dense and tensor.shape[0] is not None and isinstance(count, int):
        return tensor
    if is_dense:
        rows = tf.shape(tensor)[0]
    elif isinstance(tensor, tf.SparseTensor):
        rows = tensor.dense_shape[0]
    else:
        rows = tensor.nrows()
    is_right = tf.debugging.assert_equal(
        tf.cast(count, rows.dtype), rows, message=f"{message} Received:"
    )
    if not is_dense:
        return tensor
    # XLA drops the assertion, but not this.
    with tf.control_dependencies([is_right] if is_right is not None else []):
        return tf.reshape(tensor, tf.concat([[count], tf.shape(tensor)[1:]], 0))


def take(tensor, indices):
    """The rows of a dense, ragged or sparse tensor at ascending indices."""
    if not isinstance(tensor, tf.SparseTensor):
        return tf.gather(tensor, indices)
    new_rows = tf.tensor_scatter_nd_update(
        tf.fill([tensor.dense_shape[0]], tf.constant(-1, tf.int64)),
        indices[:, None],
        tf.range(tf.size(indices, tf.int64)),
    )
    rows = tf.gather(new_rows, tensor.indices[:, 0])
    kept = rows >= 0
    columns = tf.boolean_mask(tensor.indices[:, 1:], kept)
    rows = tf.boolean_mask(rows, kept)
    return tf.SparseTensor(
        tf.concat([rows[:, None], columns], axis=1),
        tf.boolean_mask(tensor.values, kept),
        tf.concat(
            [tf.size(indices, tf.int64)[None], tensor.dense_shape[1:]], axis=0
        ),
    )


def each_micro_batch(run, num_samples, size):
    """Like `defaults.each_micro_batch`, traced once for all micro-batches.

    Args:
        run: Function `run(start, count)` of two integers or scalar tensors. It
            returns a tuple `(means, rows, fixed)`.
        num_samples: Integer or scalar tensor, number of samples of the batch.
        size: Integer, number of samples of a micro-batch.

    Returns:
        Tuple `(means, rows, fixed)` of the whole batch.
    """
    if tf.executing_eagerly():
        return defaults.each_micro_batch(run, int(num_samples), size)
    num_samples = tf.convert_to_tensor(num_samples, tf.int32)
    scalar = tf.TensorSpec((), tf.int32)
    step = tf.function(run, autograph=False).get_concrete_function(
        scalar, scalar
    )

    def weighted_step(start, count):
        means, rows, fixed = step(start, count)
        share = tf.cast(count, tf.float64) / tf.cast(num_samples, tf.float64)
        share = tf.where(num_samples == 0, tf.ones_like(share), share)
        return defaults.weighted(means, share), rows, fixed

    # A replica may have no samples.
    first = tf.minimum(num_samples, defaults.first_count(num_samples, size))
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
            defaults.added(total, _present(means)),
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
    """`values` with its tensors replaced by the tensors of `present`."""
    present = iter(present)
    return [None if value is None else next(present) for value in values]
