"""PyramidNet for small images."""

import keras
from keras import ops

from keras_esam import arguments
from keras_esam.models import parts


def pyramid_net(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    width: int = 270,
    depth: int = 110,
) -> keras.Model:
    """PyramidNet of basic blocks, whose filters grow from block to block.

    PyramidNet-110 with `alpha=270` has 28,485,477 trainable parameters with 10
    classes and 28,511,307 with 100. Its shortcuts have none: channels that are
    missing are zeros.

    Args:
        input_shape: As for `keras_esam.models.resnet18`. Defaults to
            `(32, 32, 3)`.
        num_classes: Integer. Defaults to `10`.
        width: Integer, the paper's `alpha`: how many filters the last block has
            beyond the 16 of the first convolution. Defaults to `270`.
        depth: Integer, number of layers, `6 * n + 2` for `n` blocks in each of
            the three stages. Defaults to `110`.

    Returns:
        A functional `keras.Model`, as `keras_esam.models.resnet18` does.

    Raises:
        TypeError: If a number is no integer.
        ValueError: If a number is not positive, or there is no network of that
            `depth`.

    Example:

    ```python
    network = keras_esam.models.pyramid_net(width=48, depth=20)
    ```

    Reference:

    - [Han et al., 2017](https://arxiv.org/abs/1610.02915), "Deep Pyramidal
        Residual Networks"
    """
    arguments.check_count(num_classes=num_classes, width=width, depth=depth)
    if depth < 8 or depth % 6 != 2:
        raise ValueError(
            "`depth` must be 6 * n + 2 for n blocks in each stage, for "
            f"instance 8, 20, 56 or 110. Received: depth={depth}"
        )
    blocks = (depth - 2) // 6
    inputs = keras.Input(input_shape)
    x = parts.norm(parts.conv(inputs, 16))
    for index in range(3 * blocks):
        strides = 2 if index in (blocks, 2 * blocks) else 1
        filters = 16 + round(width * (index + 1) / (3 * blocks))
        x = _pyramid_block(x, filters, strides)
    x = parts.norm_relu(x)
    return keras.Model(inputs, parts.head(x, num_classes), name="pyramid_net")


def _pyramid_block(x, filters, strides):
    y = parts.conv(parts.norm(x), filters, strides=strides)
    y = parts.norm(parts.conv(parts.norm_relu(y), filters))
    if strides > 1:
        x = keras.layers.AveragePooling2D(2, padding="same")(x)
    missing = filters - x.shape[parts.channel_axis()]
    if missing:
        padding = [[0, 0]] * 4
        padding[parts.channel_axis()] = [0, missing]
        x = ops.pad(x, padding)
    return keras.layers.Add()([y, x])
