"""Passes and gradients with `tf.GradientTape`.

A tape that watches fewer tensors records fewer operations, so a step with a
static subset of the variables is cheaper.

Two features of TensorFlow bypass a stateless call and would silently lose
gradients. A `tf.function` in a layer keeps the tensors of the pass in which it
was traced, and `tf.recompute_grad` knows only the gradients of its arguments
and of variables. Both are errors if they read trainable weights.
"""

import contextlib
import functools

import tensorflow as tf

from keras_esam import own_calls
from keras_esam.backends import forward_pass
from keras_esam.backends.defaults import begin_micro_batch
from keras_esam.backends.defaults import shared_prefix
from keras_esam.backends.tensorflow_batches import batch_size
from keras_esam.backends.tensorflow_batches import each_micro_batch
from keras_esam.backends.tensorflow_batches import take
from keras_esam.backends.tensorflow_batches import with_rows
from keras_esam.backends.tensorflow_random import check_random_numbers
from keras_esam.backends.tensorflow_replicas import apply_gradients
from keras_esam.backends.tensorflow_replicas import commit
from keras_esam.backends.tensorflow_replicas import dense
from keras_esam.backends.tensorflow_replicas import summed
from keras_esam.backends.tensorflow_replicas import unscaled_loss

value = tf.convert_to_tensor

# Operations that run the graph of a function.
_CALLS = ("Case", "If", "PartitionedCall", "StatefulPartitionedCall", "While")


def recorded_if(condition):
    """Context in which `tf.summary` writes only on a condition."""
    return tf.summary.record_if(
        tf.logical_and(condition, tf.summary.should_record_summaries())
    )


def forward(model, batch, weights, state, tape=None, **kwargs):
    """Like `forward_pass.forward`, with a `tape` that watches `weights`."""
    trainable = {id(variable) for variable in model.trainable_variables}
    place = _place()

    def on_assign(variable, value):
        if _place() is not place:
            raise ValueError(
                f"The variable `{variable.path}` is assigned within a "
                "`tf.function` or a control flow of TensorFlow, from which "
                "the value would not reach the other passes of the step. "
                "Remove the `tf.function`: `fit` compiles the whole step. "
                "Or train with `rho=0`."
            )
        # If a layer assigns a weight, the gradient is with respect to the new
        # value, as in Keras. It does not reach back through the assignment.
        if id(variable) in trainable:
            value = tf.stop_gradient(value)
            if tape is not None:
                tape.watch(value)
        return value

    return forward_pass.forward(
        model, batch, weights, state, on_assign=on_assign, **kwargs
    )


def gradients(model, batch, weights, state, sources, valid=None, **kwargs):
    """Forward pass, and the gradients of its loss."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([weights[index] for index in sources])
        result = forward(model, batch, weights, state, tape=tape, **kwargs)
        loss = forward_pass.scaled_loss(model, result.loss, valid)
    with backward_scope(model):
        values = tape.gradient(
            loss, [result.weights[index] for index in sources]
        )
    return result, values


def backward_scope(model):
    """Context of a gradient computation, in which no weight may be read."""
    return forward_pass.BackwardScope(model.trainable_variables)


@own_calls.own_calls()
def check_gradients(model, batch, weights, state, gradients):
    """Raises an error if gradients are lost on the way to the weights.

    A stateless call must depend only on the values that it is given: not on the
    variables themselves, nor on the tensors of an earlier pass. It must have
    the same gradients as the plain call.
    """
    is_compiled = not tf.executing_eagerly()
    if is_compiled and not _has_calls() and None not in gradients:
        return
    variables = [*model.trainable_variables, *(v for v, _ in state)]
    values = [*weights, *(value for _, value in state)]

    # Traced and never run.
    @functools.partial(tf.function, autograph=False)
    def run(*new):
        pairs = list(zip(variables, new, strict=True))[len(weights) :]
        with recorded_if(False):
            forward(model, batch, new[: len(weights)], pairs, per_sample=False)

    specs = [tf.TensorSpec(value.shape, value.dtype) for value in values]
    captured = set()
    # Code that runs eagerly may not be traceable.
    with (
        contextlib.nullcontext()
        if is_compiled
        else contextlib.suppress(Exception)
    ):
        graph = run.get_concrete_function(*specs).graph
        captured = {id(tensor) for tensor, _ in graph.captures}
    lost = {
        variable.path
        for variable, value in zip(variables, values, strict=True)
        if not captured.isdisjoint({id(value), id(variable.value.handle)})
    }
    pairs = zip(model.trainable_variables, gradients, strict=True)
    missing = [variable for variable, gradient in pairs if gradient is None]
    lost |= _paths_with_gradient(model, batch, missing)
    if lost:
        raise ValueError(
            f"The gradients of the variables {sorted(lost)} would be lost. "
            "They reach the loss in a way that a stateless call does not "
            "follow, as within a `tf.function`, `keras.remat` or "
            "`tf.recompute_grad`. Remove the `tf.function`: `fit` compiles the "
            "whole step. Or train with `rho=0`."
        )


def _paths_with_gradient(model, batch, variables):
    """Paths of the variables that have a gradient in plain Keras."""
    if not variables:
        return set()
    x, y, sample_weight = batch
    found = set()

    # Traced and never run.
    @functools.partial(tf.function, autograph=False)
    def plain_step():
        with recorded_if(False), tf.GradientTape() as tape:
            y_pred = forward_pass.call(model, x, training=True)
            loss = forward_pass.total_loss(model, x, y, y_pred, sample_weight)
        for variable, gradient in zip(
            variables, tape.gradient(loss, variables), strict=True
        ):
            if gradient is not None:
                found.add(variable.path)

    plain_step.get_concrete_function()
    return found


def _place():
    """The graph being built, or `None` if TensorFlow runs eagerly."""
    if tf.executing_eagerly():
        return None
    return tf.compat.v1.get_default_graph()


def _has_calls():
    return any(op.type in _CALLS for op in _place().get_operations())


def compiled(function):
    """The function as a graph, one for each shape of its arguments."""
    graphs = tf.function(function, autograph=False)

    def call(*args):
        with no_retracing_warning():
            return graphs(*args)

    return call


@contextlib.contextmanager
def no_retracing_warning():
    """Context without TensorFlow's warning of retraced functions.

    TensorFlow takes functions from the same lines for retraces of one function,
    such as the steps of the subsets, or the mean losses of several models. Its
    advice, to make fewer of them, would be wrong here.
    """

    def is_other(record):
        return "triggered tf.function retracing" not in record.getMessage()

    logger = tf.get_logger()
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def value_and_gradients(function, tensors):
    """Results of a function of tensors, and its gradients."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(tensors)
        result, others = function(tensors)
    return result, others, dense(tape.gradient(result, tensors))


def hessian_vector_product(function, tensors, vectors):
    """The gradient of the gradient's product with the vectors."""
    if tf.executing_eagerly():
        product = functools.partial(hessian_vector_product, function)
        return tf.function(product, autograph=False)(tensors, vectors)
    with _place().gradient_override_map({"StopGradient": _OF_MOMENTS}):
        result, _ = function(tensors)
    # A tape does not look at the map.
    gradients = dense(tf.gradients(result, tensors))
    slope = tf.zeros((), result.dtype)
    for gradient, vector in zip(gradients, vectors, strict=True):
        if gradient is not None:
            slope += tf.cast(tf.reduce_sum(gradient * vector), slope.dtype)
    return dense(tf.gradients(slope, tensors, unconnected_gradients="zero"))


# Normalization layers get the variance from `tf.nn.moments`, which stops the
# gradient at the mean. The first derivative is still right, but the variance's
# second derivative would lack `-2 / n**2`.
_OF_MOMENTS = "KerasESAMStopGradient"


@tf.RegisterGradient(_OF_MOMENTS)
def _gradient_of_moments(operation, gradient):
    return gradient if "moments" in operation.name.split("/") else None
