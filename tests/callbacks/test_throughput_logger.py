"""With a clock that only the test moves, so that every figure is exact."""

import csv
import math
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.utils import python_utils

import keras_esam
from keras_esam.callbacks import ThroughputLogger
from keras_esam.callbacks import throughput_logger
from tests.backends import compiled_steps
from tests.backends import tensorflow_only
from tests.networks import compile_to_graph
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import fit

COMPILE_SECONDS = 1000.0


class Clock:
    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(throughput_logger, "time", clock)
    return clock


class SlowSteps:
    """A train function that takes a second per batch, and long to compile."""

    def __init__(self, model, clock, batch_size=16):
        self.model, self.clock, self.batch_size = model, clock, batch_size
        model.make_train_function()
        self.function = model.train_function
        model.train_function = self
        self.seen = set()

    def samples(self, state):
        metric = next(m for m in self.model.metrics if m.name == "loss")
        if state is None:
            return int(metric.count)
        variables = self.model.metrics_variables
        return int(state[3][[v is metric.count for v in variables].index(True)])

    def __call__(self, *args):
        # On JAX the state is the first argument and comes back.
        has_state = len(args) == 2
        subset = getattr(self.model, "upcoming_step", 0)
        before = self.samples(args[0] if has_state else None)
        result = self.function(*args)
        samples = self.samples(result[1] if has_state else None) - before
        ragged = samples % self.batch_size
        if (subset, bool(ragged)) not in self.seen:
            self.seen.add((subset, bool(ragged)))
            self.clock.now += COMPILE_SECONDS
        self.clock.now += math.ceil(samples / self.batch_size)
        return result


def with_slow_hooks(clock):
    """The logger between other callbacks and a validation that take long."""

    def wait(*args):
        clock.now += 5000.0

    epochs = keras.callbacks.Callback()
    epochs.on_epoch_begin = epochs.on_epoch_end = wait
    validation = keras.callbacks.Callback()
    validation.on_test_begin = validation.on_test_end = wait
    return [epochs, ThroughputLogger(), validation]


def run(model, clock, x, y, **kwargs):
    SlowSteps(model, clock)
    callbacks = with_slow_hooks(clock)
    return fit(model, x, y, callbacks=callbacks, **kwargs).history[
        "images_per_second"
    ]


def bare_model(**kwargs):
    return compile_to_graph(dense_network(), **kwargs)


def esam_model(**kwargs):
    model = keras_esam.ESAMModel(dense_network(), seed=1)
    return compile_to_graph(model, **kwargs)


@pytest.mark.parametrize("make", [bare_model, esam_model])
@pytest.mark.parametrize("validate", [False, True])
def test_compilation_and_validation_do_not_count(make, validate, clock):
    x, y = dense_data(16 * 12)
    kwargs = {"validation_data": (x, y)} if validate else {}
    assert run(make(), clock, x, y, epochs=3, **kwargs) == [16.0] * 3


@pytest.mark.parametrize("make", [bare_model, esam_model])
def test_ragged_batches_count_with_their_own_size(make, clock):
    """12 batches of 16 and one of 8, a second each, until all are warm."""
    x, y = dense_data(16 * 12 + 8)
    rates = run(make(), clock, x, y, epochs=20)
    # The last batch of an epoch counts once its compiled step is warm.
    assert rates[0] == 16.0
    assert rates[-1] == pytest.approx((16 * 12 + 8) / 13)
    assert set(rates) == {16.0, rates[-1]}


@compiled_steps
@pytest.mark.parametrize("steps", [3, 5, 100])
def test_steps_per_execution(steps, clock):
    x, y = dense_data(16 * 12)
    model = bare_model(steps_per_execution=steps)
    rates = run(model, clock, x, y, epochs=3)
    # All 12 batches in one execution: the first epoch only compiles.
    assert math.isnan(rates[0]) if steps == 100 else rates[0] == 16.0
    assert rates[1:] == [16.0, 16.0]


@pytest.mark.filterwarnings("ignore:.*ran out of data")
@pytest.mark.parametrize("steps", [1, pytest.param(5, marks=compiled_steps)])
@pytest.mark.parametrize("num_samples", [16 * 12, 16 * 12 + 8])
def test_unknown_length(steps, num_samples, clock):
    x, y = dense_data(num_samples)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    dataset = dataset.filter(lambda x, y: True)
    assert dataset.cardinality() == tf.data.UNKNOWN_CARDINALITY
    model = bare_model(steps_per_execution=steps)
    SlowSteps(model, clock)
    # Here a batch that was not seen before does not compile.
    model.train_function.seen = {(0, True)}
    history = model.fit(
        dataset,
        epochs=3,
        shuffle=False,
        verbose=0,
        callbacks=with_slow_hooks(clock),
    )
    seconds = math.ceil(num_samples / 16)
    rates = history.history["images_per_second"]
    assert rates[-1] == pytest.approx(num_samples / seconds)
    expected = (num_samples - 16 * steps) / (seconds - steps)
    if model.jit_compile:  # As on JAX: see the next test.
        expected = math.nan
    assert rates[0] == pytest.approx(expected, nan_ok=True)


@compiled_steps
@pytest.mark.filterwarnings("ignore:.*ran out of data")
def test_first_epoch_of_unknown_length_has_no_figure_under_xla(clock):
    x, y = dense_data(48)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
    dataset = dataset.filter(lambda x, y: True)
    model = bare_model(jit_compile=True)
    SlowSteps(model, clock)
    history = model.fit(
        dataset,
        epochs=3,
        shuffle=False,
        verbose=0,
        callbacks=[ThroughputLogger()],
    )
    rates = history.history["images_per_second"]
    assert math.isnan(rates[0])
    assert rates[1:] == [16.0, 16.0]


def test_epoch_in_which_nothing_counts_is_nan(clock):
    x, y = dense_data(32)
    rates = run(esam_model(), clock, x, y, epochs=30)
    assert math.isnan(rates[0]) and math.isnan(rates[1])
    assert rates[-1] == 16.0


def test_samples_are_read_a_few_times_per_epoch_and_not_per_batch(monkeypatch):
    reads = []
    read = ThroughputLogger._samples_seen

    def counted(self):
        reads.append(1)
        return read(self)

    monkeypatch.setattr(ThroughputLogger, "_samples_seen", counted)
    x, y = dense_data(4 * 100)
    model = bare_model()
    fit(model, x, y, batch_size=4, epochs=3, callbacks=[ThroughputLogger()])
    assert len(reads) <= 4 * 3


def test_training_waits_for_no_logs_of_a_batch(monkeypatch):
    """Or the device would stand still until the host has the next batch."""
    waited = []
    convert = python_utils.pythonify_logs

    def counted(logs):
        if logs and threading.current_thread() is threading.main_thread():
            waited.append(logs)
        return convert(logs)

    monkeypatch.setattr(python_utils, "pythonify_logs", counted)
    counts = []
    for callbacks in ([], [ThroughputLogger()]):
        model = bare_model()
        waited.clear()
        fit(model, *dense_data(64), callbacks=callbacks)
        counts.append(len(waited))
    assert counts[0] == counts[1] > 0


def test_time_ends_when_the_last_batch_is_done(clock, monkeypatch):
    """The device needs 12 seconds more than the host, and so do the logs of
    the epoch, which do not count."""
    convert = python_utils.pythonify_logs

    def slow(logs):
        clock.now += 12.0 if logs else 0.0
        return convert(logs)

    monkeypatch.setattr(python_utils, "pythonify_logs", slow)
    x, y = dense_data(16 * 12)
    rates = run(bare_model(), clock, x, y, epochs=3, batch_size=len(x))
    assert rates[1:] == [8.0, 8.0]


def test_real_time_is_that_of_the_batches():
    """Against the time around the train function, on real steps."""
    import time

    x, y = dense_data(64 * 50)
    model = esam_model()
    model.make_train_function()
    function, durations = model.train_function, []

    def timed(*args):
        start = time.perf_counter()
        result = function(*args)
        logs = result[0] if len(args) == 2 else result
        float(logs["loss"])
        durations.append(time.perf_counter() - start)
        return result

    model.train_function = timed
    history = fit(
        model, x, y, batch_size=64, epochs=3, callbacks=[ThroughputLogger()]
    )
    rate = history.history["images_per_second"][-1]
    expected = 64 * 50 / sum(durations[-50:])
    assert 0.5 * expected < rate < 1.1 * expected


def test_history_csv_and_tensorboard_get_the_figure(tmp_path):
    x, y = dense_data(64)
    model = bare_model()
    history = fit(
        model,
        x,
        y,
        epochs=2,
        callbacks=[
            ThroughputLogger(),
            keras.callbacks.CSVLogger(tmp_path / "log.csv"),
            keras.callbacks.TensorBoard(tmp_path / "board"),
        ],
    )
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    logged = [float(row["images_per_second"]) for row in rows]
    assert logged == history.history["images_per_second"]
    events = list((tmp_path / "board" / "train").glob("events*"))
    tags = set()
    for event in tf.compat.v1.train.summary_iterator(str(events[0])):
        tags |= {value.tag for value in event.summary.value}
    assert "epoch_images_per_second" in tags


def test_model_without_a_loss_metric():
    class Own(keras.Sequential):
        def train_step(self, *args):
            logs = {"nothing": keras.ops.zeros(())}
            return (logs, args[0]) if len(args) == 2 else logs

        @property
        def metrics(self):
            return []

    x, y = dense_data(64)
    model = compile_to_graph(Own([keras.layers.Dense(3)]))
    with pytest.raises(ValueError, match="needs a model whose metrics"):
        fit(model, x, y, callbacks=[ThroughputLogger()])


def test_new_fit_measures_anew(clock):
    x, y = dense_data(64)
    model = bare_model()
    rates = run(model, clock, x, y, epochs=2)
    rates += fit(model, x, y, epochs=2, callbacks=[ThroughputLogger()]).history[
        "images_per_second"
    ]
    assert np.all(np.isfinite(rates))


@tensorflow_only  # Keras wants a batch on the other backends.
@pytest.mark.filterwarnings("ignore:.*ran out of data")
def test_empty_data_set_of_unknown_length_is_nan():
    x, y = dense_data(8)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    dataset = dataset.filter(lambda x, y: False)
    history = bare_model().fit(
        dataset,
        epochs=2,
        shuffle=False,
        verbose=0,
        callbacks=[ThroughputLogger()],
    )
    assert all(map(math.isnan, history.history["images_per_second"]))


def test_compiling_again_in_mid_epoch_does_not_count(clock):
    """An attribute that is set there makes all compiled steps anew."""
    model = compile_to_graph(keras_esam.ESAMModel(dense_network(), beta=1))
    model.train_function = SlowSteps(model, clock)

    class Changes(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 3:
                model.rho = 0.1
                model.train_function = SlowSteps(model, clock)

    x, y = dense_data(16 * 8)
    history = fit(model, x, y, callbacks=[Changes(), ThroughputLogger()])
    assert history.history["images_per_second"] == [16.0]
