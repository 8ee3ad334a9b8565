"""Sharpness of the two parts into which SDS splits a batch, per epoch."""

import dataclasses
import math

import keras

from keras_esam import arguments
from keras_esam.analysis import batches
from keras_esam.analysis import checks
from keras_esam.analysis.batch_halves import BatchHalves
from keras_esam.analysis.probe import Probe

KEYS = [f"probe_{field.name}" for field in dataclasses.fields(BatchHalves)]


class SharpnessLogger(keras.callbacks.Callback):
    """Logs losses and gradients of B+ and B- on a probe batch, per epoch.

    B+ are the samples of the batch whose loss rises the most when the weights
    are perturbed, B- the others, see `keras_esam.analysis.batch_halves`. They
    are found again each time. Works with any compiled `keras.Model` and does
    not change the training: its weights are bit-identical with and without it.

    Logged, with losses that are means over the samples, in units of the loss
    and without regularisation:

    - `probe_loss`, `probe_loss_plus`, `probe_loss_minus`: loss of the batch, of
        B+ and of B- at the weights;
    - `probe_perturbed_loss`, `probe_perturbed_loss_plus`,
        `probe_perturbed_loss_minus`: the same at the weights plus `eps`;
    - `probe_cosine_plus`, `probe_cosine_minus`: cosine similarity of the
        gradient of B+, or B-, with that of the batch, at the weights plus
        `eps`, from -1 to 1.

    The three forward and backward passes of the probe batch are in training
    mode, as those of ESAM's step.

    Put it before callbacks that use the figures, such as
    `keras.callbacks.CSVLogger`.

    Args:
        batch: The probe batch, a tuple of arrays `(x, y)` or `(x, y,
            sample_weight)`. Do not take it from the shuffled `tf.data.Dataset`
            that `fit` gets: to read from it changes the order of its epochs.
        rho: Positive float, length of the perturbation (l2). Defaults to
            `0.05`.
        gamma: Float in `(0, 1)`, the fraction of the batch in B+. Defaults to
            `0.5`.
        frequency: Integer, every how many epochs it measures. In the others the
            figures are NaN. Defaults to `1`.
        adaptive: Boolean, whether the perturbation is ASAM's. Defaults to
            `False`.

    Example:

    ```python
    probe = (x_train[:128], y_train[:128])
    history = model.fit(
        dataset, callbacks=[keras_esam.callbacks.SharpnessLogger(probe)]
    ).history
    rise = np.subtract(
        history["probe_perturbed_loss_plus"], history["probe_loss_plus"]
    )
    ```

    Reference:

    - [Du et al., 2022](https://arxiv.org/abs/2110.03141), figures 5 and 6
    """

    def __init__(
        self,
        batch,
        rho: float = 0.05,
        gamma: float = 0.5,
        frequency: int = 1,
        adaptive: bool = False,
    ):
        super().__init__()
        arguments.check_positive(rho=rho)
        arguments.check_count(frequency=frequency)
        self.rho = rho
        self.frequency = frequency
        self.adaptive = arguments.check_boolean("adaptive", adaptive)
        self._batch = batches.read_one_batch(batch)
        self.gamma = checks.check_gamma(gamma, batches.num_samples(self._batch))
        self._probe = None

    def on_train_begin(self, logs=None):
        # Since the last training the model may have been compiled again.
        self._probe = None

    def on_epoch_end(self, epoch, logs=None):
        if logs is None:
            return
        if (epoch + 1) % self.frequency:
            logs.update(dict.fromkeys(KEYS, math.nan))
            return
        if self._probe is None:
            self._probe = Probe(
                self.model, self._batch, self.rho, self.gamma, self.adaptive
            )
        for name, value in self._probe.measure().items():
            logs[f"probe_{name}"] = value
