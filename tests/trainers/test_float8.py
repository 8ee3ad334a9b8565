"""Variables that are overwritten with their gradients are no weights."""

import keras
import numpy as np
import pytest

from keras_esam import analysis
from tests.methods import METHODS
from tests.networks import assert_different
from tests.networks import assert_identical
from tests.networks import compile_model
from tests.networks import compile_to_graph
from tests.networks import dense_data
from tests.networks import esam
from tests.networks import fit
from tests.overwritten import LargestInput
from tests.overwritten import float8_network
from tests.overwritten import is_overwritten
from tests.overwritten import network_with

X, Y = dense_data()
SGD = keras.optimizers.SGD


def values(network, overwritten=True):
    return [
        keras.ops.convert_to_numpy(v)
        for v in network.trainable_variables
        if is_overwritten(v) == overwritten
    ]


def largest_output(layer, x):
    return np.abs(keras.ops.convert_to_numpy(layer(x))).max()


def train(network, settings, optimizer, compile_it=compile_to_graph, **kwargs):
    """Keras has no float8 layers in eager steps on TensorFlow."""
    model = network
    if settings is not None:
        model = esam(network, seed=1, **settings)
        model._preferred_pool_size = 2
    compile_it(model, optimizer)
    return fit(model, X, Y, **kwargs).history["loss"]


@pytest.mark.parametrize(
    "settings",
    [
        {"granularity": "weight", "start": 1},
        {"ascent": "momentum"},
    ],
    ids=str,
)
def test_without_perturbation_training_is_that_of_keras(settings):
    results = []
    for arguments in (None, {"rho": 1e-12, "gamma": 1, **settings}):
        network = float8_network()
        losses = train(network, arguments, SGD(0.1, momentum=0.9))
        results.append([np.array(losses), *network.get_weights()])
    for value, expected in zip(*results, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "settings", [{"beta": 1, "gamma": 1}, {"rank_by": "loss"}], ids=str
)
def test_scales_are_those_of_the_clean_pass(settings):
    """With learning rate 0 all clean passes are those of plain Keras."""
    expected, network = float8_network(), float8_network()
    before = values(network)
    train(expected, None, SGD(0.0))
    train(network, {"rho": 10.0, **settings}, SGD(0.0))
    assert_different(values(network), before)
    for value, other in zip(values(network), values(expected), strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-6)
    assert_identical(
        values(network, overwritten=False), values(expected, overwritten=False)
    )


@pytest.mark.parametrize(
    "name", ["esam_depth", "esam_weight", "esam_micro_batches", "one_step_loss"]
)
def test_network_is_trained_as_without_such_variables(name):
    weights = []
    for middle in ([], [LargestInput()]):
        network = network_with(*middle)
        settings = {"rho": 0.5, **METHODS[name]}
        train(network, settings, SGD(0.1, momentum=0.9), compile_model)
        weights.append(values(network, overwritten=False))
    for value, expected in zip(*weights, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("compile_it", [compile_model, compile_to_graph])
def test_micro_batches_keep_the_largest_value(compile_it):
    network = network_with(LargestInput())
    model = esam(network, rho=10.0, gamma=1, micro_batch_size=5)
    compile_it(model, SGD(0.1))
    largest = 1e6 * largest_output(network.layers[0], X[:16])
    model.train_on_batch(X[:16], Y[:16])
    np.testing.assert_allclose(values(network), [[largest]], rtol=1e-6)


def test_one_step_takes_the_value_of_its_only_pass():
    network = network_with(LargestInput())
    settings = {"ascent": "momentum", "gamma": 1, "rho": 0.5, "beta": 1}
    model = esam(network, **settings)
    compile_model(model, SGD(0.1, momentum=0.9))
    for step in range(2):
        largest = 1e6 * largest_output(network.layers[0], X)
        model.train_on_batch(X, Y)
        unperturbed = np.isclose(values(network), largest, rtol=1e-6).all()
        assert unperturbed == (step == 0)


def test_scales_are_not_divided_by_the_loss_scale(float16):
    results = []
    for settings in (None, {"rho": 0.5, "gamma": 1}):
        network = float8_network()
        optimizer = keras.optimizers.LossScaleOptimizer(
            SGD(0.0), initial_scale=2.0**8
        )
        train(network, settings, optimizer)
        results.append(values(network))
    for value, expected in zip(*results, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-2)


def test_layers_can_be_frozen():
    network = float8_network()
    network.layers[0].trainable = False
    model = esam(network, rho=0.1, beta=1)
    compile_to_graph(model)
    before = network.layers[0].get_weights()
    fit(model, X, Y)
    assert_identical(network.layers[0].get_weights(), before)
    network.layers[0].trainable = True
    compile_to_graph(model)
    fit(model, X, Y)
    assert_different(network.layers[0].get_weights(), before)


def test_networks_of_integers_train():
    """All that is trainable in them are the biases and LoRA's matrices."""
    network = float8_network(mode=None)
    network.layers[0].enable_lora(2)
    for layer in network.layers[:2]:
        layer.quantize("int8")
    before = network.get_weights()
    losses = train(network, {"rho": 0.1}, SGD(0.5), compile_model, epochs=5)
    assert losses[-1] < losses[0]
    assert any(map(np.any, map(np.not_equal, network.get_weights(), before)))
    model = compile_model(esam(network))
    assert np.isfinite(analysis.sharpness(model, (X, Y)))
