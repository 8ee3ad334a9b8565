"""The network that the benchmarks measure."""

import keras

layers = keras.layers


def resnet18(width=32, num_classes=10, input_shape=(32, 32, 3)):
    """ResNet-18 with the CIFAR stem (He et al., 2016).

    Args:
        width: Integer, number of filters in the first stage; 64 in the paper.
        num_classes: Integer.
        input_shape: Tuple `(height, width, channels)`.

    Returns:
        A functional `keras.Model` that returns logits.
    """
    inputs = keras.Input(input_shape)
    x = _conv_norm(inputs, width)
    x = layers.ReLU()(x)
    for stage in range(4):
        for block in range(2):
            strides = 2 if stage > 0 and block == 0 else 1
            x = _basic_block(x, width * 2**stage, strides)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(num_classes)(x))


def _basic_block(x, filters, strides):
    shortcut = x
    if strides > 1 or x.shape[-1] != filters:
        shortcut = _conv_norm(x, filters, strides, kernel_size=1)
    x = layers.ReLU()(_conv_norm(x, filters, strides))
    return layers.ReLU()(_conv_norm(x, filters) + shortcut)


def _conv_norm(x, filters, strides=1, kernel_size=3):
    x = layers.Conv2D(
        filters, kernel_size, strides=strides, padding="same", use_bias=False
    )(x)
    return layers.BatchNormalization()(x)
