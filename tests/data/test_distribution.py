"""`tf.distribute.MirroredStrategy` on two logical CPUs, in another process."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import tensorflow as tf

from keras_esam import data

ROOT = pathlib.Path(__file__).parents[2]


def test_replicas_share_the_batches_of_one_device(tmp_path):
    path = tmp_path / "results.npz"
    subprocess.run(
        [sys.executable, "-m", "tests.data.distribution_run", path],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        check=True,
        capture_output=True,
    )
    results = np.load(path)
    epoch = tf.Variable(0)
    train = data.digits("train", 50, seed=4, epoch=epoch)
    for number in range(2):
        epoch.assign(number)
        expected = np.stack([images for images, _ in train])
        for source in ("variable", "counter"):
            np.testing.assert_array_equal(
                results[f"{source}-{number}"], expected
            )
    np.testing.assert_array_equal(results["sizes"], [25, 25])
    # `epoch` is 1, as in the one epoch that was trained there.
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(10, "softmax", kernel_initializer="zeros"),
        ]
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    history = model.fit(train, verbose=0)
    np.testing.assert_allclose(
        results["loss"], history.history["loss"], rtol=1e-5
    )
