"""Losses and gradients of B+ and B-, the two parts of a batch in SDS."""

import dataclasses

import keras
from keras import ops

from keras_esam import arguments
from keras_esam import ascent
from keras_esam import sample_losses
from keras_esam import selection
from keras_esam.analysis import batches
from keras_esam.analysis import mean_loss
from keras_esam.backends.forward_pass import RecordingScope


@dataclasses.dataclass(frozen=True)
class BatchHalves:
    """Losses and gradients of a batch B and of its parts B+ and B-.

    `loss`, `loss_plus` and `loss_minus` are the means of the samples' losses
    over B, B+ and B-, in units of the loss, without regularisation and
    `add_loss`. `perturbed_loss`, `perturbed_loss_plus` and
    `perturbed_loss_minus` are the same at `theta + eps`. `cosine_plus` and
    `cosine_minus`, in `[-1, 1]`, are the cosine similarities of the gradients
    of the latter two with the gradient of `perturbed_loss`.
    """

    loss: float
    loss_plus: float
    loss_minus: float
    perturbed_loss: float
    perturbed_loss_plus: float
    perturbed_loss_minus: float
    cosine_plus: float
    cosine_minus: float


def batch_halves(
    model: keras.Model,
    batch,
    rho: float = 0.05,
    gamma: float = 0.5,
    adaptive: bool = False,
) -> BatchHalves:
    """Compares the two parts into which SDS splits a batch.

    B+ are the `max(1, ceil(gamma * n))` of `n` samples whose loss rises the
    most from `theta` to `theta + eps`, and B- are the others. `eps` is SAM's
    perturbation of all weights, along the gradient of the training loss.

    All passes are as in ESAM's training step: in training mode, with the
    BatchNormalization statistics of the whole batch and with the same dropout
    masks. The model's variables, metrics and random states do not change. The
    gradient of the whole batch's loss is the weighted mean of the gradients of
    B+ and B-. ESAM's update passes B+ alone, with its own statistics.

    Args:
        model: `keras.Model`, built and compiled with a loss that has per-sample
            values.
        batch: Tuple of arrays `(x, y)` or `(x, y, sample_weight)`.
        rho: Positive float, length of `eps` (l2). Defaults to `0.05`.
        gamma: Float in `(0, 1)`, fraction of the batch in B+. Defaults to
            `0.5`.
        adaptive: Boolean, whether `eps` is ASAM's. Defaults to `False`.

    Returns:
        `BatchHalves`. A cosine is NaN where a gradient is zero.

    Raises:
        ValueError: If the model is not compiled or not built, if an argument is
            out of range, if B- is empty, or if the loss has no per-sample
            values.

    Example:

    ```python
    halves = keras_esam.analysis.batch_halves(model, (x, y), gamma=0.5)
    rise_plus = halves.perturbed_loss_plus - halves.loss_plus
    ```

    Reference: equations 8 to 10 and figures 5 and 6 of [Du et al.,
    2022](https://arxiv.org/abs/2110.03141).
    """
    settings = check_settings(batch, rho, gamma, adaptive)
    return BatchHalves(**Probe(model, *settings).measure())


def check_settings(batch, rho, gamma, adaptive) -> tuple:
    """Checks the settings of a `Probe`, and converts the batch to tensors."""
    arguments.check_positive("rho", rho)
    adaptive = arguments.check_boolean("adaptive", adaptive)
    batch = batches.read_one_batch(batch)
    fraction = arguments.check_fraction("gamma", gamma)
    num_samples = batches.num_samples(batch)
    if selection.num_selected(num_samples, fraction) == num_samples:
        raise ValueError(
            "`gamma` must leave samples for B-, and of the "
            f"{num_samples} samples all are in B+. Received: gamma={gamma}"
        )
    return batch, rho, fraction, adaptive


class Probe:
    """Measures what `batch_halves` returns.

    The computation is compiled once and can be repeated with the variables'
    new values.
    """

    def __init__(self, model, batch, rho, gamma, adaptive):
        mean_loss.check_model(model)
        self._model = model
        self._batch = batch
        self._rho = rho
        self._adaptive = adaptive
        self._num_samples = batches.num_samples(batch)
        self._num_selected = selection.num_selected(self._num_samples, gamma)
        mean_loss.build_loss(model, batch)
        self._function = mean_loss.compiled(model, self._measure)

    def measure(self) -> dict[str, float]:
        """Values of the fields of `BatchHalves` at the current weights."""
        values = self._function(
            mean_loss.weights_of(self._model),
            mean_loss.state_of(self._model),
            self._batch,
        )
        return {
            name: float(keras.ops.convert_to_numpy(value))
            for name, value in values.items()
        }

    def _measure(self, weights, state, batch):
        def losses_at(values):
            return self._loss_and_sample_losses(values, state, batch)

        def half(values, is_plus):
            """Mean loss of B+ or B-, which the perturbed losses select; the
            rows of B+, ones and zeros of shape `(batch_size,)`; the losses."""
            _, losses = losses_at(values)
            fixed = ops.stop_gradient(losses)
            indices = selection.select(fixed - clean, self._num_selected)
            in_plus = ops.sum(
                ops.one_hot(indices, self._num_samples, dtype=losses.dtype),
                axis=0,
            )
            included = in_plus if is_plus else 1 - in_plus
            return _mean(losses, included), (in_plus, fixed)

        def gradients_of(function, values):
            return mean_loss.value_and_gradients(
                self._model, batch, state, function, values
            )

        _, clean, gradients = gradients_of(losses_at, weights)
        at = mean_loss.perturbed(weights, gradients, self._rho, self._adaptive)
        _, (in_plus, losses), plus = gradients_of(
            lambda values: half(values, True), at
        )
        _, _, minus = gradients_of(lambda values: half(values, False), at)
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

    def _loss_and_sample_losses(self, weights, state, batch):
        """As in training, with batch statistics and dropout."""
        result = mean_loss.forward(self._model, batch, weights, state, True)
        x, y, sample_weight = batch
        # Drops the values for the trackers of the outputs' losses.
        with RecordingScope([]):
            if hasattr(self._model, "compute_sample_losses"):
                losses = self._model.compute_sample_losses(
                    x, y, result.y_pred, sample_weight
                )
            else:
                losses = sample_losses.of_model(
                    self._model, y, result.y_pred, sample_weight
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


def _means(name, losses, in_plus):
    return {
        name: ops.mean(losses),
        f"{name}_plus": _mean(losses, in_plus),
        f"{name}_minus": _mean(losses, 1 - in_plus),
    }


def _mean(losses, included):
    return ops.sum(losses * included) / ops.sum(included)


def _cosine(first, second):
    """Cosine of two lists of tensors; NaN if one of them is zero."""
    norms = ascent.global_norm(first) * ascent.global_norm(second)
    dot = sum(
        ops.sum(ops.cast(a, norms.dtype) * ops.cast(b, norms.dtype))
        for a, b in zip(first, second, strict=True)
    )
    return dot / norms
