"""Rows of a batch: how many there are, and taking some of them."""

import keras
import tensorflow as tf

from keras_esam.trainers.part_of_batch import UNEQUAL_ROWS


def batch_size(batch):
    """Integer where it is known when the step is traced, else a tensor."""
    leaves = keras.tree.flatten(batch[0])
    first = next(leaf for leaf in leaves if leaf is not None)
    return first.shape[0] or tf.shape(first)[0]


def with_rows(tensor, count):
    """The tensor, which is an error when the step runs if it has other rows.

    Args:
        tensor: Dense, ragged or sparse tensor.
        count: Integer or scalar tensor, number of rows that it is to have.
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
        tf.cast(count, rows.dtype), rows, message=f"{UNEQUAL_ROWS} Received:"
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
