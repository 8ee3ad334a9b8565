"""Images that lie on the device, and batches of indices into them.

No input pipeline keeps up with a data-centre GPU on small images. The images
are a variable of the network's first layer, and a batch has only numbers: which
image, where to crop it, whether to flip it. Gathering, crop, flip and
standardisation are part of the compiled step, and a sample that SDS selects has
the same crop in each of the step's passes.
"""

import keras
import numpy as np
from keras import ops

from keras_esam.balanced import balanced
from keras_esam.extras import requires

PADDING = 4


class AugmentedImages(keras.layers.Layer):
    """Crops and flips of images: `(n, 4)` integers to `(n, h, w, c)` floats.

    The integers of a sample are the index of the image, the row and the column
    where the crop begins in the image with 4 zeros on each side, and 1 to flip
    it.

    Args:
        images: Array of uint8, shape `(num_images, h, w, c)`.
        mean: List of floats, one for each channel.
        deviation: List of floats, one for each channel.
    """

    def __init__(self, images, mean, deviation, **kwargs):
        super().__init__(**kwargs)
        self._size = images.shape[1:3]
        self._mean, self._deviation = mean, deviation
        width = ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0))
        padded = np.pad(images, width)
        self.images = self.add_weight(
            shape=padded.shape,
            dtype="uint8",
            initializer=lambda shape, dtype: ops.convert_to_tensor(padded),
            trainable=False,
            autocast=False,
            name="images",
        )
        self.built = True

    def call(self, inputs):
        height, width = self._size
        index, row, column, flip = ops.unstack(inputs, 4, axis=1)
        x = ops.take(self.images, index, axis=0)
        rows = row[:, None] + ops.arange(height, dtype=row.dtype)
        steps = ops.arange(width, dtype=column.dtype)
        flipped = ops.where(flip[:, None] == 1, width - 1 - steps, steps)
        columns = column[:, None] + flipped
        x = ops.take_along_axis(x, rows[:, :, None, None], axis=1)
        x = ops.take_along_axis(x, columns[:, None, :, None], axis=2)
        # Whole numbers up to 255 are exact in the half precisions too.
        x = ops.cast(x, self.compute_dtype)
        mean = ops.cast(ops.array(self._mean), x.dtype)
        return (x - mean) / ops.cast(ops.array(self._deviation), x.dtype)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], *self._size, self.images.shape[-1])

    def save_own_variables(self, store):
        """Saves nothing: the images are not what is trained."""

    def load_own_variables(self, store):
        """Restores nothing."""


class IndexBatches(keras.utils.PyDataset):
    """Batches for `AugmentedImages`: `(batch_size, 4)` integers, and labels.

    Args:
        labels: Array of integers, shape `(num_images,)`.
        batch_size: Integer.
        offset: Integer, index of the first image.
        seed: Optional integer. With it the images are shuffled, cropped and
            flipped, in each `epoch` otherwise.
    """

    def __init__(self, labels, batch_size, offset=0, seed=None):
        super().__init__()
        self._labels = labels
        self._batch_size = batch_size
        self._offset = offset
        self._seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch):
        """Draws the order, the crops and the flips of an epoch."""
        count = len(self._labels)
        samples = np.full((count, 4), PADDING, "int32")
        samples[:, 0] = np.arange(count)
        samples[:, 3] = 0
        if self._seed is not None:
            rng = np.random.default_rng([self._seed, epoch])
            samples[:, 0] = rng.permutation(count)
            samples[:, 1:3] = rng.integers(2 * PADDING + 1, size=(count, 2))
            samples[:, 3] = rng.integers(2, size=count)
        self._y = self._labels[samples[:, 0]]
        samples[:, 0] += self._offset
        self._x = samples

    def __len__(self):
        return -(-len(self._labels) // self._batch_size)

    def __getitem__(self, index):
        part = slice(index * self._batch_size, (index + 1) * self._batch_size)
        return self._x[part], self._y[part]


class SetEpoch(keras.callbacks.Callback):
    """Tells `IndexBatches` the epoch, also after a resumption."""

    def __init__(self, batches):
        super().__init__()
        self._batches = batches

    def on_epoch_begin(self, epoch, logs=None):
        self._batches.set_epoch(epoch)


def export(path, data_dir):
    """Writes CIFAR-10 as tensorflow-datasets has it to an .npz file."""
    with requires("benchmarks"):
        import tensorflow_datasets as tfds

    data = tfds.load("cifar10", data_dir=data_dir, batch_size=-1)
    arrays = {
        f"{name}_{split}": data[split][key].numpy()
        for split in ("train", "test")
        for name, key in (("x", "image"), ("y", "label"))
    }
    np.savez_compressed(path, **arrays)


def load(path, num_train, num_test):
    """Images and labels, the training samples first, and their number."""
    with np.load(path) as data:
        parts = [
            (data[f"x_{split}"], data[f"y_{split}"].ravel().astype("int32"))
            for split in ("train", "test")
        ]
    counts = num_train, num_test
    chosen = [balanced(y, n) for (_, y), n in zip(parts, counts, strict=True)]
    x, y = zip(
        *((x[c], y[c]) for (x, y), c in zip(parts, chosen, strict=True)),
        strict=True,
    )
    return np.concatenate(x), np.concatenate(y), num_train
