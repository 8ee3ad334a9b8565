"""The networks that the benchmarks measure, all for 32x32 images, 10 classes.

Each is a function of a width and a depth that returns logits, float32 in mixed
precision too. They use layers that Keras 3 and `tf_keras` have alike; `api` is
one or the other.
"""

import inspect

import keras

INPUT_SHAPE = (32, 32, 3)
NUM_CLASSES = 10


def resnet18(width=32, depth=2, api=keras):
    """ResNet with the CIFAR stem (He et al., 2016).

    Args:
        width: Integer, number of filters in the first stage; 64 in the paper.
        depth: Integer, number of blocks in each of the four stages; 2 in
            ResNet-18.
        api: Module `keras` or `tf_keras`.

    Returns:
        A functional model.
    """
    layers = api.layers
    inputs = api.Input(INPUT_SHAPE)
    x = layers.ReLU()(_conv_norm(inputs, width, layers))
    for stage in range(4):
        for block in range(depth):
            strides = 2 if stage > 0 and block == 0 else 1
            x = _basic_block(x, width * 2**stage, layers, strides)
    x = layers.GlobalAveragePooling2D()(x)
    return api.Model(inputs, _logits(x, layers))


def _basic_block(x, filters, layers, strides):
    shortcut = x
    if strides > 1 or x.shape[-1] != filters:
        shortcut = _conv_norm(x, filters, layers, strides, kernel_size=1)
    x = layers.ReLU()(_conv_norm(x, filters, layers, strides))
    x = layers.Add()([_conv_norm(x, filters, layers), shortcut])
    return layers.ReLU()(x)


def _conv_norm(x, filters, layers, strides=1, kernel_size=3):
    x = layers.Conv2D(
        filters, kernel_size, strides=strides, padding="same", use_bias=False
    )(x)
    return layers.BatchNormalization()(x)


def _logits(x, layers):
    # The losses that sharpness compares differ by less than half precision has.
    return layers.Dense(NUM_CLASSES, dtype="float32")(x)


def wide_resnet(width=2, depth=1, api=keras):
    """Wide ResNet with pre-activation (Zagoruyko & Komodakis, 2016).

    Args:
        width: Integer, widening factor of the 16, 32 and 64 filters; 10 in
            WRN-28-10.
        depth: Integer, number of blocks in each of the three stages; 4 in
            WRN-28-10.
        api: Module `keras` or `tf_keras`.

    Returns:
        A functional model.
    """
    layers = api.layers

    def conv(x, filters, strides=1, kernel_size=3):
        return layers.Conv2D(
            filters,
            kernel_size,
            strides=strides,
            padding="same",
            use_bias=False,
        )(x)

    def norm_relu(x):
        return layers.ReLU()(layers.BatchNormalization()(x))

    inputs = api.Input(INPUT_SHAPE)
    x = conv(inputs, 16)
    for stage in range(3):
        filters = 16 * width * 2**stage
        for block in range(depth):
            strides = 2 if stage > 0 and block == 0 else 1
            activated = norm_relu(x)
            if block == 0:
                x = conv(activated, filters, strides, kernel_size=1)
            y = norm_relu(conv(activated, filters, strides))
            x = layers.Add()([conv(y, filters), x])
    x = layers.GlobalAveragePooling2D()(norm_relu(x))
    return api.Model(inputs, _logits(x, layers))


def mlp(width=1024, depth=6, api=keras):
    """Dense network with `depth` hidden layers of `width` units."""
    layers = api.layers
    inputs = api.Input(INPUT_SHAPE)
    x = layers.Flatten()(inputs)
    for _ in range(depth):
        x = layers.Dense(width, activation="relu")(x)
    return api.Model(inputs, _logits(x, layers))


def transformer(width=128, depth=4, api=keras):
    """Transformer encoder on the 64 patches of 4x4 pixels.

    Args:
        width: Integer, size of the embedding, a multiple of 32, the size of a
            head.
        depth: Integer, number of blocks.
        api: Module `keras` or `tf_keras`.

    Returns:
        A functional model.
    """
    layers = api.layers
    inputs = api.Input(INPUT_SHAPE)
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
    return api.Model(inputs, _logits(x, layers))


NETWORKS = {
    "resnet18": resnet18,
    "wide_resnet": wide_resnet,
    "mlp": mlp,
    "transformer": transformer,
}


def default_sizes(name):
    """Dict with the default `width` and `depth` of a network."""
    parameters = inspect.signature(NETWORKS[name]).parameters
    return {key: parameters[key].default for key in ("width", "depth")}


def make_network(name, width, depth, api=keras):
    """A network by name."""
    return NETWORKS[name](width=width, depth=depth, api=api)
