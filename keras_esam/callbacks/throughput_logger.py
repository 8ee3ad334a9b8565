"""Training throughput in images per second, without compilation."""

import math
import time

import keras
from keras import ops


class ThroughputLogger(keras.callbacks.Callback):
    """Logs the training throughput of each epoch as `images_per_second`.

    The value is samples per second of wall time within the batches of the
    epoch. The last batch, which may be smaller, counts only if it is the first.
    An epoch that compiled logs NaN: the first epoch of each `fit`, and epochs
    in which an `ESAMModel` compiled the step of another subset or stage.

    The model's `loss` metric counts the samples. It is read once per epoch, and
    no other batch is waited for. Works with any `keras.Model`. Put it before
    callbacks that use the value, such as `keras.callbacks.CSVLogger`.

    Example:

    ```python
    throughput = keras_esam.callbacks.ThroughputLogger()
    history = model.fit(dataset, epochs=10, callbacks=[throughput]).history
    history["images_per_second"]
    ```
    """

    # Without it Keras waits for the device after every batch. It may then call
    # `on_train_batch_end` in other threads, all of them before `on_epoch_end`.
    async_safe = True

    def set_model(self, model):
        super().set_model(model)
        # On JAX the attribute `model` writes the state back to the variables.
        self._trained = model

    def on_train_begin(self, logs=None):
        self._compiled = None
        self._last_step = math.inf

    def on_epoch_begin(self, epoch, logs=None):
        self._start = self._measured = None
        self._ends = {}

    def on_train_batch_begin(self, batch, logs=None):
        if self._start is None:
            self._start = time.perf_counter()
        elif batch + self._trained.steps_per_execution > self._last_step:
            self._measure()

    def on_train_batch_end(self, batch, logs=None):
        # The device has finished the batch: Keras has read the logs.
        self._ends[batch] = time.perf_counter()

    def on_test_begin(self, logs=None):
        self._measure()  # Validation resets the metrics.

    def on_epoch_end(self, epoch, logs=None):
        self._measure()
        function = self._trained.train_function
        compiled = function, getattr(function, "num_compiled", 0)
        rate = math.nan
        self._last_step = max(self._ends, default=math.inf)
        if self._ends and compiled == self._compiled:
            samples, end = self._measured
            end = min(end, self._ends[self._last_step])
            rate = samples / (end - self._start)
        self._compiled = compiled
        if logs is not None:
            logs["images_per_second"] = rate

    def _measure(self):
        """Reads samples and time, once the device has finished its work."""
        if self._start is not None and self._measured is None:
            self._measured = self._samples_seen(), time.perf_counter()

    def _samples_seen(self):
        for metric in self.model.metrics:
            if metric.name == "loss" and hasattr(metric, "count"):
                return int(ops.convert_to_numpy(metric.count))
        raise ValueError(
            "`ThroughputLogger` needs a model whose metrics have a `loss` that "
            "counts samples, as in a compiled `keras.Model`. "
            f"Received: metrics={[m.name for m in self.model.metrics]}"
        )
