"""Gradients of a model's loss at given values of its variables."""

import tensorflow as tf

from keras_esam.trainers import own_calls
from keras_esam.trainers import passes
from keras_esam.trainers import tensorflow_passes
from keras_esam.trainers.backward_scope import BackwardScope


def gradients(model, batch, weights, state, sources, valid=None, **kwargs):
    """See `ESAMStep._gradients`; a gradient may be `tf.IndexedSlices`."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([weights[index] for index in sources])
        result = tensorflow_passes.forward(
            model, batch, weights, state, tape=tape, **kwargs
        )
        loss = passes.scaled_loss(model, result.loss, valid)
    with BackwardScope(model.trainable_variables):
        values = tape.gradient(
            loss, [result.weights[index] for index in sources]
        )
    return result, values


def dense(values):
    """Gradients without `tf.IndexedSlices`, whose duplicate rows are added."""
    return [None if g is None else tf.convert_to_tensor(g) for g in values]


@own_calls.own_calls()
def check_gradients(model, batch, gradients):
    """See `ESAMStep._check_gradients`."""
    pairs = zip(model.trainable_variables, gradients, strict=True)
    missing = [variable for variable, gradient in pairs if gradient is None]
    if not missing:
        return
    x, y, sample_weight = batch
    lost = []

    # Traced and never run.
    @tf.autograph.experimental.do_not_convert
    def plain_step():
        with tf.GradientTape() as tape:
            training = (
                {"training": True} if model._call_has_training_arg else {}
            )
            y_pred = model(x, **training)
            loss = model._compute_loss(
                x, y, y_pred, sample_weight, training=True
            )
        for variable, gradient in zip(
            missing, tape.gradient(loss, missing), strict=True
        ):
            if gradient is not None:
                lost.append(variable.path)

    tf.function(plain_step).get_concrete_function()
    if lost:
        raise ValueError(
            f"The gradients of the weights {lost} would be lost. They reach "
            "the loss in a way that a stateless call does not follow, as "
            "within `keras.remat`, `tf.recompute_grad` or a `tf.function` that "
            "needs AutoGraph. Do not use these around trainable weights, or "
            "train with `rho=0`."
        )
