"""The scans of digits that come with scikit-learn."""

import numpy as np
import tensorflow as tf

from keras_esam.balanced import balanced
from keras_esam.data import epochs
from keras_esam.extras import requires

NUM_TRAIN = 1000


def digits(
    split: str,
    batch_size: int,
    num_samples: int | None = None,
    seed: int = 0,
    epoch: tf.Variable | None = None,
) -> tf.data.Dataset:
    """The 1,797 scans of digits that come with scikit-learn, 8x8 pixels.

    The training part has equally many of each class, always the same ones, and
    is shuffled; what does not fill a batch is left out. The rest is the test
    part, in order. There is no augmentation.

    Args:
        split: String, `"train"` or `"test"`.
        batch_size: Integer.
        num_samples: Optional integer, number of training samples. Give it for
            the test part too, which has the others. Defaults to `None`, 1,000.
        seed: Integer, of the order. Defaults to `0`.
        epoch: Optional scalar integer `tf.Variable`, the number of the epoch.
            See `keras_esam.data.cifar`.

    Returns:
        A `tf.data.Dataset` of known length. Its elements are images, float32 of
        shape `(batch_size, 8, 8, 1)` from 0 to 1, and labels, int32 of shape
        `(batch_size,)`.

    Raises:
        ImportError: If scikit-learn is not there.
        TypeError: If an argument has a wrong type.
        ValueError: If an argument has a wrong value.

    Example:

    ```python
    train, test = digits("train", 50), digits("test", 797)
    model.fit(train, epochs=20, validation_data=test)
    ```
    """
    epochs.check(split, ("train", "test"), batch_size, seed, epoch)
    with requires("examples"):
        from sklearn.datasets import load_digits

    data = load_digits()
    chosen = balanced(
        data.target, NUM_TRAIN if num_samples is None else num_samples
    )
    if split == "test":
        seed = None
        chosen = np.setdiff1d(np.arange(len(data.target)), chosen)
    images = (data.images[chosen, :, :, None] / 16).astype("float32")
    labels = data.target[chosen]
    return epochs.array_batches(
        images, labels, batch_size, lambda x, seed: x, seed, epoch
    )
