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

    The training part is fixed, class-balanced and shuffled; an incomplete last
    batch is dropped. The rest is the test part, in order.

    Args:
        split: String, `"train"` or `"test"`.
        batch_size: Integer.
        num_samples: Optional integer, number of training samples. Pass it for
            the test part too, which has the others. Defaults to `None`, 1,000.
        seed: Integer, seed of the order. Defaults to `0`.
        epoch: As for `keras_esam.data.cifar`. Defaults to `None`.

    Returns:
        A `tf.data.Dataset` of known length: images, float32 of shape
        `(batch_size, 8, 8, 1)` from 0 to 1, and labels, int32 of shape
        `(batch_size,)`.

    Raises:
        ImportError: If scikit-learn is not installed.
        TypeError, ValueError: If an argument has a wrong type or value.

    Example:

    ```python
    train, test = digits("train", 50), digits("test", 797)
    model.fit(train, epochs=20, validation_data=test)
    ```
    """
    seed = epochs.check(split, ("train", "test"), batch_size, seed, epoch)
    with requires("examples"):
        from sklearn.datasets import load_digits

    data = load_digits()
    chosen = balanced(
        data.target, NUM_TRAIN if num_samples is None else num_samples
    )
    if split == "test":
        chosen = np.setdiff1d(np.arange(len(data.target)), chosen)
    images = (data.images[chosen, :, :, None] / 16).astype("float32")
    labels = data.target[chosen]
    return epochs.array_batches(
        images, labels, batch_size, lambda x, seed: x, seed, epoch
    )
