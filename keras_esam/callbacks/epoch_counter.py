"""The epoch number for pipelines of `keras_esam.data`."""

import functools

import keras


class EpochCounter(keras.callbacks.Callback):
    """Tells the pipelines of `keras_esam.data` which epoch it is.

    Their order and augmentation then depend on their seed and the epoch alone,
    so a resumed training sees the same batches as an uninterrupted one.

    Do not repeat the data set. If you pass `steps_per_epoch` to `fit`, it must
    be the number of batches. Needs TensorFlow, which runs the pipelines,
    whatever the Keras backend.

    Attributes:
        epoch: Scalar `tf.Variable`, the number of the epoch, from 0.

    Example:

    ```python
    counter = keras_esam.callbacks.EpochCounter()
    train = data.cifar("cifar10", "train", 128, epoch=counter.epoch)
    backup = keras.callbacks.BackupAndRestore("backup")
    model.fit(train, epochs=200, callbacks=[counter, backup])
    ```
    """

    @functools.cached_property
    def epoch(self):
        # The only part that needs TensorFlow.
        from keras_esam.data.epochs import make_epoch_variable

        return make_epoch_variable()

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch.assign(epoch)
