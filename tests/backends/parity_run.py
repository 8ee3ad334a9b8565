"""A training in a process of its own, for `test_parity`.

Usage: python -m tests.backends.parity_run METHOD START END [CHECKPOINT]

The backend is that of the environment. `START` is a file of initial weights,
made if it is not there; the final ones are written to `END`. With `CHECKPOINT`
only the second half of the steps runs if that file is there, from it, and only
the first half if not, after which it is written.
"""

import pathlib
import sys

import keras
import numpy as np

import keras_esam
from tests.methods import METHODS

layers = keras.layers
NUM_STEPS, BATCH_SIZE = 20, 12


def make_model(method):
    network = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(4, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(
                8, "tanh", kernel_regularizer=keras.regularizers.L2(1e-3)
            ),
            layers.Dense(3),
        ]
    )
    model = keras_esam.ESAMModel(network, seed=7, **METHODS[method])
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def main():
    method, start, end, *checkpoint = sys.argv[1:]
    keras.utils.set_random_seed(3)
    model = make_model(method)
    start = pathlib.Path(start)
    if not start.exists():
        np.savez(start, *model.get_weights())
    with np.load(start) as weights:
        model.set_weights([weights[key] for key in weights.files])
    rng = np.random.default_rng(5)
    x = rng.normal(size=(NUM_STEPS * BATCH_SIZE, 8, 8, 2)).astype("float32")
    y = rng.integers(0, 3, NUM_STEPS * BATCH_SIZE)
    w = rng.uniform(0.5, 1.5, NUM_STEPS * BATCH_SIZE).astype("float32")
    part = slice(None)
    middle = NUM_STEPS // 2 * BATCH_SIZE
    if checkpoint:
        path = pathlib.Path(checkpoint[0])
        part = slice(middle) if not path.exists() else slice(middle, None)
        if path.exists():
            model.optimizer.build(model.trainable_variables)
            model.load_weights(path)
    model.fit(
        x[part],
        y[part],
        sample_weight=w[part],
        batch_size=BATCH_SIZE,
        shuffle=False,
        verbose=0,
    )
    if checkpoint and not path.exists():
        model.save_weights(path)
    np.savez(end, *model.get_weights())


if __name__ == "__main__":
    main()
