"""What measures a model leaves it as it was."""

import random

import keras
import numpy as np
import pytest

from keras_esam import analysis
from tests.backends import BACKEND
from tests.backends import tensorflow_only
from tests.networks import assert_identical
from tests.networks import compile_model
from tests.networks import compile_to_graph
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import esam
from tests.networks import fit

DATA = dense_data()
MEASURES = {
    "sharpness": lambda model: analysis.sharpness(model, DATA),
    "hessian": lambda model: analysis.hessian_eigenvalues(model, DATA),
    "landscape": lambda model: (
        analysis.loss_landscape(model, DATA, num_points=2).losses
    ),
    "halves": lambda model: analysis.batch_halves(model, DATA).loss,
}


def states(model):
    """Everything that could go on from somewhere else."""
    variables = [*model.variables, *model.metrics_variables]
    if model.optimizer.built:
        variables += model.optimizer.variables
    values = [keras.ops.convert_to_numpy(v) for v in variables]
    numbers = [random.getstate()[1], np.random.get_state()[1]]
    if BACKEND == "torch":
        import torch

        numbers.append(torch.get_rng_state().numpy())
    return [*values, *map(np.array, numbers)]


def new_and_bare():
    return compile_to_graph(network())


def trained_and_wrapped():
    model = compile_to_graph(esam(network(), beta=1, seed=1))
    fit(model, *DATA)
    return model


def network():
    """With noise that has no seed, and dropout that has one."""
    network = dense_network()
    network.add(keras.layers.GaussianNoise(0.1))
    return network


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("sharpness", new_and_bare),
        *((name, trained_and_wrapped) for name in MEASURES),
    ],
)
def test_all_states_stay_as_they_are(name, make):
    model = make()
    before = states(model)
    built = model.optimizer.built
    first, second = MEASURES[name](model), MEASURES[name](model)
    assert_identical(states(model), before)
    assert model.optimizer.built == built
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, second)


class Remat(keras.layers.Layer):
    """Uses its weight within a `keras.remat` only."""

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], 3))
        self.product = keras.remat(lambda x: keras.ops.softmax(x @ self.kernel))

    def call(self, inputs):
        return self.product(inputs)


@tensorflow_only
@pytest.mark.parametrize(
    ("name", "has_layer_below", "message"),
    [
        ("sharpness", True, "is read when gradients are computed"),
        ("hessian", True, "is read when gradients are computed"),
        ("halves", False, "would be lost"),
    ],
)
def test_gradients_that_would_be_lost_are_an_error(
    name, has_layer_below, message
):
    below = keras.layers.Dense(8) if has_layer_below else keras.layers.ReLU()
    network = keras.Sequential([keras.Input((8,)), below, Remat()])
    with pytest.raises(ValueError, match=message):
        MEASURES[name](compile_model(network))
