"""Random numbers of micro-batches: each has its own, in all of its passes."""

import contextlib

import keras
import numpy as np
import pytest

from keras_esam import micro_batches
from tests.networks import esam
from tests.networks import fit

ONES = np.ones((16, 64), "float32")
TARGETS = np.zeros((16, 1), "float32")


class UnseededNoise(keras.layers.Layer):
    """Draws from Keras' global seed generator."""

    def call(self, inputs, training=False):
        if not training:
            return inputs
        return inputs + keras.random.normal(keras.ops.shape(inputs))


LAYERS = {
    "seeded": lambda: keras.layers.Dropout(0.5, seed=1),
    "unseeded": lambda: keras.layers.Dropout(0.5),
    "noise": lambda: keras.layers.GaussianNoise(0.5),
    "global": UnseededNoise,
}
# Keras refuses to draw from it in a compiled function on JAX.
NAMES = [n for n in LAYERS if (n, keras.backend.backend()) != ("global", "jax")]


def make(name, size, **kwargs):
    keras.utils.set_random_seed(5)
    network = keras.Sequential(
        [keras.Input((64,)), LAYERS[name](), keras.layers.Dense(1)]
    )
    arguments = {"rho": 1e-9, "beta": 1, "gamma": 1, "seed": 3, **kwargs}
    return esam(network, micro_batch_size=size, **arguments)


def num_equal(y_true, y_pred):
    """How many predictions of the batch are the one of each sample."""
    distances = keras.ops.abs(y_pred - keras.ops.transpose(y_pred))
    close = keras.ops.cast(distances < 1e-6, "float32")
    return keras.ops.sum(close, axis=1)


def compiled(model):
    model.compile("sgd", "mse", metrics=[num_equal], run_eagerly=True)
    return model


@pytest.mark.parametrize(
    ("name", "size"), [("seeded", None), *((name, 5) for name in NAMES)]
)
def test_equal_samples_have_different_numbers(name, size):
    model = compiled(make(name, size))
    logs = fit(model, ONES, TARGETS).history
    assert logs["num_equal"] == [1]
    # All passes of a micro-batch draw the same numbers.
    np.testing.assert_allclose(logs["sharpness"], 0, atol=1e-5)


@pytest.mark.parametrize("name", ["seeded", "unseeded"])
def test_steps_do_not_repeat_numbers(name):
    seen = []

    def keep(y_true, y_pred):
        # JAX has no values where Keras builds the metric.
        with contextlib.suppress(TypeError):
            seen.append(keras.ops.convert_to_numpy(y_pred)[:, 0])
        return keras.ops.zeros_like(y_pred[:, 0])

    model = make(name, 4)
    model.compile(
        keras.optimizers.SGD(0.0), "mse", metrics=[keep], run_eagerly=True
    )
    model.train_on_batch(ONES, TARGETS)
    seen.clear()
    for _ in range(3):
        model.train_on_batch(ONES, TARGETS)
    values = np.concatenate(seen)
    assert len(values) == 48
    distances = np.abs(values - values[:, None]) + np.eye(48)
    assert distances.min() > 1e-6


def test_state_goes_on_as_without_micro_batches():
    states = []
    for size in (None, 5):
        model = compiled(make("seeded", size))
        fit(model, ONES, TARGETS, epochs=3)
        states.append(model.model.layers[0].seed_generator.state.numpy())
    np.testing.assert_array_equal(*states)
    assert states[0].tolist() == [1, 3]


@pytest.mark.parametrize("rank_by", ["sharpness", "random"])
def test_selected_samples_keep_the_numbers_of_their_micro_batch(rank_by):
    model = make("seeded", 4, gamma=0.5, rank_by=rank_by)
    logs = fit(compiled(model), ONES, TARGETS).history
    assert logs["num_equal"] == [1]
    if rank_by == "sharpness":
        assert logs["sharpness"][0] == pytest.approx(0, abs=1e-5)
    else:
        # One draw for each of the micro-batches.
        assert model.seed_generator.state.numpy()[1] == 4


def test_multiples_of_the_stride_stay_apart():
    starts = np.arange(4096, dtype="uint64")
    seeds = np.sort(starts * micro_batches.SEED_STRIDE % 2**32)
    gaps = np.diff(np.append(seeds, seeds[0] + 2**32))
    # So do the sums with seeds and numbers of draws up to then.
    assert gaps.min() > 400_000
