"""Trainings in a process of its own, for `test_parity`.

Usage: python -m tests.backends.parity_run FOLDER METHOD [METHOD ...]

The backend is that of the environment. `FOLDER/start.npz` has the initial
weights and is made if it is not there. The final weights of each method are
written to `FOLDER/BACKEND-METHOD.npz`, if they are not there, and a checkpoint
of the middle of the training to `FOLDER/BACKEND-METHOD.weights.h5`. A
checkpoint that another backend has written there goes on, to
`FOLDER/OTHER-BACKEND-METHOD.npz`.
"""

import pathlib
import sys

import keras
import numpy as np

from tests.backends.test_parity import RESUMED
from tests.methods import METHODS
from tests.networks import esam

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
    model = esam(network, seed=7, **METHODS[method])
    # To compile each subset takes long.
    model._preferred_pool_size = 2
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def make_data():
    rng = np.random.default_rng(5)
    num_samples = NUM_STEPS * BATCH_SIZE
    x = rng.normal(size=(num_samples, 8, 8, 2)).astype("float32")
    y = rng.integers(0, 3, num_samples)
    return x, y, rng.uniform(0.5, 1.5, num_samples).astype("float32")


def fit(model, part):
    x, y, weights = make_data()
    model.fit(
        x[part],
        y[part],
        sample_weight=weights[part],
        batch_size=BATCH_SIZE,
        shuffle=False,
        verbose=0,
    )


def save(model, path):
    np.savez(path, *model.get_weights())


def draw_with_numpy():
    """Lets all backends draw the same random numbers, in every step."""

    def uniform(shape, *args, **kwargs):
        # The batch size is not known in tracing.
        shape = [n if isinstance(n, int) else BATCH_SIZE for n in shape]
        values = np.random.default_rng(11).uniform(size=shape)
        return keras.ops.convert_to_tensor(values.astype("float32"))

    keras.random.uniform = uniform


def main():
    folder, *methods = sys.argv[1:]
    folder = pathlib.Path(folder)
    backend = keras.backend.backend()
    start = folder / "start.npz"
    draw_with_numpy()
    middle = NUM_STEPS // 2 * BATCH_SIZE
    for method in methods:
        final = folder / f"{backend}-{method}.npz"
        if not final.exists():
            keras.utils.set_random_seed(3)
            model = make_model(method)
            if not start.exists():
                save(model, start)
            with np.load(start) as weights:
                model.set_weights([weights[key] for key in weights.files])
            fit(model, slice(middle))
            model.save_weights(folder / f"{backend}-{method}.weights.h5")
            fit(model, slice(middle, None))
            save(model, final)
        for path in folder.glob(f"*-{method}.weights.h5"):
            other = path.name.split("-")[0]
            if other != backend and method in RESUMED:
                model = make_model(method)
                model.optimizer.build(model.trainable_variables)
                model.load_weights(path)
                fit(model, slice(middle, None))
                save(model, folder / f"{other}-{backend}-{method}.npz")


if __name__ == "__main__":
    main()
