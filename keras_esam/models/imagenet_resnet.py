"""ResNets for ImageNet, of `keras.applications` and of KerasCV.

They have their own head: under a mixed policy Keras' head has logits of half
precision, too coarse to rank samples by the rise of their losses.
"""

import keras

from keras_esam import arguments
from keras_esam.extras import requires
from keras_esam.models.small_images import head


def resnet50(
    input_shape: tuple[int, int, int] = (224, 224, 3), num_classes: int = 1000
) -> keras.Model:
    """ResNet-50 of `keras.applications` with random weights.

    It returns the same kind of model as `keras_esam.models.resnet18`.

    Args:
        input_shape: As for `resnet18`. Defaults to `(224, 224, 3)`.
        num_classes: Integer. Defaults to `1000`.
    """
    backbone = keras.applications.ResNet50(
        weights=None, input_shape=input_shape, include_top=False
    )
    return _with_head(backbone, num_classes, "resnet50")


def resnet101(
    input_shape: tuple[int, int, int] = (224, 224, 3), num_classes: int = 1000
) -> keras.Model:
    """ResNet-101 of `keras.applications`, otherwise as `resnet50`.

    Args:
        input_shape: As for `resnet18`. Defaults to `(224, 224, 3)`.
        num_classes: Integer. Defaults to `1000`.
    """
    backbone = keras.applications.ResNet101(
        weights=None, input_shape=input_shape, include_top=False
    )
    return _with_head(backbone, num_classes, "resnet101")


def bottleneck_resnet(
    input_shape: tuple[int, int, int] = (224, 224, 3),
    num_classes: int = 1000,
    width: int = 64,
    blocks: tuple[int, int, int, int] = (3, 4, 6, 3),
) -> keras.Model:
    """ResNet of bottleneck blocks of any size, with KerasCV's backbone.

    It stands in for ResNet-50 and ResNet-101 on small machines. With the
    defaults it has the 25,557,032 trainable parameters of a ResNet-50 whose
    convolutions have no bias; in `keras.applications` they have one. It needs
    TensorFlow and KerasCV (`pip install "keras-esam[examples]"`). It returns
    the same kind of model as `keras_esam.models.resnet18`.

    Args:
        input_shape: Tuple of integers, height, width and channels. Defaults to
            `(224, 224, 3)`.
        num_classes: Integer. Defaults to `1000`.
        width: Integer, filters within the blocks of the first stage. Each
            further stage has twice as many. Defaults to `64`.
        blocks: Tuple of four integers, the number of blocks in each stage.
            Defaults to `(3, 4, 6, 3)`.

    Raises:
        ImportError: If KerasCV is not installed.
        TypeError: If a number is no integer.
        ValueError: If a number is not positive, there are not four stages, or
            Keras' image data format is not `"channels_last"`.

    Example:

    ```python
    network = keras_esam.models.bottleneck_resnet(
        (64, 64, 3), num_classes=10, width=16, blocks=(1, 1, 1, 1)
    )
    ```
    """
    arguments.check_counts(num_classes=num_classes, width=width)
    if len(blocks) != 4:
        raise ValueError(
            "`blocks` must have a number for each of the four stages. "
            f"Received: blocks={blocks}"
        )
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "KerasCV's backbone has its channels last. Received: "
            "keras.config.image_data_format()="
            f"{keras.config.image_data_format()!r}"
        )
    for count in blocks:
        arguments.check_count("blocks", count)
    with requires("examples"):
        import keras_cv
    backbone = keras_cv.models.ResNetBackbone(
        stackwise_filters=[width * 2**stage for stage in range(4)],
        stackwise_blocks=list(blocks),
        stackwise_strides=[1, 2, 2, 2],
        include_rescaling=False,
        input_shape=input_shape,
        block_type="block",
    )
    return _with_head(backbone, num_classes, "bottleneck_resnet")


def _with_head(backbone, num_classes, name):
    outputs = head(backbone.output, num_classes)
    return keras.Model(backbone.input, outputs, name=name)
