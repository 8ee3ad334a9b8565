"""Forward and backward passes of a model at given values of its variables.

The values are tensors and the model is called in a stateless scope, so the
variables do not change. TensorFlow has three ways past such a scope, which
would lose gradients without a word:

- A `tf.function` in a layer keeps the tensors of the pass that it was traced
    in. While the model is called, the bodies of such functions are therefore
    run in place, unless they need AutoGraph.
- `tf.recompute_grad` (`keras.remat`) knows the gradients of its arguments and
    of variables, not those of tensors that its function reads. It is an error.
- Anything else that leaves a weight without a gradient which it has in plain
    Keras is an error too.
"""

import contextlib
import dataclasses
import threading

import tensorflow as tf

from keras_esam.trainers.recording_scope import RecordingScope


@dataclasses.dataclass
class ForwardPass:
    """What a forward pass leaves behind.

    Args:
        y_pred: Predictions, nested structure of tensors.
        loss: Scalar, the loss that is minimised; `None` in the ranking pass.
        sample_losses: Tensor, shape `(batch_size,)`, or `None`.
        weights: List of tensors, the values of the trainable variables that
            the loss is a function of.
        scope: `RecordingScope` with the updates of the pass.
    """

    y_pred: object
    loss: tf.Tensor | None
    sample_losses: tf.Tensor | None
    weights: list
    scope: RecordingScope


def forward(
    model, batch, weights, state, total=True, per_sample=True, tape=None
) -> ForwardPass:
    """Runs a model in training mode with the given variable values.

    Args:
        model: The `ESAMModel`.
        batch: Tuple `(x, y, sample_weight)`.
        weights: List of tensors, values of the trainable variables.
        state: List of pairs `(variable, tensor)` for all other variables.
        total: Boolean, whether to compute the loss that is minimised.
        per_sample: Boolean, whether to compute the per-sample losses.
        tape: Optional `tf.GradientTape` that watches `weights`.

    Returns:
        A `ForwardPass`.
    """
    arguments = (model, batch, weights, state, total, per_sample, tape)
    try:
        return _forward(*arguments, context=functions_in_place())
    except tf.errors.OperatorNotAllowedInGraphError:
        # The body of a `tf.function` needs AutoGraph. `check_gradients` sees
        # to it that there are no weights in it.
        return _forward(*arguments, context=contextlib.nullcontext())


def _forward(model, batch, weights, state, total, per_sample, tape, context):
    x, y, sample_weight = batch
    variables = model.trainable_variables
    trainable = {id(variable) for variable in variables}

    def on_assign(variable, value):
        # The gradient of a weight that a layer assigns is that of its new
        # value, as in Keras, and does not reach back through the assignment.
        if id(variable) in trainable:
            value = tf.stop_gradient(value)
            if tape is not None:
                tape.watch(value)
        return value

    loss = sample_losses = None
    mapping = [*zip(variables, weights, strict=True), *state]
    with RecordingScope(mapping, on_assign) as scope:
        # A `call` without the argument decides for itself, as in Keras.
        training = {"training": True} if model._call_has_training_arg else {}
        with context:
            y_pred = model(x, **training)
        if total:
            loss = model._compute_loss(
                x, y, y_pred, sample_weight, training=True
            )
        if per_sample:
            sample_losses = model.compute_sample_losses(
                x, y, y_pred, sample_weight
            )
    weights = [scope.get_current_value(variable) for variable in variables]
    return ForwardPass(y_pred, loss, sample_losses, weights, scope)


class _Turns:
    """How many passes run, and what TensorFlow's switch was before them."""

    lock = threading.Lock()
    count = 0
    before = False


@contextlib.contextmanager
def functions_in_place():
    """Context in which a `tf.function` runs as the Python function it wraps.

    TensorFlow's switch is global, and the replicas of a strategy pass through
    here in threads that take turns, so only the last one out turns it back.
    """
    with _Turns.lock:
        if _Turns.count == 0:
            _Turns.before = tf.config.functions_run_eagerly()
            tf.config.run_functions_eagerly(True)
        _Turns.count += 1
    try:
        yield
    finally:
        with _Turns.lock:
            _Turns.count -= 1
            if _Turns.count == 0:
                tf.config.run_functions_eagerly(_Turns.before)
