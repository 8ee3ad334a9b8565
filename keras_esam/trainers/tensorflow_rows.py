"""Rows of a batch: how many there are, and taking some of them."""

import keras
import tensorflow as tf


def batch_size(batch):
    """Integer where it is known when the step is traced, else a tensor."""
    leaves = keras.tree.flatten(batch[0])
    first = next(leaf for leaf in leaves if leaf is not None)
    return first.shape[0] or tf.shape(first)[0]


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
