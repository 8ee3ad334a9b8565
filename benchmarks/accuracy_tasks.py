"""Data and networks of `benchmarks.accuracy`, sized for two cores."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np

from keras_esam.balanced import balanced
from keras_esam.extras import requires

layers = keras.layers


@dataclasses.dataclass(frozen=True)
class Task:
    """What is trained, and for how long.

    Args:
        load: Function `load(num_train, data_dir)` that returns training and
            test data, two pairs of images `(n, height, width, channels)` and
            labels `(n,)`.
        input_shape: Shape of an image.
        strides: Strides of the network's stages.
        num_train: Integer, default number of training samples.
        batch_size: Integer.
        learning_rate: Float, the first one of a cosine decay.
        rho: Float.
        short: Integer, epochs of the short budget.
        long: Integer, epochs of the long one, in which the base optimizer fits
            the training set.
    """

    load: Callable
    input_shape: tuple
    strides: tuple
    num_train: int
    batch_size: int
    learning_rate: float
    rho: float
    short: int
    long: int


def load_digits(num_train, data_dir=None):
    """The 1,797 scans of digits that come with scikit-learn, 8x8 pixels."""
    del data_dir
    with requires("benchmarks"):
        from sklearn.datasets import load_digits

    digits = load_digits()
    x = (digits.images[..., None] / 16).astype("float32")
    y = digits.target.astype("int32")
    train = balanced(y, num_train)
    test = np.setdiff1d(np.arange(len(y)), train)
    return (x[train], y[train]), (x[test], y[test])


def load_cifar10(num_train, data_dir=None):
    """A balanced part of CIFAR-10's training set, and the whole test set."""
    with requires("benchmarks"):
        import tensorflow_datasets as tfds

    try:
        data = tfds.load(
            "cifar10", data_dir=data_dir, download=False, batch_size=-1
        )
    except (AssertionError, FileNotFoundError, ValueError) as error:
        raise FileNotFoundError(
            "CIFAR-10 is not there. Download it with "
            '`tensorflow_datasets.load("cifar10", data_dir=...)` and give the '
            f"folder as --data-dir. Received: data_dir={data_dir!r}"
        ) from error
    parts = []
    for split, count in (("train", num_train), ("test", 10_000)):
        x, y = data[split]["image"].numpy(), data[split]["label"].numpy()
        chosen = balanced(y, count)
        x = (x[chosen].astype("float32") - 120.7) / 64.1  # mean, deviation
        parts.append((x, y[chosen].astype("int32")))
    return parts


def make_network(task, width=16):
    """Residual BatchNormalization network, one block in each stage."""

    def conv_norm(x, filters, strides=1):
        x = layers.Conv2D(
            filters, 3, strides=strides, padding="same", use_bias=False
        )(x)
        # The default momentum, 0.99, is too slow for a few hundred steps.
        return layers.BatchNormalization(momentum=0.9)(x)

    inputs = keras.Input(task.input_shape)
    x = layers.ReLU()(conv_norm(inputs, width, task.strides[0]))
    for stage, strides in enumerate(task.strides[1:]):
        filters = width * 2**stage
        shortcut = x
        if strides > 1:
            shortcut = conv_norm(x, filters, strides)
        x = layers.ReLU()(conv_norm(x, filters, strides))
        x = layers.ReLU()(layers.Add()([conv_norm(x, filters), shortcut]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10)(x))


TASKS = {
    "digits": Task(
        load=load_digits,
        input_shape=(8, 8, 1),
        strides=(1, 1, 2, 2),
        num_train=200,
        batch_size=50,
        learning_rate=0.05,
        rho=0.4,
        short=10,
        long=60,
    ),
    "cifar10": Task(
        load=load_cifar10,
        input_shape=(32, 32, 3),
        strides=(2, 1, 2, 2),
        num_train=1000,
        batch_size=64,
        learning_rate=0.05,
        rho=0.2,
        short=10,
        long=40,
    ),
}
