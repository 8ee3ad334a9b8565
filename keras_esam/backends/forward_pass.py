"""Forward passes of a model at given values of its variables.

The values are tensors and the model is called in a stateless scope, so the
variables do not change.
"""

import dataclasses
import inspect
from collections.abc import Callable

import keras
from keras import ops

from keras_esam import own_calls


class RecordingScope(keras.StatelessScope):
    """`keras.StatelessScope` that records which variables were assigned.

    `updates` is the list of assigned pairs `(variable, value)`. It includes
    variables that no layer tracks, such as the state of Keras' global seed
    generator.

    Args:
        state_mapping: List of `(variable, value)` pairs. Other variables have
            their values in the surrounding stateless scope, or their current
            ones.
        on_assign: Optional function `on_assign(variable, value)` whose result
            is assigned instead of `value`.
        on_miss: Optional function `on_miss(variable)` that returns the value of
            a variable that is not in the mapping, or `None`.
    """

    def __init__(self, state_mapping, on_assign=None, on_miss=None):
        super().__init__(state_mapping, collect_losses=True)
        self._on_assign = on_assign
        self._on_miss = on_miss
        self._assigned = {}

    def get_current_value(self, variable):
        value = super().get_current_value(variable)
        if value is None and self.original_scope is not None:
            value = self.original_scope.get_current_value(variable)
        if value is None and self._on_miss is not None:
            value = self._on_miss(variable)
        return value

    def add_update(self, update):
        variable, value = update
        if self._on_assign is not None:
            value = self._on_assign(variable, value)
        super().add_update((variable, value))
        self._assigned[id(variable)] = variable

    @property
    def updates(self):
        return [
            (variable, self.get_current_value(variable))
            for variable in self._assigned.values()
        ]


class BackwardScope(keras.StatelessScope):
    """Scope of a gradient computation, in which no weight may be read.

    Other variables keep the values that the forward pass started from, so a
    recomputation has the same dropout masks. What it assigns is dropped.

    Args:
        weights: List of the trainable variables.
    """

    def __init__(self, weights):
        super().__init__()
        self._weights = {id(variable) for variable in weights}

    def get_current_value(self, variable):
        if id(variable) in self._weights:
            raise ValueError(
                f"The weight `{variable.path}` is read when gradients are "
                "computed, as within `keras.remat` or `tf.recompute_grad`, and "
                "its own gradient would be lost. Do not use these around "
                "trainable weights, or train with `rho=0`."
            )
        return super().get_current_value(variable)


@dataclasses.dataclass
class ForwardPass:
    """Results of a forward pass.

    Args:
        y_pred: Predictions, nested structure of tensors.
        loss: Scalar, the loss that is minimised; `None` in the ranking pass.
        sample_losses: Tensor, shape `(batch_size,)`, or `None`.
        weights: List of tensors, the values of the trainable variables that
            the loss is a function of.
        updates: List of pairs `(variable, tensor)` that the pass assigned.
        rows: Optional tensor of integers, indices of the samples that the pass
            saw, if not all.
    """

    y_pred: object
    loss: object
    sample_losses: object
    weights: list
    updates: list
    rows: object = None


@own_calls.own_calls()
def forward(
    model,
    batch,
    weights,
    state,
    total: bool = True,
    per_sample: bool = True,
    training: bool = True,
    part=None,
    shared=None,
    on_assign: Callable | None = None,
) -> ForwardPass:
    """Runs a model with the given variable values.

    Args:
        model: The `ESAMModel`, or without `per_sample` any `keras.Model`.
        batch: Tuple `(x, y, sample_weight)`.
        weights: List of tensors, values of the trainable variables.
        state: List of pairs `(variable, tensor)` for all other variables.
        total: Boolean, whether to compute the loss that is minimised.
        per_sample: Boolean, whether to compute the per-sample losses.
        training: Boolean, training or inference mode.
        part: Optional `micro_batches.Part`, the place of the micro-batch.
        shared: Optional `torch_prefix.SharedPrefix`, the layers shared with
            another pass.
        on_assign: Optional function as for `RecordingScope`.

    Returns:
        A `ForwardPass`.
    """
    x, y, sample_weight = batch
    losses = part.losses if part else model
    variables = model.trainable_variables
    loss = sample_losses = None
    mapping = [*state, *zip(variables, weights, strict=True)]
    on_miss = part.own_seed if part else None
    with RecordingScope(mapping, on_assign, on_miss) as scope:
        if shared:
            y_pred = shared.call(x, training, scope)
        else:
            y_pred = call(model, x, training)
        if total:
            loss = total_loss(
                losses, x, y, y_pred, _own(sample_weight), training
            )
        if per_sample:
            # Drops repeated values for the trackers of the outputs' losses.
            with RecordingScope([]):
                sample_losses = losses.compute_sample_losses(
                    x, y, y_pred, _own(sample_weight)
                )
    weights = [scope.get_current_value(variable) for variable in variables]
    return ForwardPass(y_pred, loss, sample_losses, weights, scope.updates)


def call(model, x, training):
    """Calls a model; a `call` without `training` decides for itself."""
    mode = {"training": training} if model._call_has_training_arg else {}
    return model(x, **mode)


def total_loss(model, x, y, y_pred, sample_weight, training=True):
    """The loss that is minimised, a scalar.

    A user's `compute_loss()` may have no argument `training`.
    """
    parameters = inspect.signature(model.compute_loss).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    takes_it = takes_any or "training" in parameters
    mode = {"training": training} if takes_it else {}
    return model.compute_loss(x, y, y_pred, sample_weight, **mode)


def scaled_loss(model, loss, valid=None):
    """The loss that is differentiated: with the optimizer's loss scale.

    If `valid` is not finite, neither is the gradient. An overflow in B1 must
    reach the optimizer, which then skips the step, even if the network swallows
    a NaN in theta.
    """
    loss = model.optimizer.scale_loss(loss)
    if valid is None:
        return loss
    # No constant NaN, which NaN debuggers would report as an error.
    return loss / ops.cast(ops.isfinite(valid), loss.dtype)


def _own(sample_weight):
    """A copy on PyTorch, where Keras multiplies it by the mask in place."""
    if keras.backend.backend() != "torch":
        return sample_weight
    return keras.tree.map_structure(
        lambda leaf: None if leaf is None else ops.copy(leaf), sample_weight
    )
