"""Batches of images that fit into memory."""

import tensorflow as tf

from keras_esam.data import checks
from keras_esam.data import epochs


def array_batches(images, labels, batch_size, prepare, seed=None, epoch=None):
    """Data set of batches, gathered and prepared as a whole.

    Args:
        images: Array, shape `(num_samples, height, width, channels)`.
        labels: Array of integers, shape `(num_samples,)`.
        batch_size: Integer.
        prepare: Function of images, shape `(batch_size, height, width,
            channels)`, and a seed of shape `(2,)`, or `None` in the test split,
            that returns the images to train on.
        seed: Optional integer. With it the samples are shuffled, and what does
            not fill a batch is left out.
        epoch: See `epochs.epoch_keys`.

    Returns:
        A `tf.data.Dataset` of known length, pairs of images and labels.
    """
    # One copy in host memory, which all iterators share.
    with tf.device("CPU:0"):
        images = tf.convert_to_tensor(images)
        labels = tf.convert_to_tensor(labels, dtype="int32")

    def batch(indices, seed=None):
        return prepare(tf.gather(images, indices), seed), tf.gather(
            labels, indices
        )

    num_samples = len(labels)
    if seed is None:
        order = tf.data.Dataset.range(num_samples).batch(batch_size)
    else:
        checks.check_fills_a_batch(batch_size, num_samples)
        order = epochs.shuffled(num_samples, seed, epoch, batch_size)
    return epochs.finish(
        order.map(batch, num_parallel_calls=epochs.NUM_PARALLEL)
    )
