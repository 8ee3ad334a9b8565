"""Checks of the arguments that the pipelines have in common."""

import tensorflow as tf

from keras_esam import arguments


def check_common(split, splits, batch_size, seed, epoch):
    """Raises an error unless these arguments are right.

    Raises:
        TypeError: If one has a wrong type.
        ValueError: If one has a wrong value.
    """
    arguments.check_choice("split", split, splits)
    arguments.check_count(batch_size=batch_size)
    if seed is None:
        raise TypeError("`seed` must be an integer. Received: seed=None")
    arguments.check_seed(seed)
    is_variable = isinstance(epoch, tf.Variable)
    if epoch is not None and not (
        is_variable and epoch.dtype.is_integer and epoch.shape.rank == 0
    ):
        raise TypeError(
            "`epoch` must be `None` or a scalar integer `tf.Variable`, such as "
            "the attribute `epoch` of `keras_esam.callbacks.EpochCounter`. "
            f"Received: epoch={arguments.short(epoch)} of type {type(epoch)}"
        )


def check_fills_a_batch(batch_size, num_samples):
    """Training leaves out what does not fill a batch: there must be one."""
    if batch_size > num_samples:
        raise ValueError(
            "`batch_size` must be at most the number of training samples, "
            f"{num_samples}. Received: batch_size={batch_size}"
        )
