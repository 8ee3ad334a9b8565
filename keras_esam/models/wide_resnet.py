"""Wide ResNet for small images."""

import keras

from keras_esam import arguments
from keras_esam.models import parts


def wide_resnet(
    input_shape: tuple[int, int, int] = (32, 32, 3),
    num_classes: int = 10,
    width: int = 10,
    depth: int = 28,
) -> keras.Model:
    """Wide ResNet with pre-activation and without dropout; WRN-28-10.

    WRN-28-10 has 36,479,194 trainable parameters with 10 classes and 36,536,884
    with 100.

    Args:
        input_shape: As for `keras_esam.models.resnet18`. Defaults to
            `(32, 32, 3)`.
        num_classes: Integer. Defaults to `10`.
        width: Integer, factor of the 16, 32 and 64 filters of the three stages.
            Defaults to `10`.
        depth: Integer, number of layers, `6 * n + 4` for `n` blocks in each
            stage. Defaults to `28`.

    Returns:
        A functional `keras.Model`, as `keras_esam.models.resnet18` does.

    Raises:
        TypeError: If a number is no integer.
        ValueError: If a number is not positive, or there is no network of that
            `depth`.

    Example:

    ```python
    network = keras_esam.models.wide_resnet(width=2, depth=16)  # WRN-16-2
    ```

    Reference:

    - [Zagoruyko & Komodakis, 2016](https://arxiv.org/abs/1605.07146), "Wide
        Residual Networks"
    """
    arguments.check_count(num_classes=num_classes, width=width, depth=depth)
    if depth < 10 or depth % 6 != 4:
        raise ValueError(
            "`depth` must be 6 * n + 4 for n blocks in each stage, for "
            f"instance 10, 16, 22 or 28. Received: depth={depth}"
        )
    inputs = keras.Input(input_shape)
    x = parts.conv(inputs, 16)
    for stage in range(3):
        for block in range((depth - 4) // 6):
            strides = 2 if stage > 0 and block == 0 else 1
            x = _wide_block(x, 16 * width * 2**stage, strides)
    x = parts.norm_relu(x)
    return keras.Model(inputs, parts.head(x, num_classes), name="wide_resnet")


def _wide_block(x, filters, strides):
    activated = parts.norm_relu(x)
    if strides > 1 or x.shape[parts.channel_axis()] != filters:
        x = parts.conv(activated, filters, 1, strides)
    y = parts.norm_relu(parts.conv(activated, filters, strides=strides))
    return keras.layers.Add()([parts.conv(y, filters), x])
