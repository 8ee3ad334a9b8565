"""Images per second of training, without the time of compilation."""

import math
import time

import keras


class ThroughputLogger(keras.callbacks.Callback):
    """Logs the training throughput of each epoch as `images_per_second`.

    The figure is the number of samples divided by the wall time in seconds,
    over the executions that count. An execution is one call of the compiled
    train function, `steps_per_execution` batches. These do not count, because
    they compile, or may:

    - the first execution of each compiled step in a call of `fit` (an
        `ESAMModel` has one for each of its `num_subsets`, and more with
        `interval` and with stages of `beta` and `gamma`);
    - the first of each that ends an epoch, as its last batch may be smaller;
    - with `jit_compile` and a data set of unknown length, the first epoch.

    Validation, callbacks at the end of an epoch and the set-up of an epoch's
    iterator do not count either. An epoch in which nothing counts logs NaN.

    The number of samples is read from the model's `loss` metric, at the edges
    of the time that counts only, a few times per epoch. No other batch is
    waited for. Works with any `keras.Model`.

    Put it before the callbacks that are to see the figure, such as
    `keras.callbacks.CSVLogger` and `keras.callbacks.TensorBoard`. The history
    that `fit` returns has it in any case.

    Example:

    ```python
    history = model.fit(
        dataset,
        callbacks=[
            keras_esam.callbacks.ThroughputLogger(),
            keras.callbacks.CSVLogger("log.csv"),
        ],
    )
    history.history["images_per_second"]
    ```
    """

    # Without it Keras waits for the device after every batch. It may then call
    # `on_train_batch_end` in other threads, all of them before `on_epoch_end`.
    async_safe = True

    _segment = None

    def on_train_begin(self, logs=None):
        self._train_function = None
        self._num_steps = self.params.get("steps")
        self._length_is_known = self._num_steps is not None

    def on_epoch_begin(self, epoch, logs=None):
        self._segment = None
        self._counted = []
        self._execution = None
        self._ends = {}

    def on_train_batch_begin(self, batch, logs=None):
        if self._execution is not None:
            self._warm.add(self._execution)
        if self._train_function is not self._model.train_function:
            # Also in mid-training, where an attribute of the model was set.
            self._train_function = self._model.train_function
            self._warm = set()
        step = getattr(self._model, "upcoming_step", None)
        next_step = batch + self._model.steps_per_execution
        is_last = self._num_steps is not None and next_step >= self._num_steps
        self._execution = (step, is_last)
        self._begun = batch
        if self._execution not in self._warm:
            self._close_segment()
        elif self._segment is None:
            samples = self._samples_seen()  # waits for the batches before
            self._segment = (time.perf_counter(), samples)

    def on_train_batch_end(self, batch, logs=None):
        # The device has done it: Keras has read the logs.
        self._ends[batch] = time.perf_counter()

    def on_test_begin(self, logs=None):
        # Validation, which resets the metrics.
        self._close_segment()

    def on_epoch_end(self, epoch, logs=None):
        self._close_segment()
        last_step = max(self._ends, default=-1)
        if last_step >= self._begun:  # or the data ended before it did
            self._warm.add(self._execution)
        if not self._length_is_known and self._ends:
            if self._num_steps is None and self._model.jit_compile:
                self._counted = []
            self._num_steps = last_step + 1
        if logs is not None:
            logs["images_per_second"] = self._rate(self._ends.get(last_step))

    def _rate(self, last_end):
        """Samples per second of the segments, none of them after `last_end`."""
        if not self._counted:
            return math.nan
        starts, ends, samples = zip(*self._counted, strict=True)
        seconds = sum(min(end, last_end) for end in ends) - sum(starts)
        return sum(samples) / seconds

    def _close_segment(self):
        """Ends the time that counts, when the device has done what it began."""
        if self._segment is None:
            return
        start, samples_before = self._segment
        self._segment = None
        samples = self._samples_seen() - samples_before
        if samples:
            self._counted.append((start, time.perf_counter(), samples))

    def _samples_seen(self):
        """Number of samples so far in this epoch. Waits for the device."""
        for metric in self._model.metrics:
            if metric.name == "loss" and hasattr(metric, "count"):
                return int(self._value(metric.count))
        raise ValueError(
            "`ThroughputLogger` needs a model whose metrics have a `loss` that "
            "counts samples, as those of a compiled `keras.Model` have. "
            f"Received: metrics={[m.name for m in self._model.metrics]}"
        )

    def _value(self, metric_variable):
        """Value of a variable of a metric.

        On JAX `fit` holds the values in a state of its own. The attribute
        `model` of a callback would write all of it back to the variables.
        """
        state = getattr(self._model, "_jax_state", None)
        if not state or self._model._jax_state_synced:
            return keras.ops.convert_to_numpy(metric_variable)
        variables = self._model.metrics_variables
        index = [v is metric_variable for v in variables].index(True)
        return state["metrics_variables"][index]
