"""ImageNet-1k, or any tree of images in class folders.

Crop and flip are stateless TensorFlow functions, not KerasCV's layers. The
layers' draws depend on the threads, so a resumed training could not repeat
them.
"""

import os

import numpy as np
import tensorflow as tf

from keras_esam import arguments
from keras_esam.balanced import balanced
from keras_esam.data import epochs
from keras_esam.data import jpeg
from keras_esam.data.class_folders import SPLITS
from keras_esam.data.class_folders import class_folders
from keras_esam.data.prepared import record_files

# Mean and standard deviation of each channel, of pixels from 0 to 255, as in
# torchvision's reference training: 0.485, 0.456, 0.406 and 0.229, 0.224, 0.225.
MEAN = (123.675, 116.28, 103.53)
DEVIATION = (58.395, 57.12, 57.375)


def imagenet(
    split: str,
    batch_size: int,
    data_dir: str | os.PathLike | None = None,
    folder: str | os.PathLike | None = None,
    image_size: int = 224,
    num_samples: int | None = None,
    augment: bool = True,
    seed: int = 0,
    epoch: tf.Variable | None = None,
) -> tf.data.Dataset:
    """Images of ImageNet-1k, or of a tree of class folders.

    Training images are shuffled. A random part of each (8% to 100% of its area,
    aspect ratio 3/4 to 4/3) is resized, and in half of the cases mirrored. An
    incomplete last batch is dropped. Validation images come in order, resized
    so that the shorter side is `image_size * 256 / 224`, and cropped at the
    centre. Both are standardised per channel.

    `data_dir`, `seed` and `epoch`, their defaults and the errors are the same
    as in `keras_esam.data.cifar`.

    Args:
        split: String, `"train"` or `"val"`.
        batch_size: Integer.
        data_dir: Optional path, folder of tensorflow-datasets with
            `imagenet2012` as TFRecord files. Training images are read from 16
            files at a time and shuffled within a buffer of 4,096, some 0.5 GB.
        folder: Optional path of a tree, `folder/train/CLASS/*.JPEG` and
            `folder/val/CLASS/*.JPEG`, that is read instead. It may have colour,
            greyscale and CMYK JPEGs, and PNGs. Labels follow the sorted class
            names.
        image_size: Integer. Defaults to `224`.
        num_samples: Optional integer, size of a fixed subset: class-balanced
            with `folder`, or the first images in `data_dir`, where the classes
            are mixed at random. Defaults to `None`, all images.
        augment: Boolean, whether training images are cropped and mirrored at
            random, or cropped as for `"val"`. Defaults to `True`.
        seed: Integer. Defaults to `0`.
        epoch: Optional scalar integer `tf.Variable`. Defaults to `None`.

    Returns:
        A `tf.data.Dataset` of known length: images, float32 of shape
        `(batch_size, image_size, image_size, 3)`, and labels, int32 of shape
        `(batch_size,)`.

    Example:

    ```python
    counter = keras_esam.callbacks.EpochCounter()
    train = imagenet("train", 256, epoch=counter.epoch)
    model.fit(train, validation_data=imagenet("val", 256), callbacks=[counter])
    ```
    """
    seed = epochs.check(split, SPLITS, batch_size, seed, epoch)
    arguments.check_count("image_size", image_size)
    arguments.check_boolean("augment", augment)
    if num_samples is not None:
        arguments.check_count("num_samples", num_samples)
    if folder is not None and data_dir is not None:
        raise ValueError(
            "`data_dir` and `folder` are two sources of the images: give one. "
            f"Received: data_dir={data_dir!r}, folder={folder!r}"
        )
    if folder is None:
        samples = record_files(split, data_dir, seed, epoch, num_samples)
    else:
        samples = _files(folder, split, seed, epoch, num_samples)

    def prepare(contents, label, seed=None):
        if seed is None or not augment:
            image = jpeg.centre_crop(contents, image_size)
        else:
            image = jpeg.random_crop(contents, image_size, seed)
        return (image - MEAN) / DEVIATION, label

    if seed is not None:
        epochs.check_fills_a_batch(batch_size, int(samples.cardinality()))
    dataset = samples.map(prepare, num_parallel_calls=epochs.NUM_PARALLEL)
    dataset = dataset.batch(batch_size, drop_remainder=seed is not None)
    return epochs.finish(dataset)


def _files(folder, split, seed, epoch, num_samples):
    """Data set of known length: bytes of the images, labels and seeds."""
    paths, labels = class_folders(folder, split)
    if num_samples is not None:
        chosen = np.sort(balanced(labels, num_samples))
        paths, labels = [paths[i] for i in chosen], labels[chosen]
    with tf.device("CPU:0"):
        paths, labels = tf.constant(paths), tf.constant(labels)

    def read(index, *seed):
        contents = tf.io.read_file(tf.gather(paths, index))
        return contents, tf.gather(labels, index), *seed

    order = tf.data.Dataset.range(len(labels))
    if seed is not None:
        order = epochs.shuffled(len(labels), seed, epoch)
    return order.map(read, num_parallel_calls=epochs.NUM_PARALLEL)
