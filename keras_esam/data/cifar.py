"""CIFAR-10 and CIFAR-100."""

import os

import numpy as np
import tensorflow as tf

from keras_esam import arguments
from keras_esam.balanced import balanced
from keras_esam.data import augmentation
from keras_esam.data import epochs
from keras_esam.data.prepared import prepared_builder

# Mean and standard deviation of each channel over the 50,000 training images,
# of pixels from 0 to 255: computed, and for CIFAR-100 those in general use.
STATISTICS = {
    "cifar10": ((125.307, 122.950, 113.865), (62.993, 62.089, 66.705)),
    "cifar100": ((129.304, 124.070, 112.434), (68.170, 65.392, 70.418)),
}


def cifar(
    name: str,
    split: str,
    batch_size: int,
    data_dir: str | os.PathLike | None = None,
    num_samples: int | None = None,
    cutout: int = 0,
    augment: bool = True,
    seed: int = 0,
    epoch: tf.Variable | None = None,
) -> tf.data.Dataset:
    """CIFAR-10 or CIFAR-100 from tensorflow-datasets, 32x32 colour images.

    Training images are shuffled, cropped at random after padding with 4 black
    pixels, and half of them mirrored; what does not fill a batch is left out.
    Test images come in order. Both are standardised per channel.

    The order and the augmentation of an epoch depend on `seed` and the number
    of the epoch only. A resumed training sees the same batches as an
    uninterrupted one if that number comes from a callback, as in the example.

    Args:
        name: String, `"cifar10"` or `"cifar100"`.
        split: String, `"train"` or `"test"`.
        batch_size: Integer.
        data_dir: Optional path, the folder in which tensorflow-datasets has the
            data set. Defaults to the environment variable `TFDS_DATA_DIR`, then
            to `~/tensorflow_datasets`. Nothing is downloaded.
        num_samples: Optional integer, a part with equally many images of each
            class, always the same one. Defaults to `None`, all of them.
        cutout: Integer, side of the square that is set to the mean in half of
            the training images (Cutout). It may reach beyond the image. The
            ESAM authors' code has 16. Defaults to `0`, none.
        augment: Boolean, whether training images are cropped and mirrored at
            random. Without it a small network soon fits a small part of them.
            Defaults to `True`.
        seed: Integer. Defaults to `0`.
        epoch: Optional scalar integer `tf.Variable`, the number of the epoch,
            read when an iterator starts. Defaults to `None`: each iterator
            over the data set has the next number, the first one 0. A `fit` that
            has to build the model uses up one, on JAX every `fit`.

    Returns:
        A `tf.data.Dataset` of known length. Its elements are images, float32 of
        shape `(batch_size, 32, 32, 3)`, and labels, int32 of shape
        `(batch_size,)`.

    Raises:
        FileNotFoundError: If the data set is not there. The message says how to
            get it.
        TypeError: If an argument has a wrong type.
        ValueError: If an argument has a wrong value.

    Example:

    ```python
    counter = keras_esam.callbacks.EpochCounter()
    train = cifar("cifar10", "train", 128, cutout=16, epoch=counter.epoch)
    test = cifar("cifar10", "test", 1000)
    model.fit(train, epochs=200, validation_data=test, callbacks=[counter])
    ```

    Reference:

    - [DeVries & Taylor, 2017](https://arxiv.org/abs/1708.04552), "Improved
        Regularization of Convolutional Neural Networks with Cutout"
    """
    arguments.check_choice("name", name, tuple(STATISTICS))
    epochs.check(split, ("train", "test"), batch_size, seed, epoch)
    arguments.check_count(cutout=cutout, minimum=0)
    arguments.check_boolean("augment", augment)
    if cutout and not augment:
        raise ValueError(
            "`cutout` is part of the augmentation. Received: "
            f"augment=False, cutout={cutout}"
        )
    images, labels = _load(name, split, data_dir)
    if num_samples is not None:
        chosen = np.sort(balanced(labels, num_samples))
        images, labels = images[chosen], labels[chosen]

    def prepare(images, seed):
        if seed is None or not augment:
            return standardise(images, *STATISTICS[name])
        return augmented(images, *STATISTICS[name], cutout, seed)

    if split == "test":
        seed = None
    return epochs.array_batches(
        images, labels, batch_size, prepare, seed, epoch
    )


def _load(name, split, data_dir):
    """Images, uint8 of shape `(num_samples, 32, 32, 3)`, and labels."""
    builder = prepared_builder(name, data_dir)
    with tf.device("CPU:0"):
        data = builder.as_dataset(split=split, batch_size=-1)
    return data["image"].numpy(), data["label"].numpy()


def augmented(images, mean, deviation, cutout, seed):
    """Standardised crops of images, some of them mirrored or cut out.

    Args:
        images: Tensor of uint8, shape `(batch_size, height, width, channels)`.
        mean: Tuple of floats, one for each channel.
        deviation: Tuple of floats, one for each channel.
        cutout: Integer, side of the square, or 0.
        seed: Integers, shape `(2,)`.
    """
    crop_seed, cutout_seed = tf.unstack(tf.random.split(seed))
    crops = augmentation.draw_crops(images.shape[0], crop_seed)
    x = augmentation.crop_and_flip(images, *crops)
    x = standardise(x, mean, deviation)
    if cutout:
        squares = augmentation.draw_cutouts(
            x.shape[0], tuple(x.shape[1:3]), cutout, cutout_seed
        )
        x = augmentation.cut_out(x, *squares, cutout)
    return x


def standardise(images, mean, deviation):
    """Float32 images with mean 0 and deviation 1 in each channel."""
    return (tf.cast(images, "float32") - mean) / deviation
