"""A batch several times, for the backends without tf.data."""

import keras


class RepeatedBatch(keras.utils.PyDataset):
    """Data set that has one batch `steps` times.

    Args:
        batch: Tuple of arrays.
        steps: Integer.
    """

    def __init__(self, batch, steps):
        super().__init__()
        self._batch = batch
        self._steps = steps

    def __len__(self):
        return self._steps

    def __getitem__(self, index):
        return self._batch
