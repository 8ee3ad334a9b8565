"""The perturbation from a part of the batch: `ascent_fraction`."""

import keras
import numpy as np
import pytest

import keras_esam
from keras_esam import ascent
from tests.backends import BACKEND
from tests.networks import all_values
from tests.networks import assert_identical
from tests.networks import compile_model
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import fit


def make(network=None, **kwargs):
    """The default method, a part of 0.25, where the arguments say no other."""
    network = network or dense_network(dropout=False)
    return keras_esam.ESAMModel(network, **{"seed": 1, **kwargs})


@keras.saving.register_keras_serializable(package="tests")
class Recorder(keras.layers.Layer):
    """Notes the batches that it sees in training."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seen = []

    def call(self, inputs, training=None):
        if training:
            self.seen.append(keras.ops.convert_to_numpy(inputs))
        return inputs


@pytest.mark.skipif(BACKEND == "jax", reason="A gradient's arrays are traced.")
@pytest.mark.parametrize(
    "batch_size, fraction, rows",
    [
        (16, 0.25, [0, 4, 8, 12]),
        (7, 0.5, [0, 1, 3, 5]),
        # Odd numbers are rounded up, where there are more samples.
        (9, 0.25, [0, 2, 4, 6]),
        (3, 0.01, [0, 1]),
        (1, 0.5, [0]),
    ],
)
def test_first_pass_sees_a_part_that_is_spread_over_the_batch(
    batch_size, fraction, rows
):
    recorder = Recorder()
    network = keras.Sequential([keras.Input((8,)), recorder])
    network.add(keras.layers.Dense(3, activation="softmax"))
    model = compile_model(make(network, ascent_fraction=fraction))
    x, y = dense_data(batch_size)
    model.train_on_batch(x, y)
    first, second = recorder.seen[-2:]
    np.testing.assert_array_equal(first, x[rows])
    np.testing.assert_array_equal(second, x)


def test_logs_and_statistics_are_those_of_the_part():
    """As those of plain `fit` on the samples of the parts alone."""
    x, y = dense_data(40)
    weights = np.linspace(0.5, 2, 40).astype("float32")
    metrics = {"weighted_metrics": ["sparse_categorical_crossentropy"]}
    model = compile_model(make(rho=0.5), keras.optimizers.SGD(0.0), **metrics)
    # Batches of 16, 16 and 8 samples, with parts of 4, 4 and 2.
    history = fit(model, x, y, sample_weight=weights).history
    bare = dense_network(dropout=False)
    compile_model(bare, keras.optimizers.SGD(0.0), **metrics)
    part = slice(None, None, 4)
    expected = fit(
        bare, x[part], y[part], sample_weight=weights[part], batch_size=4
    ).history
    assert set(history) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(history[name], value, rtol=1e-6)
    for a, b in zip(model.model.get_weights(), bare.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_micro_batches_log_what_their_parts_have():
    x, y = dense_data(16)
    network = dense_network(batch_norm=False, dropout=False)
    model = compile_model(
        make(network, micro_batch_size=8), keras.optimizers.SGD(0.0)
    )
    logs = model.train_on_batch(x, y, return_dict=True)
    rows = [0, 4, 8, 12]
    bare = compile_model(dense_network(batch_norm=False, dropout=False))
    expected = bare.test_on_batch(x[rows], y[rows], return_dict=True)
    for name, value in expected.items():
        np.testing.assert_allclose(logs[name], value, rtol=1e-5)


def test_part_may_be_all_of_a_small_micro_batch():
    """9 samples are micro-batches of 1, 4 and 4."""
    x, y = dense_data(9)
    network = dense_network(batch_norm=False, dropout=False)
    model = make(network, ascent_fraction=0.5, micro_batch_size=4)
    compile_model(model, keras.optimizers.SGD(0.0))
    logs = model.train_on_batch(x, y, return_dict=True)
    rows = [0, 1, 3, 5, 7]
    bare = compile_model(dense_network(batch_norm=False, dropout=False))
    expected = bare.test_on_batch(x[rows], y[rows], return_dict=True)
    np.testing.assert_allclose(logs["accuracy"], expected["accuracy"])


@pytest.mark.parametrize(
    "first, second",
    [
        ({}, {"beta": 1, "gamma": 1, "ascent_fraction": 0.25}),
        ({"ascent": "momentum"}, {"ascent": "momentum", "ascent_fraction": 1}),
        (
            {"ascent": "momentum", "gamma": 0.5, "rank_by": "loss"},
            {
                **{"ascent": "momentum", "gamma": 0.5, "rank_by": "loss"},
                "ascent_fraction": 1,
            },
        ),
    ],
    ids=["default", "momentum", "momentum with SDS"],
)
def test_trainings_are_the_same_bit_for_bit(first, second):
    x, y = dense_data(40)
    values, histories = [], []
    for arguments in (first, second):
        model = compile_model(make(dense_network(), **arguments))
        histories.append(fit(model, x, y, epochs=2).history)
        values.append(all_values(model))
    assert_identical(*values)
    assert histories[0] == histories[1]


def test_configuration_of_the_default_keeps_it():
    config = keras_esam.ESAMModel(dense_network()).get_config()
    again = keras_esam.ESAMModel.from_config(config)
    expected = {"beta": 1, "gamma": 1, "ascent_fraction": 0.25}
    for arguments in (config, again.get_config()):
        assert {name: arguments[name] for name in expected} == expected


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            {"gamma": 0.5},
            "Use `ascent_fraction=1` .* gamma=0.5, ascent_fraction=0.25",
        ),
        ({"ascent_fraction": 0}, "Received: ascent_fraction=0"),
        ({"ascent_fraction": 1.5}, "Received: ascent_fraction=1.5"),
    ],
)
def test_what_does_not_go_together_is_an_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)


def test_rows_that_are_no_samples_are_an_error_that_names_it():
    support = keras.Input((8,), batch_size=5)
    query = keras.Input((8,), batch_size=4)
    center = keras.ops.mean(support, axis=0, keepdims=True)
    outputs = keras.layers.Dense(3, activation="softmax")(query - center)
    network = keras.Model([query, support], outputs)
    x, y = dense_data(4)
    model = compile_model(make(network))
    with pytest.raises(ValueError, match="`ascent_fraction=1`"):
        model.train_on_batch([x, np.ones((5, 8), "float32")], y)


@pytest.mark.parametrize(
    "gradients, others, adaptive, cosine",
    [
        # (3 * 0 + 0 * 1 + 4 * 1) / (5 * sqrt(2)), without what one has not.
        (([3, 0], None, [4]), ([0, 1], [7], [1]), False, 4 / (5 * 2**0.5)),
        # Of (6, 0, 2) and (0, 1, 0.5).
        (([3, 0], None, [4]), ([0, 1], [7], [1]), True, 1 / 50**0.5),
        # These do not move the mean, 0.5.
        (([0, 0], None, [0]), ([0, 1], [7], [1]), False, 0.5),
        (([3, 0], None, [4]), ([0, np.inf], [7], [1]), False, 0.5),
        ((None, None, [4]), ([0, 1], [7], None), False, 0.5),
    ],
)
def test_alignment_is_a_running_mean(gradients, others, adaptive, cosine):
    gradients, others, weights = (
        [None if g is None else np.array(g, "float32") for g in tensors]
        for tensors in (gradients, others, ([2, 1], [1], [0.5]))
    )
    mean = keras.ops.convert_to_tensor(0.5, "float32")
    moved = ascent.updated_alignment(mean, gradients, others, weights, adaptive)
    np.testing.assert_allclose(moved, 0.5 + (cosine - 0.5) / 20, rtol=1e-6)


@pytest.mark.parametrize(
    "alignment, radius", [(0.8, 0.25), (0.1, 0.4), (-1.0, 0.4), (2, 0.2)]
)
def test_radius_grows_as_the_alignment_falls_within_bounds(alignment, radius):
    alignment = keras.ops.convert_to_tensor(alignment, "float32")
    rescaled_radius = ascent.rescaled_radius(0.2, alignment, 0.25)
    np.testing.assert_allclose(rescaled_radius, radius, rtol=1e-6)


def test_layers_may_have_several_dtypes():
    network = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    network.add(keras.layers.Dense(3, "softmax", dtype="float16"))
    model = compile_model(make(network))
    model.train_on_batch(*dense_data(16))
    assert keras.ops.convert_to_numpy(model._progress.alignment) < 1


def test_steps_without_a_gradient_have_no_alignment():
    x, y = dense_data(16)
    network = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    model = compile_model(make(network, rho=0.1))
    model.train_on_batch(x, y)
    progress = model._progress
    known = float(keras.ops.convert_to_numpy(progress.alignment))
    assert 0.9 <= known < 1
    model.train_on_batch(x, y, sample_weight=np.zeros(16, "float32"))
    assert float(keras.ops.convert_to_numpy(progress.alignment)) == known
