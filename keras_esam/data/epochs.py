"""Checks, order and random numbers of an epoch, for all pipelines.

Order and random numbers are functions of (seed, epoch) alone, by TensorFlow's
stateless random numbers. They depend neither on the number of threads nor on
earlier draws, so a resumed training sees the same as an uninterrupted one.
"""

import concurrent.futures
import os

import tensorflow as tf

from keras_esam import arguments

NUM_PARALLEL = os.cpu_count() or 1


def check(split, splits, batch_size, seed, epoch):
    """Checks arguments. Returns the seed, or `None` if not for training."""
    arguments.check_choice("split", split, splits)
    arguments.check_count("batch_size", batch_size)
    if seed is None:
        raise TypeError("`seed` must be an integer. Received: seed=None")
    arguments.check_seed(seed)
    is_variable = isinstance(epoch, tf.Variable)
    if epoch is not None and not (
        is_variable and epoch.dtype.is_integer and epoch.shape.rank == 0
    ):
        kinds = (
            "`None` or a scalar integer `tf.Variable`, such as the attribute "
            "`epoch` of `keras_esam.callbacks.EpochCounter`"
        )
        raise arguments.type_error("epoch", kinds, epoch)
    return seed if split == "train" else None


def check_fills_a_batch(batch_size, num_samples):
    """Checks that the samples fill at least one training batch."""
    if batch_size > num_samples:
        raise ValueError(
            "`batch_size` must be at most the number of training samples, "
            f"{num_samples}. Received: batch_size={batch_size}"
        )


def make_epoch_variable(value=0):
    """Scalar int64 variable in host memory, where the pipelines run."""

    def make():
        with tf.device("CPU:0"):
            return tf.Variable(
                value, trainable=False, dtype="int64", name="epoch"
            )

    # In the scope of a strategy it would get a copy on each device. The scope
    # belongs to a thread.
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(make).result()


def epoch_keys(seed, epoch):
    """Data set of one element, the keys of the iterator's epoch.

    They are a pair of seeds, int64 of shape `(2, 2)`: for the order, and for
    everything else. The variable `epoch` is read when an iterator's first
    element is requested. Without it each iterator gets the next number.
    """
    counter = make_epoch_variable(-1) if epoch is None else epoch

    def keys(_):
        if epoch is None:
            number = counter.assign_add(1)
        else:
            number = tf.cast(counter.read_value(), "int64")
        key = tf.random.fold_in(tf.constant([seed, 0], "int64"), number)
        return tf.random.split(key)

    return tf.data.Dataset.range(1).map(keys)


def shuffled(num_samples, seed, epoch, batch_size=None):
    """Data set of all samples' indices, in the order of the epoch.

    Its elements are an index, int64 of shape `()` or `(batch_size,)`, and a
    seed for their stateless random numbers, int64 of shape `(2,)`. An
    incomplete last batch is dropped.
    """
    num_elements = num_samples // (batch_size or 1)

    def order(keys):
        indices = tf.random.experimental.stateless_shuffle(
            tf.range(num_samples, dtype="int64"), keys[0]
        )
        if batch_size is not None:
            indices = indices[: num_elements * batch_size]
            indices = tf.reshape(indices, (num_elements, batch_size))
        return indices, tf.random.split(keys[1], num_elements)

    return epoch_keys(seed, epoch).map(order).unbatch()


def array_batches(images, labels, batch_size, prepare, seed=None, epoch=None):
    """Data set of batches of images in memory, shuffled if there is a seed.

    `prepare(images, seed)` prepares the images of a batch, with its seed of
    shape `(2,)`, or `None` in the test split.
    """
    # One copy in host memory, which all iterators share.
    with tf.device("CPU:0"):
        images = tf.convert_to_tensor(images)
        labels = tf.convert_to_tensor(labels, dtype="int32")

    def batch(indices, seed=None):
        x = prepare(tf.gather(images, indices), seed)
        return x, tf.gather(labels, indices)

    num_samples = len(labels)
    if seed is None:
        order = tf.data.Dataset.range(num_samples).batch(batch_size)
    else:
        check_fills_a_batch(batch_size, num_samples)
        order = shuffled(num_samples, seed, epoch, batch_size)
    return finish(order.map(batch, num_parallel_calls=NUM_PARALLEL))


def finish(dataset):
    """Adds prefetching and the options of all pipelines."""
    options = tf.data.Options()
    options.deterministic = True
    # Its thread can delay the end of an epoch by seconds.
    options.autotune.enabled = False
    # The map runs on all cores already.
    options.threading.max_intra_op_parallelism = 1
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    return dataset.prefetch(2).with_options(options)
