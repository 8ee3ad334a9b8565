"""Sharpness of the two parts into which SDS splits a batch, per epoch."""

import dataclasses
import math

import keras

from keras_esam import arguments
from keras_esam.analysis.batch_halves import BatchHalves
from keras_esam.analysis.batch_halves import Probe
from keras_esam.analysis.batch_halves import check_settings

KEYS = [f"probe_{field.name}" for field in dataclasses.fields(BatchHalves)]


class SharpnessLogger(keras.callbacks.Callback):
    """Logs losses and gradients of B+ and B- on a probe batch, per epoch.

    B+ are the samples whose loss rises the most when the weights are perturbed,
    found again each time, and B- are the others. The logged values, explained
    with their units in `keras_esam.analysis.batch_halves`, are:

    - `probe_loss`, `probe_loss_plus`, `probe_loss_minus`;
    - `probe_perturbed_loss`, `probe_perturbed_loss_plus`,
        `probe_perturbed_loss_minus`;
    - `probe_cosine_plus`, `probe_cosine_minus`.

    They take three forward and backward passes of the probe batch. Works with
    any compiled `keras.Model` and does not change the training: the weights are
    bit-identical with and without it. Put it before callbacks that use the
    values, such as `keras.callbacks.CSVLogger`.

    Args:
        batch: The probe batch, a tuple of arrays `(x, y)` or `(x, y,
            sample_weight)`. Do not take it from the shuffled `tf.data.Dataset`
            that `fit` gets: reading from it changes the order of its epochs.
        rho: As for `batch_halves`. Defaults to `0.05`.
        gamma: As for `batch_halves`. Defaults to `0.5`.
        frequency: Integer, number of epochs from one measurement to the next.
            In the others the values are NaN. Defaults to `1`.
        adaptive: As for `batch_halves`. Defaults to `False`.

    Example:

    ```python
    probe = (x_train[:128], y_train[:128])
    logger = keras_esam.callbacks.SharpnessLogger(probe)
    history = model.fit(dataset, callbacks=[logger]).history
    history["probe_perturbed_loss_plus"]
    ```
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
        self.frequency = arguments.check_count("frequency", frequency)
        self._settings = check_settings(batch, rho, gamma, adaptive)
        self._probe = None

    def on_train_begin(self, logs=None):
        # The model may have been compiled again since the last training.
        self._probe = None

    def on_epoch_end(self, epoch, logs=None):
        if logs is None:
            return
        if (epoch + 1) % self.frequency:
            logs.update(dict.fromkeys(KEYS, math.nan))
            return
        if self._probe is None:
            self._probe = Probe(self.model, *self._settings)
        for name, value in self._probe.measure().items():
            logs[f"probe_{name}"] = value
