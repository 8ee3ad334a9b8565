"""What SDS splits a batch into, measured on a batch that stays the same."""

import functools

import keras
from keras import ops

from keras_esam import ascent
from keras_esam import sample_losses
from keras_esam import selection
from keras_esam.analysis import batches
from keras_esam.analysis import checks
from keras_esam.analysis import mean_loss
from keras_esam.backends.forward_pass import RecordingScope


class Probe:
    """The losses and gradients of the two halves of a batch.

    See `batch_halves` for what is measured. The computation is compiled once
    and can be repeated with the values that the variables have then.

    Args:
        model: `keras.Model`, compiled and built.
        batch: Tuple `(x, y, sample_weight)` of tensors.
        rho: Positive float.
        gamma: Float in `(0, 1)` that leaves samples for B-.
        adaptive: Boolean.
    """

    def __init__(self, model, batch, rho, gamma, adaptive):
        checks.check_model(model)
        self._model = model
        self._batch = batch
        self._rho = rho
        self._adaptive = adaptive
        self._num_samples = batches.num_samples(batch)
        self._num_selected = selection.num_selected(self._num_samples, gamma)
        mean_loss.build_loss(model, batch)
        self._function = mean_loss.compiled(model, self._measure)

    def measure(self) -> dict[str, float]:
        """Values of the fields of `BatchHalves`, at the weights as they are."""
        values = self._function(
            mean_loss.weights_of(self._model),
            mean_loss.state_of(self._model),
            self._batch,
        )
        return {name: float(value) for name, value in values.items()}

    def _measure(self, weights, state, batch):
        total, clean, gradients = mean_loss.value_and_gradients(
            self._model,
            batch,
            state,
            functools.partial(self._loss_and_sample_losses, state, batch),
            weights,
        )
        del total
        perturbations, _ = ascent.ascent_step(
            gradients,
            weights,
            self._rho,
            [1.0] * len(weights),
            adaptive=self._adaptive,
        )
        at = [w + e for w, e in zip(weights, perturbations, strict=True)]
        measured = functools.partial(self._half, state, batch, clean)
        _, (in_plus, losses), plus = mean_loss.value_and_gradients(
            self._model, batch, state, functools.partial(measured, True), at
        )
        _, _, minus = mean_loss.value_and_gradients(
            self._model, batch, state, functools.partial(measured, False), at
        )
        share = self._num_selected / self._num_samples
        whole = [
            share * a + (1 - share) * b
            for a, b in zip(plus, minus, strict=True)
        ]
        return {
            **_means("loss", clean, in_plus),
            **_means("perturbed_loss", losses, in_plus),
            "cosine_plus": _cosine(plus, whole),
            "cosine_minus": _cosine(minus, whole),
        }

    def _half(self, state, batch, clean, is_plus, weights):
        """Mean loss of one of the halves, which the weights themselves pick.

        Args:
            clean: Tensor, shape `(batch_size,)`, losses without perturbation.
            is_plus: Boolean, whether to take B+.
            weights: List of tensors, the perturbed weights.

        Returns:
            Tuple of a scalar and of a tuple of two tensors of shape
            `(batch_size,)`: ones for the samples of B+ and zeros for the
            others, and the losses.
        """
        _, losses = self._loss_and_sample_losses(state, batch, weights)
        rise = ops.stop_gradient(losses) - clean
        indices = selection.select(rise, self._num_selected)
        in_plus = ops.sum(
            ops.one_hot(indices, self._num_samples, dtype=losses.dtype), axis=0
        )
        half = in_plus if is_plus else 1 - in_plus
        return _mean(losses, half), (in_plus, ops.stop_gradient(losses))

    def _loss_and_sample_losses(self, state, batch, weights):
        """As training has them: with batch statistics, dropout and all."""
        result = mean_loss.forward(self._model, batch, weights, state, True)
        x, y, sample_weight = batch
        # Drops what the trackers of the outputs' losses are told.
        with RecordingScope([]):
            losses = _sample_losses(
                self._model, x, y, result.y_pred, sample_weight
            )
        if losses is None:
            raise ValueError(
                "B+ and B- need the loss of each sample, shape "
                "`(batch_size,)`. Compile with a loss that does not reduce "
                "over the batch by itself. "
                f"Received: loss={self._model.loss}"
            )
        if losses.shape[0] not in (None, self._num_samples):
            raise ValueError(
                "`batch` must have the samples as the rows of all its tensors. "
                f"Received: a batch of {self._num_samples} rows with "
                f"{losses.shape[0]} losses"
            )
        return result.loss, losses


def _sample_losses(model, x, y, y_pred, sample_weight):
    compute = getattr(model, "compute_sample_losses", None)
    if compute is None:
        # Any `keras.Model` has what it asks for.
        return sample_losses.of_model(model, y, y_pred, sample_weight)
    return compute(x, y, y_pred, sample_weight)


def _means(name, losses, in_plus):
    return {
        name: ops.mean(losses),
        f"{name}_plus": _mean(losses, in_plus),
        f"{name}_minus": _mean(losses, 1 - in_plus),
    }


def _mean(losses, included):
    return ops.sum(losses * included) / ops.sum(included)


def _cosine(first, second):
    """Of two lists of tensors; NaN if one of them is zero."""
    dot = sum(
        ops.sum(ops.cast(a, "float32") * ops.cast(b, "float32"))
        if keras.backend.standardize_dtype(a.dtype) != "float64"
        else ops.sum(a * b)
        for a, b in zip(first, second, strict=True)
    )
    norms = ascent.global_norm(first) * ascent.global_norm(second)
    return dot / ops.cast(norms, dot.dtype)
