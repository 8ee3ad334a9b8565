"""NaN and infinity in the data, and overflows in each pass of a step."""

import contextlib

import keras
import numpy as np
import pytest
from keras import ops

from tests.networks import all_values
from tests.networks import assert_different
from tests.networks import assert_identical
from tests.networks import compile_model
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import esam
from tests.networks import fit

METHODS = {
    "Keras": None,
    "SAM": {"beta": 1, "gamma": 1},
    "ESAM": {},
    "by loss": {"rank_by": "loss"},
    "one-step": {"ascent": "momentum", "beta": 1, "gamma": 1},
}
# In one sample of the second of four batches.
BAD = [("x", np.nan), ("y", np.nan), ("weight", np.inf)]


def make(method, network):
    model = network
    if method is not None:
        model = esam(network, seed=1, **method)
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        "categorical_crossentropy",
        # To compile takes longer than four steps.
        run_eagerly=True,
    )
    return model


def batches(name=None, value=None):
    """Keyword arguments of `fit`; the value is in the second batch of four."""
    x, labels = dense_data(64)
    data = {
        "x": x,
        "y": np.eye(3, dtype="float32")[labels],
        "weight": np.ones(64, "float32"),
    }
    if name is not None:
        data[name].flat[data[name].size // 4 + 1] = value
    return data["x"], data["y"], data["weight"]


def train(model, data, **kwargs):
    x, y, weight = data
    return fit(model, x, y, sample_weight=weight, **kwargs)


class Steps(keras.callbacks.Callback):
    """Keeps the weights and the loss scale after each step."""

    def on_train_begin(self, logs=None):
        self.weights, self.scales = [], []

    def on_train_batch_end(self, batch, logs=None):
        model = self.model
        if keras.backend.backend() == "jax":
            model.jax_state_sync()
        self.weights.append([v.numpy() for v in model.trainable_variables])
        scale = getattr(model.optimizer, "dynamic_scale", None)
        self.scales.append(None if scale is None else float(scale))


def is_finite(values):
    return all(np.isfinite(value).all() for value in values)


@pytest.mark.parametrize(
    "method, name, value",
    [
        *((METHODS["ESAM"], *bad) for bad in BAD),
        *((METHODS[key], "y", np.nan) for key in ("Keras", "SAM", "one-step")),
    ],
)
def test_bad_value_skips_the_step_in_float16(method, name, value, float16):
    network = dense_network(dropout=False)
    model = make(method, network)
    steps = Steps()
    logs = train(model, batches(name, value), callbacks=[steps]).history
    assert not np.isfinite(logs["loss"][0])
    assert all(map(is_finite, steps.weights))
    assert_identical(steps.weights[0], steps.weights[1])
    assert not np.array_equal(steps.weights[1][0], steps.weights[2][0])
    assert steps.scales == [2.0**15, 2.0**14, 2.0**14, 2.0**14]
    assert int(model.optimizer.iterations) == 3
    assert is_finite(v.numpy() for v in model.optimizer.variables)
    # Of a bad input Keras' statistics do not recover.
    norm = network.layers[1]
    assert is_finite([norm.moving_mean.numpy()]) == (name != "x")


@pytest.mark.parametrize("name", ["Keras", "ESAM"])
def test_weights_of_float32_become_nan_as_in_keras(name):
    model = make(METHODS[name], dense_network(dropout=False))
    steps = Steps()
    logs = train(model, batches(*BAD[0]), callbacks=[steps]).history
    assert not np.isfinite(logs["loss"][0])
    good = [is_finite(weights) for weights in steps.weights]
    assert good == [True, False, False, False]


@pytest.mark.parametrize(
    ("sample", "num_steps"),
    [(16, 2), (17, 3)],
    ids=["in the part", "outside of it"],
)
def test_terminate_on_nan_stops_once_the_clean_pass_has_seen_it(
    sample, num_steps
):
    """Of the second batch it sees the first of four samples, and so on."""
    method = {"beta": 1, "gamma": 1, "ascent_fraction": 0.25}
    model = make(method, dense_network(dropout=False))
    x, y, weight = batches()
    x[sample] = np.nan
    steps = Steps()
    callbacks = [steps, keras.callbacks.TerminateOnNaN()]
    train(model, (x, y, weight), callbacks=callbacks)
    assert len(steps.weights) == num_steps
    assert not is_finite(steps.weights[1])


@pytest.mark.parametrize("name", ["ESAM", "one-step"])
def test_steps_after_a_skipped_one_are_those_of_a_run_without_it(name, float16):
    """But for the loss scale, which is set back."""
    method = METHODS[name]
    weights = []
    for poisons in (False, True):
        model = make(method, dense_network(batch_norm=False, dropout=False))
        first = batches()
        train(model, [part[:16] for part in first])
        if poisons:
            bad = batches("y", np.nan)
            train(model, [part[16:32] for part in bad])
            assert float(model.optimizer.dynamic_scale) == 2.0**14
            model.optimizer.dynamic_scale.assign(2.0**15)
            # The subset of the step that was skipped is not drawn again.
            model._progress.num_executions -= 1
            model._progress.write()
        train(model, [part[32:] for part in first])
        weights.append(model.get_weights())
    assert_identical(*weights)


class OverflowsInPass(keras.layers.Layer):
    """Identity whose output overflows in chosen passes of training.

    `samples` is the number of samples of the batch, from the first one on, that
    overflow.
    """

    def __init__(self, passes, samples=None):
        super().__init__()
        self.passes = passes
        self.samples = samples
        self.index = None

    def call(self, inputs, training=False):
        if not training or self.index is None:
            return inputs
        overflows = self.index in self.passes
        self.index += 1
        if not overflows:
            return inputs
        factor = np.ones((inputs.shape[0], 1), "float32")
        factor[: self.samples] = 1e30
        factor = ops.convert_to_tensor(factor)
        large = ops.cast(inputs, "float32") * factor
        return ops.cast(large, inputs.dtype)


def overflow_network(layer):
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(8),
            layer,
            keras.layers.Dense(3, dtype="float32", activation="softmax"),
        ]
    )


@pytest.mark.parametrize(
    ("passes", "samples"),
    [((0,), 1), ((2,), 1), ((1, 2), None)],
    ids=["F1", "F2", "Fs and F2"],
)
def test_overflow_in_a_forward_pass_skips_the_step(passes, samples, float16):
    layer = OverflowsInPass(passes, samples)
    model = esam(overflow_network(layer), beta=1, seed=1)
    compile_model(model, run_eagerly=True)
    x, y = dense_data(16)
    fit(model, x, y)
    before = [v.numpy() for v in model.trainable_variables]
    momenta = [v.numpy() for v in model.optimizer.inner_optimizer.momentums]
    layer.index = 0
    fit(model, x, y)
    assert layer.index == 3
    assert_identical(before, model.trainable_variables)
    assert_identical(momenta, model.optimizer.inner_optimizer.momentums)
    assert float(model.optimizer.dynamic_scale) == 2.0**14
    layer.index = None
    fit(model, x, y)
    assert is_finite(all_values(model))
    assert int(model.optimizer.iterations) == 2


def test_overflow_in_the_ranking_pass_alone_skips_nothing(float16):
    """It decides on the kept samples, whose gradients are finite."""
    layer = OverflowsInPass((1,), samples=1)
    model = esam(overflow_network(layer), beta=1, seed=1)
    compile_model(model, run_eagerly=True)
    x, y = dense_data(16)
    fit(model, x, y)
    before = [v.numpy() for v in model.trainable_variables]
    layer.index = 0
    logs = fit(model, x, y).history
    assert_different(before, [v.numpy() for v in model.trainable_variables])
    assert is_finite(all_values(model))
    assert np.isfinite(logs["sharpness"][0])
    assert float(model.optimizer.dynamic_scale) == 2.0**15


@contextlib.contextmanager
def nan_debugger():
    """What stops a program at the first NaN, a constant one too."""
    if keras.backend.backend() == "jax":
        import jax

        with jax.debug_nans(True):
            yield
        return
    import tensorflow as tf

    tf.debugging.enable_check_numerics()
    yield
    tf.debugging.disable_check_numerics()


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="its debugger is of gradients"
)
@pytest.mark.parametrize(
    "method",
    [METHODS["ESAM"], METHODS["one-step"], {"gamma": 1, "micro_batch_size": 8}],
    ids=str,
)
def test_healthy_steps_have_no_nan_in_them(method):
    model = make(method, dense_network())
    with nan_debugger():
        train(model, [part[:32] for part in batches()])
    assert is_finite(model.get_weights())
