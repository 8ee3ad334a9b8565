"""The benchmarks' networks: images to logits of 10 classes.

Logits are float32 in mixed precision too: sharpness compares losses that differ
by less than half precision resolves.
"""

import inspect

import keras

from keras_esam import models

INPUT_SHAPE = (32, 32, 3)
NUM_CLASSES = 10
layers = keras.layers


def resnet18(width=32, depth=2):
    """ResNet-18; `width` is 64 in the paper, `depth` blocks in a stage."""
    return models.resnet18(width=width, depth=depth)


def wide_resnet(width=2, depth=1):
    """Wide ResNet; WRN-28-10 has width 10 and 4 blocks in a stage."""
    return models.wide_resnet(width=width, depth=6 * depth + 4)


def mlp(width=1024, depth=6):
    """Dense network with `depth` hidden layers of `width` units."""
    inputs = keras.Input(INPUT_SHAPE)
    x = layers.Flatten()(inputs)
    for _ in range(depth):
        x = layers.Dense(width, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(NUM_CLASSES, dtype="float32")(x))


def transformer(width=128, depth=4):
    """Transformer encoder of `depth` blocks on the 64 patches of 4x4 pixels.

    `width`, the size of the embedding, is a multiple of 32, the size of a head.
    """
    inputs = keras.Input(INPUT_SHAPE)
    x = layers.Conv2D(width, 4, strides=4)(inputs)
    x = layers.Reshape((64, width))(x)
    for _ in range(depth):
        y = layers.LayerNormalization()(x)
        y = layers.MultiHeadAttention(max(1, width // 32), 32)(y, y)
        x = layers.Add()([x, y])
        y = layers.LayerNormalization()(x)
        y = layers.Dense(4 * width, activation="relu")(y)
        x = layers.Add()([x, layers.Dense(width)(y)])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(inputs, layers.Dense(NUM_CLASSES, dtype="float32")(x))


def small_resnet(input_shape, strides, width=16):
    """Residual BatchNormalization network of `benchmarks.accuracy`.

    `strides` has one value for the stem and one for each stage of one block.
    `width` is the number of filters in the stem and the first stage.
    """

    def conv_norm(x, filters, strides=1):
        x = layers.Conv2D(
            filters, 3, strides=strides, padding="same", use_bias=False
        )(x)
        # The default momentum, 0.99, is too slow for a few hundred steps.
        return layers.BatchNormalization(momentum=0.9)(x)

    inputs = keras.Input(input_shape)
    x = layers.ReLU()(conv_norm(inputs, width, strides[0]))
    for stage, stride in enumerate(strides[1:]):
        filters = width * 2**stage
        shortcut = conv_norm(x, filters, stride) if stride > 1 else x
        x = layers.ReLU()(conv_norm(x, filters, stride))
        x = layers.ReLU()(layers.Add()([conv_norm(x, filters), shortcut]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(NUM_CLASSES, dtype="float32")(x))


NETWORKS = {
    "resnet18": resnet18,
    "wide_resnet": wide_resnet,
    "mlp": mlp,
    "transformer": transformer,
}


def default_sizes(name):
    """Dict with the default `width` and `depth` of a network."""
    parameters = inspect.signature(NETWORKS[name]).parameters
    return {key: value.default for key, value in parameters.items()}
