"""The losses of the samples, from the loss that was given to `compile`.

Keras reduces a loss to a scalar. SDS ranks samples, and so needs the part that
each of them has in it, with its sample weight, its mask, and all outputs with
their `loss_weights` added up.
"""

import weakref

import keras
from keras import ops

# Primes, so that they are no product of other sizes either; more of them than
# two tensors have axes.
PROBE_BATCH_SIZES = (5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59)

# Steps that run eagerly would ask each time anew.
_known_losses = weakref.WeakKeyDictionary()


def compiled_sample_losses(compile_loss, y_true, y_pred, sample_weight=None):
    """Per-sample losses whose mean over the batch is the compiled loss.

    Args:
        compile_loss: Keras' `CompileLoss`, built. It matches the structures of
            targets, predictions, losses and weights; here it does so with a
            per-sample version of each loss.
        y_true: Targets, nested structure of tensors.
        y_pred: Predictions, nested structure of tensors.
        sample_weight: Optional, nested structure of tensors.

    Returns:
        Tensor, shape `(batch_size,)`, or `None` if one of the losses reduces
        over the batch by itself.
    """
    reducing = []

    def per_sample(loss):
        def call(y_true, y_pred, sample_weight):
            values = sample_losses(loss, y_true, y_pred, sample_weight)
            if values is None:
                reducing.append(loss)
                return ops.zeros(())
            return values

        return call

    entries = compile_loss._flat_losses
    unreduced = _shallow_copy(compile_loss)
    unreduced._flat_losses = [
        entry._replace(loss=per_sample(entry.loss)) for entry in entries
    ]
    # The trackers of the outputs' losses are updated by the clean pass alone.
    unreduced._metrics = [None] * len(entries)
    total = unreduced(y_true, y_pred, sample_weight)
    return None if reducing or total is None else total


def sample_losses(loss: keras.losses.Loss, y_true, y_pred, sample_weight=None):
    """Per-sample losses whose mean over the batch is the reduced loss.

    Args:
        loss: `keras.losses.Loss`.
        y_true: Targets, shape `(batch_size, d0, .. dN)`.
        y_pred: Predictions, shape `(batch_size, d0, .. dN)`. A Keras mask on
            them is respected.
        sample_weight: Optional, shape `(batch_size,)` or with more of the
            dimensions of the unreduced loss.

    Returns:
        Tensor, shape `(batch_size,)`: the part of each sample in
        `loss(y_true, y_pred, sample_weight)`, times `batch_size`; or `None` if
        the loss reduces over the batch by itself.
    """
    if not _keeps_samples_apart(loss, y_true, y_pred):
        return None
    unreduced = _shallow_copy(loss)
    unreduced.reduction = "none"
    values = unreduced(y_true, y_pred, sample_weight)
    totals = ops.sum(values, axis=tuple(range(1, len(values.shape))))
    if loss.reduction == "sum":
        divisor = ops.ones((), totals.dtype)
    elif loss.reduction == "mean_with_sample_weight":
        divisor = _total_weight(values, y_pred, sample_weight)
    else:
        divisor = _num_valid(values, y_pred)
    batch_size = ops.cast(ops.shape(values)[0], totals.dtype)
    return ops.divide_no_nan(totals * batch_size, divisor)


def _keeps_samples_apart(loss, y_true, y_pred):
    """Whether the first axis of the unreduced loss is that of the samples.

    It is not with `Dice(axis=(0,))`, whose values are those of the classes. A
    symbolic call, with a batch size that no other axis has, tells them apart
    even where there are as many classes as samples.
    """
    if type(loss).__call__ is not keras.losses.Loss.__call__:
        return False  # It does not let itself be asked not to reduce.
    specs = tuple(
        (tuple(t.shape), keras.backend.standardize_dtype(t.dtype))
        for t in (y_true, y_pred)
    )
    known = _known_losses.setdefault(loss, {})
    if specs not in known:
        known[specs] = _first_axis_is_that_of_samples(loss, y_true, y_pred)
    return known[specs]


def _first_axis_is_that_of_samples(loss, y_true, y_pred):
    sizes = {*y_true.shape, *y_pred.shape}
    batch_size = next(n for n in PROBE_BATCH_SIZES if n not in sizes)

    def spec(tensor):
        return keras.KerasTensor(
            (batch_size, *[size or 1 for size in tensor.shape[1:]]),
            dtype=keras.backend.standardize_dtype(tensor.dtype),
        )

    call = keras.layers.Lambda(
        lambda pair: loss.call(*pair), dtype=y_pred.dtype, name="sample_losses"
    )
    try:
        specs = keras.tree.map_structure(spec, (y_true, y_pred))
        shape = call.compute_output_spec(specs).shape
    except Exception:
        # Whatever a user's loss raises that works with its own sizes only.
        shape = loss.call(y_true, y_pred).shape
        batch_size = y_pred.shape[0]
    return len(shape) > 0 and shape[0] == batch_size


def _num_valid(values, y_pred):
    """Number of the loss values that no mask excludes."""
    size = _size(values, values.dtype)
    mask = keras_mask(y_pred)
    if mask is None:
        return size
    return size * ops.mean(ops.cast(mask, values.dtype))


def _total_weight(values, y_pred, sample_weight):
    """Sum of sample weights as `"mean_with_sample_weight"` takes it."""
    mask = keras_mask(y_pred)
    if sample_weight is None and mask is None:
        return _size(values, values.dtype)
    weight = ops.ones((), values.dtype)
    for factor in (mask, sample_weight):
        if factor is not None:
            factor = ops.cast(factor, values.dtype)
            while 0 < len(factor.shape) < len(weight.shape):
                factor = ops.expand_dims(factor, -1)
            weight = weight * factor
    return ops.sum(weight)


def _size(tensor, dtype):
    shape = ops.convert_to_tensor(ops.shape(tensor), dtype="int32")
    return ops.cast(ops.prod(shape), dtype)


def keras_mask(tensor):
    """The mask that Keras keeps for a tensor, or `None`.

    It is no attribute of the tensor within a compiled step on JAX.
    """
    return keras.src.backend.get_keras_mask(tensor)


def _shallow_copy(loss):
    """A copy that `copy.copy` can not make: Keras pickles by saving a file."""
    duplicate = object.__new__(type(loss))
    duplicate.__dict__.update(loss.__dict__)
    return duplicate
