"""Forward passes with TensorFlow, whose functions reach past a stateless scope.

It has three ways past it, which would lose gradients without a word:

- A `tf.function` in a layer or a loss keeps the tensors of the pass that it
    was traced in. The bodies of such functions are therefore run in place,
    unless they need AutoGraph.
- `tf.recompute_grad` (`keras.remat`) knows the gradients of its arguments and
    of variables, not those of tensors that its function reads. It is an error.
- Anything else that leaves a weight without a gradient which it has in plain
    Keras is an error too.
"""

import contextlib

import tensorflow as tf

from keras_esam.trainers import passes
from keras_esam.trainers.shared_operations import SharedOperations
from keras_esam.trainers.tensorflow_functions import functions_in_place


class SharedTensors(SharedOperations):
    """`SharedOperations` of one graph of TensorFlow."""

    @staticmethod
    def _current_place():
        return tf.compat.v1.get_default_graph()


def recorded_if(condition):
    """Context in which `tf.summary` writes what it would, on a condition.

    Args:
        condition: Boolean or scalar tensor.
    """
    return tf.summary.record_if(
        tf.logical_and(condition, tf.summary.should_record_summaries())
    )


def forward(
    model,
    batch,
    weights,
    state,
    total=True,
    per_sample=True,
    tape=None,
    training=True,
    shared=None,
    losses=None,
) -> passes.ForwardPass:
    """As `passes.forward`.

    Args:
        model: The `ESAMModel`, or without `per_sample` any `keras.Model`.
        batch: Tuple `(x, y, sample_weight)`.
        weights: List of tensors, values of the trainable variables.
        state: List of pairs `(variable, tensor)` for all other variables.
        total: Boolean, whether to compute the loss that is minimised.
        per_sample: Boolean, whether to compute the per-sample losses.
        tape: Optional `tf.GradientTape` that watches `weights`.
        training: Boolean, training or inference mode.
        shared: Optional `SharedOperations`.
        losses: Optional `loss_factors.ScaledLosses`.

    Returns:
        A `ForwardPass`.
    """
    trainable = {id(variable) for variable in model.trainable_variables}

    def on_assign(variable, value):
        # The gradient of a weight that a layer assigns is that of its new
        # value, as in Keras, and does not reach back through the assignment.
        if id(variable) in trainable:
            value = tf.stop_gradient(value)
            if tape is not None:
                tape.watch(value)
        return value

    def run(context, loss_context):
        return passes.forward(
            model,
            batch,
            weights,
            state,
            total,
            per_sample,
            context=context,
            loss_context=loss_context,
            on_assign=on_assign,
            training=training,
            shared=shared,
            losses=losses,
        )

    as_it_is = contextlib.nullcontext
    # If the body of a `tf.function` needs AutoGraph, `check_gradients` sees to
    # it that there are no weights in it.
    for contexts in (
        (functions_in_place, functions_in_place),
        (functions_in_place, as_it_is),
    ):
        with contextlib.suppress(tf.errors.OperatorNotAllowedInGraphError):
            return run(*contexts)
    return run(as_it_is, as_it_is)
