"""The residual networks of the ESAM paper for small images."""

import keras
from keras import layers
from keras import ops

from keras_esam import arguments


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
        width: Integer, number of filters in the first of the four stages. Each
            further stage has twice as many. Defaults to `64`.
        depth: Integer, number of blocks in a stage, of two convolutions each.
            Defaults to `2`.

    Returns:
        A functional `keras.Model`, images `(batch_size, height, width,
        channels)` to logits `(batch_size, num_classes)`, float32 under mixed
        precision too.

    Raises:
        TypeError: If a number is no integer.
        ValueError: If a number is not positive.

    Example:

    ```python
    model = keras_esam.ESAMModel(keras_esam.models.resnet18(num_classes=100))
    ```

    Reference: [He et al., 2016](https://arxiv.org/abs/1512.03385), "Deep
    Residual Learning for Image Recognition".
    """
    arguments.check_counts(num_classes=num_classes, width=width, depth=depth)
    inputs = keras.Input(input_shape)
    x = norm_relu(conv(inputs, width))
    x = _stages(
        x, _basic_block, [width * 2**stage for stage in range(4)], depth
    )
    return keras.Model(inputs, head(x, num_classes), name="resnet18")


def wide_resnet(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    width: int = 10,
    depth: int = 28,
) -> keras.Model:
    """Wide ResNet with pre-activation and without dropout; WRN-28-10.

    WRN-28-10 has 36,479,194 trainable parameters with 10 classes and 36,536,884
    with 100. Result and errors are the same as for `resnet18`.

    Args:
        input_shape: As for `resnet18`. Defaults to `(32, 32, 3)`.
        num_classes: Integer. Defaults to `10`.
        width: Integer, factor of the 16, 32 and 64 filters of the three stages.
            Defaults to `10`.
        depth: Integer, number of layers, `6 * n + 4` for `n` blocks in each
            stage, such as 16 for WRN-16. Defaults to `28`.

    Reference: [Zagoruyko & Komodakis, 2016](https://arxiv.org/abs/1605.07146),
    "Wide Residual Networks".
    """
    arguments.check_counts(num_classes=num_classes, width=width, depth=depth)
    blocks = _blocks_per_stage(depth, 4, "10, 16, 22 or 28")
    inputs = keras.Input(input_shape)
    filters = [16 * width, 32 * width, 64 * width]
    x = _stages(conv(inputs, 16), _wide_block, filters, blocks)
    outputs = head(norm_relu(x), num_classes)
    return keras.Model(inputs, outputs, name="wide_resnet")


def pyramid_net(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    width: int = 270,
    depth: int = 110,
) -> keras.Model:
    """PyramidNet of basic blocks, with more filters from block to block.

    PyramidNet-110 with `alpha=270` has 28,485,477 trainable parameters with 10
    classes and 28,511,307 with 100. Its shortcuts have none: missing channels
    are zeros. Result and errors are the same as for `resnet18`.

    Args:
        input_shape: As for `resnet18`. Defaults to `(32, 32, 3)`.
        num_classes: Integer. Defaults to `10`.
        width: Integer, the paper's `alpha`: how many filters the last block has
            beyond the 16 of the first convolution. Defaults to `270`.
        depth: Integer, number of layers, `6 * n + 2` for `n` blocks in each of
            the three stages. Defaults to `110`.

    Reference: [Han et al., 2017](https://arxiv.org/abs/1610.02915), "Deep
    Pyramidal Residual Networks".
    """
    arguments.check_counts(num_classes=num_classes, width=width, depth=depth)
    blocks = _blocks_per_stage(depth, 2, "8, 20, 56 or 110")
    inputs = keras.Input(input_shape)
    x = norm(conv(inputs, 16))
    for index in range(3 * blocks):
        strides = 2 if index in (blocks, 2 * blocks) else 1
        filters = 16 + round(width * (index + 1) / (3 * blocks))
        x = _pyramid_block(x, filters, strides)
    outputs = head(norm_relu(x), num_classes)
    return keras.Model(inputs, outputs, name="pyramid_net")


def _blocks_per_stage(depth, rest, examples):
    if depth < 6 + rest or depth % 6 != rest:
        raise ValueError(
            f"`depth` must be 6 * n + {rest} for n blocks in each stage, for "
            f"instance {examples}. Received: depth={depth}"
        )
    return (depth - rest) // 6


def _stages(x, make_block, filters_of_stages, num_blocks):
    for stage, filters in enumerate(filters_of_stages):
        for block in range(num_blocks):
            strides = 2 if stage > 0 and block == 0 else 1
            x = make_block(x, filters, strides)
    return x


def _basic_block(x, filters, strides):
    shortcut = x
    if strides > 1 or x.shape[_channel_axis()] != filters:
        shortcut = norm(conv(x, filters, 1, strides))
    x = norm_relu(conv(x, filters, strides=strides))
    x = norm(conv(x, filters))
    return layers.ReLU()(layers.Add()([x, shortcut]))


def _wide_block(x, filters, strides):
    activated = norm_relu(x)
    if strides > 1 or x.shape[_channel_axis()] != filters:
        x = conv(activated, filters, 1, strides)
    y = norm_relu(conv(activated, filters, strides=strides))
    return layers.Add()([conv(y, filters), x])


def _pyramid_block(x, filters, strides):
    y = conv(norm(x), filters, strides=strides)
    y = norm(conv(norm_relu(y), filters))
    if strides > 1:
        x = layers.AveragePooling2D(2, padding="same")(x)
    missing = filters - x.shape[_channel_axis()]
    if missing:
        padding = [[0, 0]] * 4
        padding[_channel_axis()] = [0, missing]
        x = ops.pad(x, padding)
    return layers.Add()([y, x])


def _channel_axis():
    is_last = keras.config.image_data_format() == "channels_last"
    return -1 if is_last else 1


def conv(x, filters, kernel_size=3, strides=1):
    """Convolution without bias, He initialisation (He et al., 2015)."""
    if kernel_size == 1 and strides > 1:
        # Selects the same pixels. TensorFlow with oneDNN crashes in the
        # gradient of a strided 1x1 convolution with an odd batch size.
        x = layers.MaxPooling2D(1, strides, padding="same")(x)
        strides = 1
    return layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
    )(x)


def norm(x):
    """Batch normalization with the constants of PyTorch, as in the paper."""
    return layers.BatchNormalization(
        axis=_channel_axis(), momentum=0.9, epsilon=1e-5
    )(x)


def norm_relu(x):
    return layers.ReLU()(norm(x))


def head(x, num_classes):
    """Logits, `(batch_size, num_classes)`, float32 at any precision."""
    x = layers.GlobalAveragePooling2D()(x)
    return layers.Dense(
        num_classes, kernel_initializer="he_normal", dtype="float32"
    )(x)
