"""Metrics that a network owns and updates when it is called."""

import keras
import pytest

import keras_esam
from tests.networks import compile_model
from tests.networks import dense_data
from tests.networks import esam
from tests.networks import fit

METHODS = {
    "ESAM": {"rho": 1.0},
    "one-step": {"ascent": "momentum", "gamma": 1},
}


class Activity(keras.layers.Layer):
    """Has a metric as a layer may."""

    def __init__(self):
        super().__init__()
        self.tracker = keras.metrics.Mean(name="of_layer")

    def call(self, inputs):
        self.tracker.update_state(keras.ops.mean(inputs))
        return inputs


class Network(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3, activation="softmax")
        self.activity = Activity()
        self.size = keras.metrics.Mean(name="of_network")

    def call(self, inputs):
        self.size.update_state(keras.ops.mean(inputs * inputs))
        return self.dense(self.activity(inputs))


def compiled(model):
    x, _ = dense_data(16)
    model(x)
    return compile_model(model)


def trained(wrap):
    x, y = dense_data(32)
    keras.utils.set_random_seed(1)
    network = Network()
    model = compiled(wrap(network))
    history = fit(model, x, y, validation_data=(x, y)).history
    return history, model.evaluate(x, y, verbose=0, return_dict=True), network


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="Keras itself loses them there"
)
def test_are_logged_and_reset_as_in_keras():
    history, evaluated, _ = trained(lambda network: network)
    assert {"of_network", "of_layer", "val_of_network"} <= set(history)
    own = trained(lambda network: keras_esam.ESAMModel(network, rho=0.0))
    assert own[0] == history
    assert own[1] == evaluated


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_count_each_batch_once(method):
    x, y = dense_data(32)
    network = Network()
    model = compiled(esam(network, **method))
    logs = fit(model, x, y, epochs=2).history
    assert float(network.size.count) == 2
    assert float(network.activity.tracker.count) == 2
    assert logs["of_network"] == pytest.approx([(x * x).mean()] * 2, rel=1e-5)
    assert model.metrics[-1] is model.sharpness_tracker
