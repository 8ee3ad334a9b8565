"""m-sharpness; the weights are compared in `test_reference_step`."""

import keras
import numpy as np
import pytest

import keras_esam
from tests.networks import all_values
from tests.networks import assert_identical
from tests.networks import compile_model
from tests.networks import compile_to_graph
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import fit

SAM = {"beta": 1, "gamma": 1, "seed": 3}


def make(network=None, **kwargs):
    network = network or dense_network()
    return keras_esam.ESAMModel(network, **{"rho": 0.2, **SAM, **kwargs})


@pytest.mark.parametrize("size", [16, 100])
@pytest.mark.parametrize("kwargs", [{}, {"gamma": 0.5, "beta": 0.6}], ids=str)
def test_micro_batch_of_the_whole_batch_is_none(size, kwargs):
    x, y = dense_data(40)  # The last batch has 8 samples.
    values = []
    for micro_batch_size in (None, size):
        model = compile_model(make(micro_batch_size=micro_batch_size, **kwargs))
        fit(model, x, y, epochs=2)
        values.append(all_values(model))
    for a, b in zip(*values, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_clean_logs_are_those_of_the_whole_batch():
    x, y = dense_data(38)
    logs = []
    for size in (None, 3):
        network = dense_network(batch_norm=False, dropout=False)
        model = make(network, micro_batch_size=size)
        compile_to_graph(model, keras.optimizers.SGD(0.0))
        logs.append(fit(model, x, y).history)
    for key in ("loss", "accuracy"):
        np.testing.assert_allclose(*(own[key] for own in logs), rtol=1e-5)
    # The gradient of few samples raises their loss more than that of many.
    assert logs[1]["sharpness"][0] > 1.2 * logs[0]["sharpness"][0]


def test_statistics_are_the_mean_of_those_of_the_micro_batches():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(10, 3)).astype("float32")
    network = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.BatchNormalization(momentum=0.75),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model = compile_model(make(network, micro_batch_size=4))
    fit(model, x, np.arange(10) % 3, batch_size=10)
    parts = [x[:2], x[2:6], x[6:]]
    shares = [0.2, 0.4, 0.4]
    norm = network.layers[0]
    for value, initial, statistic in (
        (norm.moving_mean, 0.0, np.mean),
        (norm.moving_variance, 1.0, np.var),
    ):
        expected = sum(
            share * (0.75 * initial + 0.25 * statistic(part, axis=0))
            for share, part in zip(shares, parts, strict=True)
        )
        np.testing.assert_allclose(value.numpy(), expected, atol=1e-6)


def sequences():
    """Inputs with a mask, shape `(12, 5)`, and labels."""
    rng = np.random.default_rng(1)
    x = rng.integers(1, 9, (12, 5))
    for row, length in enumerate(rng.integers(1, 6, 12)):
        x[row, length:] = 0
    return x, rng.integers(0, 3, (12, 5))


def masked_network():
    keras.utils.set_random_seed(2)
    return keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            keras.layers.Embedding(9, 4, mask_zero=True),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


def test_masks_reach_the_metrics():
    x, y = sequences()
    logs = []
    for kwargs in ({"rho": 0.0}, {"micro_batch_size": 5}):
        model = make(masked_network(), **kwargs)
        compile_to_graph(
            model,
            keras.optimizers.SGD(0.0),
            metrics=["accuracy"],
            weighted_metrics=["accuracy"],
        )
        logs.append(fit(model, x, y, batch_size=12).history)
    for key in logs[0]:
        if key != "loss":  # Each micro-batch has its own number of entries.
            np.testing.assert_allclose(*(own[key] for own in logs), rtol=1e-5)


def test_masks_count_in_the_compiled_step_as_in_the_eager_one():
    x, y = sequences()
    logs = []
    for run_eagerly in (True, False):
        model = make(masked_network())
        compile_model(model, run_eagerly=run_eagerly)
        logs.append(fit(model, x, y).history)
    np.testing.assert_allclose(*(own["sharpness"] for own in logs), rtol=1e-4)


class Counting(keras.layers.Layer):
    """Counts the samples that it has seen, as a metric does."""

    def __init__(self):
        super().__init__()
        self.seen = self.add_weight(
            shape=(),
            dtype="int32",
            initializer="zeros",
            trainable=False,
            aggregation="sum",
        )

    def call(self, inputs, training=False):
        if training:
            size = keras.ops.cast(keras.ops.shape(inputs)[0], "int32")
            self.seen.assign(self.seen + size)
        return inputs


def test_what_is_summed_is_the_sum_over_the_micro_batches():
    x, y = dense_data(36)
    counting = Counting()
    network = keras.Sequential(
        [
            keras.Input((8,)),
            counting,
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model = compile_model(make(network, micro_batch_size=3))
    fit(model, x, y, epochs=2)
    assert int(counting.seen.numpy()) == 72


def test_outputs_by_name():
    keras.utils.set_random_seed(4)
    inputs = keras.Input((8,))
    outputs = {
        "a": keras.layers.Dense(1, name="a")(inputs),
        "b": keras.layers.Dense(2, name="b")(inputs),
    }
    x, _ = dense_data(20)
    y = {"a": np.ones((20, 1)), "b": np.zeros((20, 2))}
    logs = []
    # Of one size: in a graph Keras weights the losses of outputs alike.
    for size in (None, 5):
        model = make(keras.Model(inputs, outputs), micro_batch_size=size)
        model.compile(keras.optimizers.SGD(0.0), {"a": "mse", "b": "mae"})
        model.set_weights([np.full(w.shape, 0.3) for w in model.weights])
        logs.append(model.fit(x, y, batch_size=20, verbose=0).history)
    assert logs[0].keys() == {"loss", "a_loss", "b_loss", "sharpness"}
    for key in ("loss", "a_loss", "b_loss"):
        np.testing.assert_allclose(*(own[key] for own in logs), rtol=1e-5)


def test_masks_are_drawn_for_each_micro_batch():
    x, y = dense_data(16)
    values = []
    for _ in range(2):
        model = make(beta=0.5, granularity="weight", micro_batch_size=4)
        compile_model(model)
        fit(model, x, y)
        values.append(all_values(model))
    assert_identical(*values)
    assert model.seed_generator.state.numpy()[1] == 4 * len(
        model.trainable_variables
    )
