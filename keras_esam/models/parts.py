"""Parts of the residual networks."""

import keras

layers = keras.layers


def channel_axis():
    """Axis of the channels, as `keras.config.image_data_format()` says."""
    is_last = keras.config.image_data_format() == "channels_last"
    return -1 if is_last else 1


def conv(x, filters, kernel_size=3, strides=1):
    """Convolution without offset, He initialisation (He et al., 2015)."""
    if kernel_size == 1 and strides > 1:
        # The same pixels. TensorFlow with oneDNN crashes in the gradient of a
        # 1x1 convolution with strides if the batch has an odd size.
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
        axis=channel_axis(), momentum=0.9, epsilon=1e-5
    )(x)


def norm_relu(x):
    return layers.ReLU()(norm(x))


def head(x, num_classes):
    """Logits, shape `(batch_size, num_classes)`, in float32 at any precision.

    Args:
        x: Feature maps, shape `(batch_size, height, width, channels)`.
        num_classes: Integer.
    """
    x = layers.GlobalAveragePooling2D()(x)
    return layers.Dense(
        num_classes, kernel_initializer="he_normal", dtype="float32"
    )(x)
