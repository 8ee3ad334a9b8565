"""With a clock that only the test moves, so that every figure is exact."""

import math
import threading
import time

import keras
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
from tests.networks import esam
from tests.networks import fit

NAN = pytest.approx(math.nan, nan_ok=True)


class SlowSteps:
    """A train function that takes a second per batch, and long to compile."""

    def __init__(self, model, clock):
        model.make_train_function()
        self.function, model.train_function = model.train_function, self
        self.clock, self.num_batches = clock, model.steps_per_execution

    @property
    def num_compiled(self):
        return getattr(self.function, "num_compiled", 0)

    def __call__(self, *args):
        before = self.num_compiled
        result = self.function(*args)
        compiled = self.num_compiled - before
        self.clock.now += 1000.0 * compiled + self.num_batches
        return result


class Clock:
    now = 0.0

    def perf_counter(self):
        return self.now

    def wait(self, *args):
        self.now += 5000.0

    def fit(self, model, x, y=None, **kwargs):
        """The logger between other callbacks and a validation that are slow."""
        if not isinstance(model.train_function, SlowSteps):
            SlowSteps(model, self)
        epochs, validation = (keras.callbacks.Callback() for _ in range(2))
        epochs.on_epoch_begin = epochs.on_epoch_end = self.wait
        validation.on_test_begin = validation.on_test_end = self.wait
        callbacks = [epochs, ThroughputLogger(), validation]
        kwargs = {"batch_size": None if y is None else 16, **kwargs}
        history = fit(model, x, y, callbacks=callbacks, **kwargs).history
        return history["images_per_second"]


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(throughput_logger, "time", clock)
    return clock


def bare_model(**kwargs):
    return compile_to_graph(dense_network(), **kwargs)


def esam_model(**kwargs):
    model = esam(dense_network(), seed=1)
    model._preferred_pool_size = 2
    return compile_to_graph(model, **kwargs)


def part_model(**kwargs):
    model = keras_esam.ESAMModel(dense_network(), ascent_fraction=0.25)
    return compile_to_graph(model, **kwargs)


@pytest.mark.parametrize("make", [bare_model, esam_model, part_model])
def test_batches_count_and_nothing_else(make, clock):
    x, y = dense_data(16 * 6 + 8)
    model = make()
    for _ in range(2):  # Each call of `fit` may compile.
        rates = clock.fit(model, x, y, epochs=3, validation_data=(x, y))
        assert rates == [NAN, 16.0, 16.0]


def test_epoch_that_compiled_a_step_has_no_figure(clock):
    """Each epoch is a batch, so that each of 2 subsets has its own."""
    rates = clock.fit(esam_model(), *dense_data(16), epochs=4)
    assert rates == [NAN] * 2 + [16.0] * 2


def test_epoch_in_which_an_attribute_was_set_has_no_figure():
    """It makes all compiled steps anew."""
    model = compile_to_graph(esam(dense_network(), beta=1))

    class SetsRho(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                self.model.rho = 0.1

    callbacks = [SetsRho(), ThroughputLogger()]
    history = fit(model, *dense_data(48), epochs=4, callbacks=callbacks).history
    rates = history["images_per_second"]
    assert [math.isnan(rate) for rate in rates] == [True, False, True, False]


@pytest.mark.filterwarnings("ignore:.*ran out of data")
@pytest.mark.parametrize(
    ("steps", "is_known"),
    [
        (1, False),
        pytest.param(5, True, marks=compiled_steps),
        pytest.param(5, False, marks=compiled_steps),
        pytest.param(13, True, marks=compiled_steps),
    ],
)
def test_steps_per_execution_and_unknown_length(steps, is_known, clock):
    num_samples = 16 * 13 if steps == 13 else 16 * 12 + 8
    dataset = tf.data.Dataset.from_tensor_slices(dense_data(num_samples))
    dataset = dataset.batch(16)
    if not is_known:
        dataset = dataset.filter(lambda x, y: True)
        assert dataset.cardinality() == tf.data.UNKNOWN_CARDINALITY
    model = bare_model(steps_per_execution=steps)
    assert clock.fit(model, dataset, epochs=3) == [NAN, 16.0, 16.0]


@tensorflow_only  # Keras wants a batch on the other backends.
@pytest.mark.filterwarnings("ignore:.*ran out of data")
def test_epochs_without_data_have_no_figure(clock):
    dataset = tf.data.Dataset.from_tensor_slices(dense_data(8)).batch(4)
    dataset = dataset.filter(lambda x, y: False)
    assert clock.fit(bare_model(), dataset, epochs=2) == [NAN, NAN]


def test_samples_are_read_once_per_epoch(monkeypatch):
    reads = []
    read = ThroughputLogger._samples_seen
    monkeypatch.setattr(
        ThroughputLogger,
        "_samples_seen",
        lambda self: reads.append(1) or read(self),
    )
    fit(bare_model(), *dense_data(64), epochs=3, callbacks=[ThroughputLogger()])
    assert len(reads) == 3


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


def test_time_ends_when_a_single_batch_is_done(clock, monkeypatch):
    """The device needs 12 seconds more than the host, and so do the logs of
    the epoch, which do not count."""
    convert = python_utils.pythonify_logs

    def slow(logs):
        clock.now += 12.0 if logs else 0.0
        return convert(logs)

    monkeypatch.setattr(python_utils, "pythonify_logs", slow)
    x, y = dense_data(13 * 8)
    rates = clock.fit(bare_model(), x, y, epochs=3, batch_size=len(x))
    assert rates == [NAN, 8.0, 8.0]


def test_real_time_is_that_of_the_batches():
    """Against the time around the train function, on real steps."""
    model, durations = bare_model(), []
    model.make_train_function()
    function = model.train_function

    def timed(*args):
        start = time.perf_counter()
        result = function(*args)
        float((result[0] if len(args) == 2 else result)["loss"])
        durations.append(time.perf_counter() - start)
        return result

    model.train_function = timed
    x, y = dense_data(64 * 50)
    logger = ThroughputLogger()
    history = fit(model, x, y, batch_size=64, epochs=2, callbacks=[logger])
    rate = history.history["images_per_second"][-1]
    expected = 64 * 49 / sum(durations[-50:-1])
    assert 0.5 * expected < rate < 1.1 * expected


def test_model_without_a_loss_metric():
    logger = ThroughputLogger()
    logger.set_model(keras.Sequential())
    logger.on_train_begin()
    logger.on_epoch_begin(0)
    logger.on_train_batch_begin(0)
    with pytest.raises(
        ValueError, match=r"needs a model whose .* metrics=\[\]"
    ):
        logger.on_epoch_end(0)
