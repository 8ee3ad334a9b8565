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
# of pixels from 0 to 255: computed, and for CIFAR-100 the usual values.
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

    Training images are shuffled, padded with 4 black pixels, cropped at random,
    and half of them mirrored. An incomplete last batch is dropped. Test images
    come in order. Both are standardised per channel. Order and augmentation
    depend only on `seed` and the epoch number. If a callback provides the
    latter, as in the example, a resumed training sees the same batches as an
    uninterrupted one.

    Args:
        name: String, `"cifar10"` or `"cifar100"`.
        split: String, `"train"` or `"test"`.
        batch_size: Integer.
        data_dir: Optional path, folder of tensorflow-datasets. Defaults to the
            environment variable `TFDS_DATA_DIR`, then to
            `~/tensorflow_datasets`. Nothing is downloaded.
        num_samples: Optional integer, size of a fixed, class-balanced subset.
            Defaults to `None`, all images.
        cutout: Integer, side of the square that is set to the mean in half of
            the training images ([Cutout](https://arxiv.org/abs/1708.04552)). It
            may reach beyond the image. The ESAM authors' code uses 16. Defaults
            to `0`, none.
        augment: Boolean, whether training images are cropped and mirrored at
            random. Defaults to `True`.
        seed: Integer. Defaults to `0`.
        epoch: Optional scalar integer `tf.Variable`, the epoch number, read
            when an iterator starts. Defaults to `None`: each iterator gets the
            next number, from 0. A `fit` that builds the model uses up one, on
            JAX every `fit`.

    Returns:
        A `tf.data.Dataset` of known length: images, float32 of shape
        `(batch_size, 32, 32, 3)`, and labels, int32 of shape `(batch_size,)`.

    Raises:
        FileNotFoundError: If the data set is missing; says how to get it.
        TypeError, ValueError: If an argument has a wrong type or value.

    Example:

    ```python
    counter = keras_esam.callbacks.EpochCounter()
    train = cifar("cifar10", "train", 128, cutout=16, epoch=counter.epoch)
    test = cifar("cifar10", "test", 1000)
    model.fit(train, epochs=200, validation_data=test, callbacks=[counter])
    ```
    """
    arguments.check_choice("name", name, tuple(STATISTICS))
    seed = epochs.check(split, ("train", "test"), batch_size, seed, epoch)
    arguments.check_count("cutout", cutout, minimum=0)
    arguments.check_boolean("augment", augment)
    if cutout and not augment:
        raise ValueError(
            "`cutout` is part of the augmentation. Received: "
            f"augment=False, cutout={cutout}"
        )
    with tf.device("CPU:0"):
        data = prepared_builder(name, data_dir).as_dataset(
            split=split, batch_size=-1
        )
    images, labels = data["image"].numpy(), data["label"].numpy()
    if num_samples is not None:
        chosen = np.sort(balanced(labels, num_samples))
        images, labels = images[chosen], labels[chosen]

    def prepare(images, seed):
        seed = seed if augment else None
        return standardised(images, *STATISTICS[name], cutout, seed)

    return epochs.array_batches(
        images, labels, batch_size, prepare, seed, epoch
    )


def standardised(images, mean, deviation, cutout=0, seed=None):
    """Float32 images with mean 0 and deviation 1 in each channel.

    With a seed, shape `(2,)`, they are cropped and mirrored at random. A
    `cutout` larger than 0 also cuts out squares of this side.
    """
    if seed is not None:
        crop_seed, cutout_seed = tf.unstack(tf.random.split(seed))
        crops = augmentation.draw_crops(images.shape[0], crop_seed)
        images = augmentation.crop_and_flip(images, *crops)
    x = (tf.cast(images, "float32") - mean) / deviation
    if seed is not None and cutout:
        count, *shape, _ = x.shape
        squares = augmentation.draw_cutouts(count, shape, cutout, cutout_seed)
        x = augmentation.cut_out(x, *squares, cutout)
    return x
