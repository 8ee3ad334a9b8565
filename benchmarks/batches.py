"""Shuffled batches of NumPy arrays, for every backend."""

import keras
import numpy as np


def repeated(batch):
    """Generator that repeats one batch."""
    while True:
        yield batch


class ShuffledBatches(keras.utils.PyDataset):
    """Whole batches in an order that depends on the seed and the epoch.

    With `augment` the images, shape `(num_samples, height, width, channels)`,
    are flipped and cropped, after padding each side by an eighth of the height
    with their lowest value. `epoch` is the number of the first epoch.
    """

    def __init__(self, x, y, batch_size, seed, augment=False, epoch=0):
        super().__init__()
        self._x, self._y, self._batch_size = x, y, batch_size
        self._seed, self._epoch, self._augment = seed, epoch - 1, augment
        self._size = x.shape[1:3]
        self._padding = x.shape[1] // 8 if augment else 0
        if augment:
            width = [(self._padding, self._padding)] * 2
            width = [(0, 0), *width, (0, 0)]
            self._x = np.pad(x, width, constant_values=x.min())
        self.on_epoch_end()

    def on_epoch_end(self):
        """Draws the order, the crops and the flips of the next epoch."""
        self._epoch += 1
        rng = np.random.default_rng([self._seed, self._epoch])
        self._order = rng.permutation(len(self._y))
        if self._augment:
            self._corners = rng.integers(
                2 * self._padding + 1, size=(len(self._y), 2)
            )
            self._flips = rng.integers(2, size=len(self._y))

    def __len__(self):
        return len(self._y) // self._batch_size

    def __getitem__(self, index):
        part = slice(index * self._batch_size, (index + 1) * self._batch_size)
        chosen = self._order[part]
        if not self._augment:
            return self._x[chosen], self._y[chosen]
        height, width = self._size
        columns = np.arange(width)
        flipped = np.where(self._flips[part, None], columns[::-1], columns)
        corners = self._corners[part]
        rows = corners[:, :1] + np.arange(height)
        columns = corners[:, 1:] + flipped
        images = self._x[
            chosen[:, None, None], rows[:, :, None], columns[:, None, :]
        ]
        return images, self._y[chosen]
