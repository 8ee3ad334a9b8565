"""Per-sample losses, from the loss that was given to `compile`.

Keras reduces a loss to a scalar. SDS ranks samples, so it needs each sample's
part of that scalar. It includes sample weights, masks and `loss_weights`, and
is summed over all outputs.
"""

import functools
import operator
import weakref

import keras
from keras import ops

# Primes, so that none is a product of other sizes; more of them than the
# tensors of a loss have axes.
PROBE_BATCH_SIZES = (5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59)

# Steps that run eagerly would ask again each time.
_known_losses = weakref.WeakKeyDictionary()


def of_model(model, y, y_pred, sample_weight=None):
    """Per-sample losses of a compiled `keras.Model`, shape `(batch_size,)`, or
    `None` if they are not known."""
    overridden = type(model).compute_loss is not keras.Model.compute_loss
    if overridden or model._compile_loss is None:
        return None
    return compiled_sample_losses(model._compile_loss, y, y_pred, sample_weight)


def missing_error(model, y, y_pred) -> ValueError:
    """The error for an `ESAMModel` without the losses that SDS needs."""
    targets, predictions = keras.tree.map_structure(
        lambda leaf: tuple(leaf.shape), (y, y_pred), none_is_leaf=False
    )
    return ValueError(
        f'`gamma < 1` with `rank_by="{model.rank_by}"` needs the '
        "loss of each sample, shape `(batch_size,)`. Compile with a loss "
        'that does not reduce over the batch by itself, as `"mse"` does '
        "with outputs of shape `(batch_size,)` and not with "
        "`(batch_size, 1)`, override "
        "`compute_sample_losses()` along with `compute_loss()`, or use "
        '`gamma=1` or `rank_by="random"`. '
        f"Received: loss={model.loss}, predictions of shape {predictions} "
        f"and targets of shape {targets}"
    )


def compiled_sample_losses(
    compile_loss, y_true, y_pred, sample_weight=None, factors=None
):
    """Per-sample losses whose mean over the batch is the compiled loss.

    Args:
        compile_loss: Keras' `CompileLoss`, built. It matches the structures of
            targets, predictions, losses and weights. Here it gets a per-sample
            version of each loss.
        y_true: Targets, nested structure of tensors.
        y_pred: Predictions, nested structure of tensors.
        sample_weight: Optional, nested structure of tensors.
        factors: Optional list with a scalar factor or `None` for each loss.

    Returns:
        Tensor, shape `(batch_size,)`, or `None` if one of the losses reduces
        over the batch by itself.
    """
    reducing = []
    losses = [entry.loss for entry in compile_loss._flat_losses]

    def per_sample(loss, factor):
        def call(y_true, y_pred, sample_weight):
            values = sample_losses(loss, y_true, y_pred, sample_weight)
            if values is None:
                reducing.append(loss)
                return ops.zeros(())
            if factor is not None:
                values *= ops.cast(factor, values.dtype)
            return values

        return call

    unreduced = with_losses(
        compile_loss,
        map(per_sample, losses, factors or [None] * len(losses)),
    )
    total = unreduced(y_true, y_pred, sample_weight)
    return None if reducing or total is None else total


def with_losses(compile_loss, losses):
    """A copy of a `CompileLoss` with its losses replaced by functions of the
    same arguments."""
    duplicate = _shallow_copy(compile_loss)
    duplicate._flat_losses = [
        entry._replace(loss=loss)
        for entry, loss in zip(compile_loss._flat_losses, losses, strict=True)
    ]
    return duplicate


def sample_losses(loss: keras.losses.Loss, y_true, y_pred, sample_weight=None):
    """Per-sample losses whose mean over the batch is the reduced loss.

    Args:
        loss: `keras.losses.Loss`.
        y_true: Targets, shape `(batch_size, d0, .. dN)`, or a nested structure
            of them if the loss is one of several outputs.
        y_pred: Predictions, like the targets. A Keras mask is respected.
        sample_weight: Optional, shape `(batch_size,)` or with more of the
            dimensions of the unreduced loss.

    Returns:
        Tensor, shape `(batch_size,)`: the part of each sample in
        `loss(y_true, y_pred, sample_weight)`, times `batch_size`; or `None` if
        the loss reduces over the batch by itself.
    """
    if not keeps_samples_apart(loss, y_true, y_pred):
        return None
    values, mask = call_loss(loss, y_true, y_pred, sample_weight, "none")
    totals = ops.sum(values, axis=tuple(range(1, len(values.shape))))
    batch_size = ops.cast(ops.shape(values)[0], totals.dtype)
    return ops.divide_no_nan(
        totals * batch_size, divisor(loss, values, mask, sample_weight)
    )


def call_loss(loss, y_true, y_pred, sample_weight, reduction):
    """Calls a loss with another reduction.

    Returns:
        Tuple of the loss, a tensor, and the mask, a boolean tensor or `None`.
        The mask combines the predictions' mask and the mask of the loss
        values, as with `ignore_class`.
    """
    masks = [keras_mask(y_pred)]

    def recorded(y_true, y_pred):
        values = loss.call(y_true, y_pred)
        masks.append(keras_mask(values))
        return values

    duplicate = _shallow_copy(loss)
    duplicate.reduction = reduction
    duplicate.call = recorded
    result = duplicate(y_true, y_pred, sample_weight)
    masks = [mask for mask in masks if mask is not None]
    return result, functools.reduce(operator.and_, masks) if masks else None


def divisor(loss, values, mask, sample_weight):
    """The divisor that a loss's reduction applies to the sum of `values`.

    Args:
        loss: `keras.losses.Loss`.
        values: Tensor, the unreduced loss.
        mask: Boolean tensor or `None`, mask of the loss values.
        sample_weight: Tensor or `None`.
    """
    if loss.reduction == "sum":
        return ops.ones((), values.dtype)
    if loss.reduction == "mean_with_sample_weight":
        return _total_weight(values, mask, sample_weight)
    size = _size(values, values.dtype)
    if mask is None:
        return size
    return size * ops.mean(ops.cast(mask, values.dtype))


def keeps_samples_apart(loss, y_true, y_pred):
    """Whether the first axis of the unreduced loss is the samples' axis.

    With `Dice(axis=(0,))` it is not: the values belong to the classes. A
    symbolic call, with a batch size that no other axis has, tells them apart
    even if there are as many classes as samples.
    """
    if type(loss).__call__ is not keras.losses.Loss.__call__:
        return False  # It can't be called without a reduction.
    specs = tuple(
        (tuple(t.shape), keras.backend.standardize_dtype(t.dtype))
        for t in keras.tree.flatten((y_true, y_pred))
    )
    try:
        known = _known_losses.setdefault(loss, {})
    except TypeError:  # It is not hashable.
        known = {}
    if specs not in known:
        known[specs] = _first_axis_is_that_of_samples(loss, y_true, y_pred)
    return known[specs]


def _first_axis_is_that_of_samples(loss, y_true, y_pred):
    leaves = keras.tree.flatten((y_true, y_pred))
    sizes = {size for leaf in leaves for size in leaf.shape}
    batch_size = next(n for n in PROBE_BATCH_SIZES if n not in sizes)

    def spec(tensor):
        return keras.KerasTensor(
            (batch_size, *[size or 1 for size in tensor.shape[1:]]),
            dtype=keras.backend.standardize_dtype(tensor.dtype),
        )

    call = keras.layers.Lambda(
        lambda pair: loss.call(*pair), dtype=loss.dtype, name="sample_losses"
    )
    try:
        specs = keras.tree.map_structure(spec, (y_true, y_pred))
        shape = call.compute_output_spec(specs).shape
    except Exception:
        # A user's loss may raise anything for sizes other than its own.
        shape = ops.convert_to_tensor(loss.call(y_true, y_pred)).shape
        batch_size = keras.tree.flatten(y_pred)[0].shape[0]
    return len(shape) > 0 and shape[0] == batch_size


def _total_weight(values, mask, sample_weight):
    """Sum of sample weights, as in `"mean_with_sample_weight"`."""
    if sample_weight is None and mask is None:
        return _size(values, values.dtype)
    weight = ops.ones((), values.dtype)
    for factor in (mask, sample_weight):
        if factor is not None:
            factor = ops.cast(factor, values.dtype)
            while 0 < len(factor.shape) < len(values.shape):
                factor = ops.expand_dims(factor, -1)
            if len(factor.shape) > len(values.shape):
                factor = ops.squeeze(factor, -1)
            weight = weight * factor
    return ops.sum(weight)


def _size(tensor, dtype):
    shape = ops.convert_to_tensor(ops.shape(tensor), dtype="int32")
    return ops.cast(ops.prod(shape), dtype)


def keras_mask(tensor):
    """The mask that Keras keeps for a tensor, or `None`.

    Within a compiled step on JAX the mask is no attribute of the tensor.
    """
    return keras.src.backend.common.masking.get_keras_mask(tensor)


def _shallow_copy(loss):
    """A copy that `copy.copy` can not make: Keras pickles by saving a file."""
    duplicate = object.__new__(type(loss))
    duplicate.__dict__.update(loss.__dict__)
    return duplicate
