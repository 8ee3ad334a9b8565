"""ResNet-50 and ResNet-101 for ImageNet, those of `keras.applications`."""

import keras


def resnet50(
    input_shape: tuple[int, int, int] = (224, 224, 3), num_classes: int = 1000
) -> keras.Model:
    """ResNet-50 of `keras.applications` with random weights.

    Args:
        input_shape: Tuple of integers, height, width and channels, or channels
            first where `keras.config.image_data_format()` says so. Defaults to
            `(224, 224, 3)`.
        num_classes: Integer. Defaults to `1000`.

    Returns:
        A functional `keras.Model`, images `(batch_size, height, width,
        channels)` to logits `(batch_size, num_classes)`.

    Reference:

    - [He et al., 2016](https://arxiv.org/abs/1512.03385), "Deep Residual
        Learning for Image Recognition"
    """
    return _from_applications("ResNet50", input_shape, num_classes)


def resnet101(
    input_shape: tuple[int, int, int] = (224, 224, 3), num_classes: int = 1000
) -> keras.Model:
    """ResNet-101 of `keras.applications` with random weights, see `resnet50`.

    Args:
        input_shape: As for `resnet50`. Defaults to `(224, 224, 3)`.
        num_classes: Integer. Defaults to `1000`.

    Returns:
        A functional `keras.Model`, as for `resnet50`.
    """
    return _from_applications("ResNet101", input_shape, num_classes)


def _from_applications(name, input_shape, num_classes):
    make = getattr(keras.applications, name)
    return make(
        weights=None,
        input_shape=input_shape,
        classes=num_classes,
        classifier_activation=None,
    )
