"""Losses and gradients of B+ and B-, the halves that SDS makes of a batch."""

import dataclasses

import keras

from keras_esam import arguments
from keras_esam.analysis import batches
from keras_esam.analysis import checks
from keras_esam.analysis.probe import Probe


@dataclasses.dataclass(frozen=True)
class BatchHalves:
    """Losses and gradients of a batch B and of its parts B+ and B-.

    Losses are means of the samples' losses, in units of the loss, without
    regularisation and `add_loss`. `perturbed` ones are those at `theta + eps`.

    Args:
        loss: Float, loss of B.
        loss_plus: Float, loss of B+.
        loss_minus: Float, loss of B-.
        perturbed_loss: Float, loss of B at `theta + eps`.
        perturbed_loss_plus: Float, loss of B+ at `theta + eps`.
        perturbed_loss_minus: Float, loss of B- at `theta + eps`.
        cosine_plus: Float in `[-1, 1]`, cosine similarity of the gradients of
            `perturbed_loss_plus` and `perturbed_loss`.
        cosine_minus: Float in `[-1, 1]`, cosine similarity of the gradients of
            `perturbed_loss_minus` and `perturbed_loss`.
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

    With `n` samples, B+ are the `max(1, ceil(gamma * n))` ones whose loss rises
    the most from `theta` to `theta + eps`, and B- the others; `eps` is SAM's,
    along the gradient of the loss that training minimises, of all weights.

    All passes are as in ESAM's training step: in training mode, with the
    BatchNormalization statistics of the whole batch and with the same dropout
    masks. Nothing that they assign is kept: variables, metrics and random
    states of the model stay as they are. The gradients of B+ and B- are those
    of their parts in the loss of the whole batch, whose gradient is thus their
    weighted mean; the update of ESAM passes B+ alone, with statistics of its
    own.

    Args:
        model: `keras.Model`, an `ESAMModel` for instance, built and compiled
            with a loss that tells the losses of the samples.
        batch: Tuple of arrays `(x, y)` or `(x, y, sample_weight)`.
        rho: Positive float, length of `eps` (l2). Defaults to `0.05`.
        gamma: Float in `(0, 1)`, the fraction of the batch in B+. Defaults to
            `0.5`.
        adaptive: Boolean, whether `eps` is ASAM's. Defaults to `False`.

    Returns:
        `BatchHalves`. A cosine is NaN where a gradient is zero.

    Raises:
        ValueError: If the model is not compiled or not built, if an argument is
            not in its range, if B- is empty, or if the compiled loss does not
            tell the losses of the samples.

    Example:

    ```python
    halves = keras_esam.analysis.batch_halves(model, (x, y), gamma=0.5)
    rise_plus = halves.perturbed_loss_plus - halves.loss_plus
    ```

    Reference:

    - [Du et al., 2022](https://arxiv.org/abs/2110.03141), equations 8 to 10 and
        figures 5 and 6
    """
    arguments.check_positive(rho=rho)
    adaptive = arguments.check_boolean("adaptive", adaptive)
    batch = batches.read_one_batch(batch)
    gamma = checks.check_gamma(gamma, batches.num_samples(batch))
    return BatchHalves(**Probe(model, batch, rho, gamma, adaptive).measure())
