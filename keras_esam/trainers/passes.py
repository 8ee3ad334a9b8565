"""Forward passes of a model at given values of its variables.

The values are tensors and the model is called in a stateless scope, so the
variables do not change.
"""

import contextlib
import dataclasses
from collections.abc import Callable

import keras
from keras import ops

from keras_esam.trainers import own_calls
from keras_esam.trainers.recording_scope import RecordingScope
from keras_esam.trainers.shared_operations import SharedOperations


@dataclasses.dataclass
class ForwardPass:
    """What a forward pass leaves behind.

    Args:
        y_pred: Predictions, nested structure of tensors.
        loss: Scalar, the loss that is minimised; `None` in the ranking pass.
        sample_losses: Tensor, shape `(batch_size,)`, or `None`.
        weights: List of tensors, the values of the trainable variables that
            the loss is a function of.
        updates: List of pairs `(variable, tensor)`, what the pass assigned.
    """

    y_pred: object
    loss: object
    sample_losses: object
    weights: list
    updates: list


@own_calls.own_calls()
def forward(
    model,
    batch,
    weights,
    state,
    total: bool = True,
    per_sample: bool = True,
    context=contextlib.nullcontext,
    loss_context=contextlib.nullcontext,
    on_assign: Callable | None = None,
    training: bool = True,
    shared: SharedOperations | None = None,
    losses=None,
) -> ForwardPass:
    """Runs a model with the given variable values.

    Args:
        model: The `ESAMModel`, or without `per_sample` any `keras.Model`.
        batch: Tuple `(x, y, sample_weight)`.
        weights: List of tensors, values of the trainable variables.
        state: List of pairs `(variable, tensor)` for all other variables.
        total: Boolean, whether to compute the loss that is minimised.
        per_sample: Boolean, whether to compute the per-sample losses.
        context: Function that returns the context in which the model is called.
        loss_context: Function that returns that in which its losses are.
        on_assign: Optional function as for `RecordingScope`.
        training: Boolean, training or inference mode.
        shared: Optional `SharedOperations`, what it has in common with another
            pass.
        losses: Optional object that computes the losses in the place of the
            model, `loss_factors.ScaledLosses`.

    Returns:
        A `ForwardPass`.
    """
    x, y, sample_weight = batch
    losses = losses or model
    variables = model.trainable_variables
    loss = sample_losses = None
    mapping = [*state, *zip(variables, weights, strict=True)]
    with RecordingScope(mapping, on_assign) as scope:
        # A `call` without the argument decides for itself, as in Keras.
        mode = {"training": training} if model._call_has_training_arg else {}
        sharing = shared.within(scope) if shared else contextlib.nullcontext()
        with sharing:
            with context():
                y_pred = model(x, **mode)
            with loss_context():
                if total:
                    loss = losses._compute_loss(
                        x, y, y_pred, _own(sample_weight), training=training
                    )
                if per_sample:
                    sample_losses = losses.compute_sample_losses(
                        x, y, y_pred, _own(sample_weight)
                    )
    weights = [scope.get_current_value(variable) for variable in variables]
    return ForwardPass(y_pred, loss, sample_losses, weights, scope.updates)


def _own(sample_weight):
    """A copy on PyTorch, where Keras multiplies it by the mask in place."""
    if keras.backend.backend() != "torch":
        return sample_weight
    return keras.tree.map_structure(
        lambda leaf: None if leaf is None else ops.copy(leaf), sample_weight
    )


def scaled_loss(model, loss, valid=None):
    """The loss that is differentiated: with the optimizer's loss scale.

    Args:
        model: The `ESAMModel`.
        loss: Scalar.
        valid: Optional scalar. If it is not finite neither is the gradient: an
            overflow in B1 must reach the optimizer, which then skips the step,
            even where the network swallows a NaN in theta.

    Returns:
        Scalar.
    """
    loss = model.optimizer.scale_loss(loss)
    if valid is None:
        return loss
    # No constant NaN, which debuggers of NaN would take for a fault.
    return loss / ops.cast(ops.isfinite(valid), loss.dtype)
