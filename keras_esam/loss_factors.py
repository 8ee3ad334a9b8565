"""The losses of a micro-batch, with the divisors of the whole batch.

Keras divides the loss values of a batch by their number, by the number of
unmasked values, by the total of the sample weights, or by 1. The loss of a
micro-batch is multiplied by

    (its divisor / divisor of the batch) / (its samples / samples of the batch)

so that the mean over the micro-batches, weighted by their numbers of samples,
is the compiled loss of the whole batch. For a plain mean the factor is 1, and
the loss is left as it is.

Regularisation losses and `add_loss()` are averaged over the micro-batches
without a factor. So are losses that reduce over the batch by themselves, and
the results of a user's `compute_loss()`: their divisors are not known.
"""

import keras
from keras import ops

from keras_esam import rows
from keras_esam import sample_losses
from keras_esam.backends import backend
from keras_esam.backends import forward_pass


class DivisorsNeeded(Exception):
    """A divisor depends on masks or on sample weights of the whole batch."""


class ScaledLosses:
    """Computes the losses of a model for a micro-batch, with their factors.

    Args:
        model: The `ESAMModel`, compiled with a loss.
        ratio: Float or scalar tensor, samples of the batch divided by samples
            of the micro-batch.
        factors: Optional list with a tensor or `None` for each loss: the rows
            of the micro-batch in what `of_samples()` returned.

    Without `factors`, a loss that needs one raises `DivisorsNeeded`.
    """

    def __init__(self, model, ratio, factors=None):
        self._owner = model
        self._ratio = ratio
        self._rows = factors

    def __getattr__(self, name):
        return getattr(self._owner, name)

    @property
    def _compile_loss(self):
        return sample_losses.with_losses(
            self._owner._compile_loss,
            map(self._scaled, _compiled_losses(self._owner), self._factors),
        )

    @property
    def _factors(self):
        losses = _compiled_losses(self._owner)
        return [
            self._ratio if loss.reduction == "sum" else _mean(row)
            for loss, row in zip(
                losses, self._rows or [None] * len(losses), strict=True
            )
        ]

    def compute_loss(self, x, y, y_pred, sample_weight, training):
        compile_loss = self._owner._compile_loss
        if not compile_loss.built:
            # The first call builds it. What it adds to metrics is dropped.
            with keras.StatelessScope():
                compile_loss(y, y_pred, sample_weight)
        return keras.Model.compute_loss(
            self, x, y, y_pred, sample_weight, training
        )

    def compute_sample_losses(self, x, y, y_pred, sample_weight=None):
        compute = self._owner.compute_sample_losses
        if not getattr(compute, "is_default", False):
            return compute(x, y, y_pred, sample_weight)
        return sample_losses.compiled_sample_losses(
            self._owner._compile_loss, y, y_pred, sample_weight, self._factors
        )

    def _scaled(self, loss, factor):
        def call(y_true, y_pred, sample_weight):
            if loss.reduction in (None, "none"):
                raise ValueError(
                    "`micro_batch_size` needs losses that are reduced to a "
                    'scalar. Use `reduction="sum"`. Received: '
                    f"{loss} with reduction={loss.reduction!r}"
                )
            if not _has_divisor(loss, y_true, y_pred):
                return loss(y_true, y_pred, sample_weight)
            value, mask = sample_losses.call_loss(
                loss, y_true, y_pred, sample_weight, loss.reduction
            )
            if factor is not None:
                return value * ops.cast(factor, value.dtype)
            if self._rows is None and _is_weighted(loss, mask, sample_weight):
                raise DivisorsNeeded
            return value

        return call


def _compiled_losses(model):
    return [entry.loss for entry in model._compile_loss._flat_losses]


def applies(model) -> bool:
    """Whether the loss of a model is the compiled one."""
    overridden = type(model).compute_loss is not keras.Model.compute_loss
    return not overridden and model._compile_loss is not None


def of_samples(model, batch, size, predictions):
    """Factors of the losses of each sample in its micro-batch.

    This runs the network once more, for its masks. A compiled step runs only
    the operations that lead to them.

    Args:
        model: The `ESAMModel`.
        batch: Tuple `(x, y, sample_weight)`.
        size: Integer, number of samples of a micro-batch.
        predictions: Function `predictions(part, start)` of a micro-batch and
            its first sample that returns the network's predictions.

    Returns:
        List with a tensor of shape `(batch_size,)` or `None` for each loss.
    """

    def run(start, count):
        indices = start + ops.arange(count)
        part = rows.take(batch, indices)
        y_pred = predictions(part, start)
        divisors = _mean_divisors(model._compile_loss, part[1], y_pred, part[2])
        columns = [
            None if d is None else d + ops.zeros_like(indices, dtype=d.dtype)
            for d in divisors
        ]
        return [], columns, []

    num_samples = backend.batch_size(batch)
    _, columns, _ = backend.each_micro_batch(run, num_samples, size)
    return [
        None if row is None else ops.divide_no_nan(row, _mean(row))
        for row in columns
    ]


def _mean_divisors(compile_loss, y_true, y_pred, sample_weight):
    """Divisors of the losses of a micro-batch, for each of its samples: a
    scalar for each loss that depends on masks or weights, else `None`."""
    found = []

    def record(loss):
        def call(y_true, y_pred, sample_weight):
            found.append(_mean_divisor(loss, y_true, y_pred, sample_weight))
            return ops.zeros(())

        return call

    losses = [entry.loss for entry in compile_loss._flat_losses]
    recording = sample_losses.with_losses(compile_loss, map(record, losses))
    # Drops the values for the trackers of the outputs' losses.
    with forward_pass.RecordingScope([]):
        recording(y_true, y_pred, sample_weight)
    return found


def _mean_divisor(loss, y_true, y_pred, sample_weight):
    if loss.reduction == "sum" or not _has_divisor(loss, y_true, y_pred):
        return None
    values, mask = sample_losses.call_loss(
        loss, y_true, y_pred, sample_weight, "none"
    )
    if not _is_weighted(loss, mask, sample_weight):
        return None
    divisor = sample_losses.divisor(loss, values, mask, sample_weight)
    num_samples = ops.cast(ops.shape(values)[0], divisor.dtype)
    return ops.divide_no_nan(divisor, num_samples)


def _has_divisor(loss, y_true, y_pred):
    """Whether Keras reduces per-sample losses to the scalar loss."""
    reduces = loss.reduction not in (None, "none")
    return reduces and sample_losses.keeps_samples_apart(loss, y_true, y_pred)


def _is_weighted(loss, mask, sample_weight):
    """Whether the mean of a loss weights samples differently."""
    by_weight = loss.reduction == "mean_with_sample_weight"
    return mask is not None or (by_weight and sample_weight is not None)


def _mean(row):
    """Mean of a vector: 0 if it is empty, `None` for `None`."""
    if row is None:
        return None
    size = ops.cast(ops.shape(row)[0], row.dtype)
    return ops.divide_no_nan(ops.sum(row), size)
