"""ResNet-18 for small images."""

import keras

from keras_esam import arguments
from keras_esam.models import parts


def resnet18(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    width: int = 64,
    depth: int = 2,
) -> keras.Model:
    """ResNet-18 with the stem for CIFAR: a 3x3 convolution and no pooling.

    It has 11,173,962 trainable parameters with 10 classes and 11,220,132 with
    100.

    Args:
        input_shape: Tuple of integers, height, width and channels, or channels
            first where `keras.config.image_data_format()` says so. Defaults to
            `(32, 32, 3)`.
        num_classes: Integer. Defaults to `10`.
        width: Integer, number of filters in the first of the four stages; each
            of the others has twice as many as the one before. Defaults to `64`.
        depth: Integer, number of blocks in a stage, of two convolutions each.
            Defaults to `2`.

    Returns:
        A functional `keras.Model`, images `(batch_size, height, width,
        channels)` to logits `(batch_size, num_classes)`.

    Raises:
        TypeError: If a number is no integer.
        ValueError: If a number is not positive.

    Example:

    ```python
    network = keras_esam.models.resnet18(num_classes=100)
    model = keras_esam.ESAMModel(network)
    ```

    Reference:

    - [He et al., 2016](https://arxiv.org/abs/1512.03385), "Deep Residual
        Learning for Image Recognition"
    """
    arguments.check_count(num_classes=num_classes, width=width, depth=depth)
    inputs = keras.Input(input_shape)
    x = parts.norm_relu(parts.conv(inputs, width))
    for stage in range(4):
        for block in range(depth):
            strides = 2 if stage > 0 and block == 0 else 1
            x = _basic_block(x, width * 2**stage, strides)
    return keras.Model(inputs, parts.head(x, num_classes), name="resnet18")


def _basic_block(x, filters, strides):
    shortcut = x
    if strides > 1 or x.shape[parts.channel_axis()] != filters:
        shortcut = parts.norm(parts.conv(x, filters, 1, strides))
    x = parts.norm_relu(parts.conv(x, filters, strides=strides))
    x = parts.norm(parts.conv(x, filters))
    return keras.layers.ReLU()(keras.layers.Add()([x, shortcut]))
