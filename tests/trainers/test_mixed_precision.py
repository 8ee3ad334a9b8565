"""Half precision: the loss scale, and steps that an overflow skips."""

import keras
import numpy as np
import pytest
from keras import ops

from tests.networks import all_values
from tests.networks import assert_identical
from tests.networks import compile_model
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import esam
from tests.networks import fit


@pytest.mark.parametrize(
    ("policy", "method"),
    [
        ("mixed_float16", {"beta": 1, "gamma": 1}),
        ("mixed_bfloat16", {"gamma": 1, "granularity": "weight"}),
    ],
)
def test_half_precision_trains_as_float32_does(policy, method):
    x, _ = dense_data(64)
    y = np.argmax(x[:, :3], axis=1)
    losses = {}
    for name in (policy, "float32"):
        keras.config.set_dtype_policy(name)
        network = dense_network(dropout=False)
        model = esam(network, seed=1, **method)
        compile_model(model)
        losses[name] = fit(model, x, y, epochs=3).history["loss"]
    assert np.all(np.isfinite(losses[policy]))
    assert losses[policy][-1] < 0.9 * losses[policy][0]
    # Which samples are kept may differ by rounding, and then the paths do.
    epochs = 3 if model.gamma == 1 else 1
    np.testing.assert_allclose(
        losses[policy][:epochs], losses["float32"][:epochs], rtol=0.05
    )


def test_float16_has_a_loss_scale_and_the_wrapper_the_networks_policy(float16):
    network = dense_network()
    keras.config.set_dtype_policy("float32")
    model = compile_model(esam(network))
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert model.dtype_policy.name == "mixed_float16"


def test_update_does_not_depend_on_the_loss_scale(float16):
    x, y = dense_data(32)
    weights = []
    for scale in (1.0, 2.0**10):
        model = esam(dense_network(dropout=False), seed=1)
        optimizer = keras.optimizers.LossScaleOptimizer(
            keras.optimizers.SGD(0.1), initial_scale=scale
        )
        compile_model(model, optimizer)
        fit(model, x, y)
        weights.append(model.get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)


def test_clean_gradient_below_the_smallest_float16_is_scaled(float16):
    """Without the loss scale it would be zero, and so the perturbation."""
    network = overflow_network((False,))
    network.layers[-1].trainable = False  # It computes in float32.
    model = esam(network, beta=1, gamma=1)
    compile_model(model, loss_weights=[1e-7])
    assert fit(model, *dense_data(16)).history["sharpness"][0] > 0


class Overflow(keras.layers.Layer):
    """Identity whose gradient overflows in chosen passes.

    With `first_only` it does for the first sample of the batch alone.
    """

    def __init__(self, passes, first_only=False):
        super().__init__()
        self.passes = passes
        self.first_only = first_only
        self.index = 0

    def call(self, inputs, training=False):
        if not training:
            return inputs
        overflows = self.passes[self.index % len(self.passes)]
        self.index += 1
        factor = 1e30 if overflows else 1.0

        @ops.custom_gradient
        def identity(x):
            def gradient(*args, upstream=None):
                # On PyTorch the upstream gradient is a keyword argument.
                dy = args[0] if upstream is None else upstream
                large = ops.cast(ops.cast(dy, "float32") * factor, dy.dtype)
                if self.first_only:
                    return ops.concatenate([large[:1], dy[1:]], axis=0)
                return large

            return x * 1, gradient

        return identity(inputs)


def overflow_network(passes):
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(8),
            Overflow(passes),
            keras.layers.ReLU(),
            keras.layers.Dense(3, activation="softmax", dtype="float32"),
        ]
    )


@pytest.mark.parametrize(
    ("passes", "run_eagerly"),
    [((True, False), True), ((True, False), False), ((False, True), False)],
    ids=["in B1, eager", "in B1", "in B2"],
)
def test_overflow_skips_the_step(passes, run_eagerly, float16):
    """Theta and the optimizer are as before, and the scale is halved."""
    x, y = dense_data(16)
    model = esam(overflow_network(passes), beta=1, gamma=1)
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.1)
    compile_model(model, optimizer, run_eagerly=run_eagerly)
    before = [v.numpy() for v in model.trainable_variables]
    history = fit(model, x, y)
    assert_identical(before, model.trainable_variables)
    assert int(model.optimizer.iterations) == 0
    assert float(model.optimizer.dynamic_scale) == 2.0**14
    assert np.isfinite(history.history["loss"][0])
    assert np.isfinite(history.history["sharpness"][0])


def test_overflow_in_b1_skips_the_step_even_if_f2_does_not_see_it(float16):
    """It is in an Embedding row that only a sample that is not kept uses."""
    keras.utils.set_random_seed(1)
    network = keras.Sequential(
        [
            keras.Input((1,), dtype="int32"),
            keras.layers.Embedding(20, 4),
            keras.layers.Flatten(),
            Overflow((True, False), first_only=True),
            keras.layers.Dense(3, activation="softmax", dtype="float32"),
        ]
    )
    model = esam(network, beta=1, gamma=0.5, rank_by="loss")
    compile_model(model)
    before = [v.numpy() for v in model.trainable_variables]
    x, y = np.arange(16)[:, None], np.arange(16) % 3
    weight = np.ones(16, "float32")
    weight[0] = 1e-3  # the smallest loss, so that it is not kept
    fit(model, x, y, sample_weight=weight)
    assert_identical(before, model.trainable_variables)
    assert float(model.optimizer.dynamic_scale) == 2.0**14


def test_training_recovers_from_overflows_as_keras_does(float16):
    """A scale that is far too large is halved until it fits."""
    x, y = dense_data(160)
    model = esam(dense_network(), seed=1)
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.1), initial_scale=2.0**18
    )
    compile_model(model, optimizer)
    history = fit(model, x, y)
    assert 2.0 < float(model.optimizer.dynamic_scale) < 2.0**18
    assert 0 < int(model.optimizer.iterations) < 10
    assert np.isfinite(history.history["sharpness"][0])
    assert all(np.all(np.isfinite(value)) for value in all_values(model))
