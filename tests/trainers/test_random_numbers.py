"""TensorFlow's own random numbers within a step are found when it is traced."""

import warnings

import keras
import numpy as np
import pytest

from tests.backends import tensorflow_only
from tests.networks import compile_to_graph
from tests.networks import dense_data
from tests.networks import esam
from tests.networks import fit

pytestmark = tensorflow_only

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf


class Noise(keras.layers.Layer):
    def __init__(self, draw):
        super().__init__()
        self.draw = draw

    def call(self, inputs):
        return inputs + self.draw(inputs)


def in_a_loop(inputs):
    return tf.map_fn(lambda row: tf.random.normal(tf.shape(row)), inputs)


def of_a_generator():
    generator = tf.random.Generator.from_seed(1)
    return lambda inputs: generator.normal(tf.shape(inputs))


def of_keras():
    seed = keras.random.SeedGenerator(1)
    return lambda inputs: keras.random.normal(tf.shape(inputs), seed=seed)


OWN = {
    "uniform": lambda: lambda inputs: tf.random.uniform(tf.shape(inputs)),
    "dropout": lambda: lambda inputs: tf.nn.dropout(inputs, 0.5),
    "loop": lambda: in_a_loop,
    "generator": of_a_generator,
}


def make(draw, **kwargs):
    network = keras.Sequential(
        [Noise(draw), keras.layers.Dense(3, activation="softmax")]
    )
    return esam(network, **kwargs)


def warnings_of_two_fits(model, **kwargs):
    x, y = dense_data(32)
    compile_to_graph(model, jit_compile=False, **kwargs)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            fit(model, x, y)
    return [str(w.message) for w in caught if "random" in str(w.message)]


@pytest.mark.parametrize("name", OWN)
def test_warns_once_of_tensorflows_random_numbers(name):
    m = 8 if name == "uniform" else None
    model = make(OWN[name](), beta=1, gamma=1, micro_batch_size=m)
    (message,) = warnings_of_two_fits(model)
    assert "keras.random.SeedGenerator" in message


@pytest.mark.parametrize("kwargs", [{"rho": 0.0}, {}], ids=["base", "ESAM"])
def test_does_not_warn_of_what_does_no_harm(kwargs):
    draw = OWN["uniform"]() if kwargs else of_keras()
    assert not warnings_of_two_fits(make(draw, beta=1, **kwargs))


def test_keras_random_numbers_are_the_same_in_all_passes():
    x, y = dense_data(32)
    model = compile_to_graph(
        make(of_keras(), rho=1e-9, beta=1), jit_compile=False
    )
    rise = fit(model, x, y).history["sharpness"][0]
    assert np.abs(rise) < 1e-6
