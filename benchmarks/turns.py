"""Trainings in several processes that use one device.

They compile beside one another, which takes a large part of a short training,
and then train one after the other, each as fast as if it were alone.
"""

import fcntl
import math

import keras


class TakeTurns(keras.callbacks.Callback):
    """Trains the first epoch beside other processes, and the others alone.

    The speed of the first epoch says nothing, and is replaced by NaN. In the
    list of callbacks it comes after `ThroughputLogger`.

    Args:
        path: Path of a file, the same one for all processes.
    """

    def __init__(self, path):
        super().__init__()
        self._path = path

    def on_train_begin(self, logs=None):
        self._is_alone = False
        self._trained = False
        self._file = open(self._path, "a")
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def on_epoch_begin(self, epoch, logs=None):
        if self._trained and not self._is_alone:
            # Who waits for a turn would keep the others from theirs.
            fcntl.flock(self._file, fcntl.LOCK_UN)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self._is_alone = True

    def on_epoch_end(self, epoch, logs=None):
        self._trained = True
        if not self._is_alone and "images_per_second" in (logs or {}):
            logs["images_per_second"] = math.nan

    def on_train_end(self, logs=None):
        self._file.close()
