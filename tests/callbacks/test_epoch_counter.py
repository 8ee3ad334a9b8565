"""A resumed training sees the batches of the uninterrupted one."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_esam import data
from keras_esam.callbacks import EpochCounter
from tests.networks import assert_identical

EPOCHS = 4


def make_model():
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    # Without state, so that the weights tell all.
    model.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy")
    return model


def train(model, callbacks=(), counts=True, **kwargs):
    """Trains as a new process would: with a new counter and data set."""
    counter = EpochCounter()
    dataset = data.digits(
        "train",
        100,
        num_samples=500,
        epoch=counter.epoch if counts else None,
    )
    model.fit(
        dataset,
        shuffle=False,
        verbose=0,
        callbacks=[counter, *callbacks],
        **{"epochs": EPOCHS, **kwargs},
    )
    return [keras.ops.convert_to_numpy(w) for w in model.weights]


@pytest.fixture(scope="module")
def uninterrupted():
    return train(make_model())


def test_resumed_by_initial_epoch(uninterrupted):
    model = make_model()
    train(model, epochs=2)
    assert_identical(train(model, initial_epoch=2), uninterrupted)


class Interruption(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise InterruptedError


def test_resumed_by_backup_and_restore(uninterrupted, tmp_path):
    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path / "backup")

    with pytest.raises(InterruptedError):
        train(make_model(), [backup(), Interruption()])
    resumed = train(make_model(), [backup()])
    assert_identical(resumed, uninterrupted)


def test_model_that_fit_builds(uninterrupted):
    """Keras takes a batch before the first epoch for it."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy")
    assert not model.built
    assert_identical(train(model), uninterrupted)


@pytest.mark.parametrize("steps", [None, 3])
def test_epoch_that_a_batch_is_of(steps):
    """Each batch says which epoch its iterator read."""
    counter = EpochCounter()
    numbers = tf.data.Dataset.range(1).map(lambda _: counter.epoch)
    dataset = numbers.flat_map(
        lambda epoch: tf.data.Dataset.from_tensors(
            (tf.ones((2, 1)), tf.fill((2, 1), tf.cast(epoch, "float32")))
        ).repeat(3)
    )
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(3))
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.set_weights([np.zeros((1, 1)), np.zeros(1)])
    model.compile(keras.optimizers.SGD(0.0), "mean_absolute_error")
    history = model.fit(
        dataset.prefetch(2),
        epochs=5,
        initial_epoch=2,
        steps_per_epoch=steps,
        shuffle=False,
        verbose=0,
        callbacks=[counter],
    )
    assert history.history["loss"] == [2.0, 3.0, 4.0]
