"""Layers with variables that are overwritten with their gradients."""

import keras
from keras import ops

from tests.networks import NUM_CLASSES
from tests.networks import SOFTMAX_DTYPE

layers = keras.layers


def float8_network(mode="float8"):
    """Dense network with scales and histories of float8 training."""
    keras.utils.set_random_seed(1)
    network = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(16, activation="tanh"),
            layers.Dense(NUM_CLASSES),
            layers.Activation("softmax", dtype=SOFTMAX_DTYPE),
        ]
    )
    for layer in network.layers[:2]:
        if mode is not None:
            layer.quantize(mode)
    return network


def network_with(*middle):
    """Dense network with layers in the middle."""
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(8, activation="tanh"),
            *middle,
            layers.Dense(8, activation="tanh"),
            layers.Dense(NUM_CLASSES, activation="softmax"),
        ]
    )


class LargestInput(layers.Layer):
    """Identity with a variable that is set to the largest input of a batch,
    times a million."""

    def build(self, input_shape):
        self.largest = self.add_weight(
            shape=(1,), initializer="ones", overwrite_with_gradient=True
        )

    def call(self, inputs):
        @ops.custom_gradient
        def identity(inputs, largest):
            def gradients(*args, upstream=None):
                if upstream is None:
                    (upstream,) = args
                new_value = 1e6 * ops.max(ops.abs(inputs))
                return upstream, ops.reshape(new_value, (1,))

            return 1.0 * inputs, gradients

        return identity(inputs, ops.convert_to_tensor(self.largest))


def is_overwritten(variable):
    return variable.overwrite_with_gradient
