"""Communication between the replicas of a `tf.distribute` strategy in a step.

With one replica these functions return their arguments.
"""

import keras
import tensorflow as tf

from keras_esam.backends import defaults

SUM = tf.distribute.ReduceOp.SUM
MEAN = tf.distribute.ReduceOp.MEAN


def count() -> int:
    """Number of replicas, on all workers together."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def unscaled_loss(loss):
    """The logged loss: undoes Keras' division by the number of replicas."""
    return loss * tf.cast(count(), loss.dtype)


def commit(updates):
    """Assigns the clean pass' updates, identical on all replicas."""
    defaults.commit(averaged(updates))


def apply_gradients(model, plan, gradients):
    """Updates the weights, or none of them on any replica."""
    gradients = list(gradients)
    # Keras lets the replicas' copies drift apart.
    new_values = largest([gradients[index] for index in plan.overwritten])
    for index, value in zip(plan.overwritten, new_values, strict=True):
        gradients[index] = value
    if isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer):
        gradients = all_or_none_finite(dense(gradients))
    defaults.apply_gradients(model, plan, gradients)


def dense(gradients):
    """Gradients without `tf.IndexedSlices`; duplicate rows are added."""
    return [None if g is None else tf.convert_to_tensor(g) for g in gradients]


def summed(gradients):
    """Sums over the N replicas, whose losses Keras divides by N."""
    if count() == 1:
        return gradients
    sums = iter(_all_reduce(SUM, [g for g in gradients if g is not None]))
    return [None if g is None else next(sums) for g in gradients]


def averaged(updates):
    """Averages the updates of variables that have a copy on each replica.

    Keras lets the copies of BatchNormalization's statistics drift apart, since
    each replica has its own batches. Here they stay the same.
    """
    if count() == 1:
        return updates
    own = [
        variable.aggregation == "none" and value.dtype.is_floating
        for variable, value in updates
    ]
    values = [v for (_, v), is_own in zip(updates, own, strict=True) if is_own]
    means = iter(_all_reduce(MEAN, values))
    return [
        (variable, next(means) if is_own else value)
        for (variable, value), is_own in zip(updates, own, strict=True)
    ]


def average(variables):
    """Averages copies of variables that Keras lets drift apart."""
    if count() > 1:
        commit([(v, tf.convert_to_tensor(v)) for v in variables])


def largest(tensors):
    """Elementwise maxima over the replicas."""
    if count() == 1:
        return tensors
    context = tf.distribute.get_replica_context()
    return [
        None
        if tensor is None
        else tf.reduce_max(context.all_gather(tensor[None], axis=0), axis=0)
        for tensor in tensors
    ]


def all_or_none_finite(gradients):
    """Makes gradients not finite on all replicas if they are not on one.

    Keras asks only the first replica whether to skip a step.
    """
    if count() == 1:
        return gradients
    index = next(i for i, g in enumerate(gradients) if g is not None)
    finite = [
        tf.reduce_all(tf.math.is_finite(g)) for g in gradients if g is not None
    ]
    failed = tf.cast(tf.logical_not(tf.reduce_all(finite)), tf.float32)
    (failed,) = _all_reduce(SUM, [failed])
    first = gradients[index]
    gradients = list(gradients)
    # 0 / 0 is NaN too.
    gradients[index] = first / tf.cast(failed == 0, first.dtype)
    return gradients


def _all_reduce(operation, tensors):
    if not tensors:
        return []
    return tf.distribute.get_replica_context().all_reduce(operation, tensors)
