"""A training loop of a user's own, which calls `train_step`."""

import keras
import numpy as np
import pytest

import keras_esam
from tests.backends import BACKEND
from tests.backends import tensorflow_only
from tests.methods import METHODS
from tests.networks import all_values
from tests.networks import compile_model
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import esam
from tests.networks import fit

X, Y = dense_data(96)


def model_of(method, run_eagerly):
    network = dense_network()
    model = esam(network, seed=1, **METHODS[method])
    return compile_model(model, run_eagerly=run_eagerly)


def train_step_by_step(model):
    """The batches of one epoch of `tests.networks.fit`."""
    batches = [(X[i : i + 16], Y[i : i + 16]) for i in range(0, len(X), 16)]
    if BACKEND != "jax":
        return [model.train_step(batch) for batch in batches]
    model.train_on_batch(*batches[0])  # builds all variables
    variables = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    state = tuple([v.value for v in group] for group in variables)
    seen = []
    for batch in batches[1:]:
        logs, state = model.train_step(state, batch)
        seen.append(logs)
    for group, values in zip(variables, state, strict=True):
        for variable, value in zip(group, values, strict=True):
            variable.assign(value)
    return seen


@pytest.mark.parametrize("method", ["sam", "esam_depth", "esam_start"])
def test_loop_of_ones_own_trains_as_fit(method):
    expected, model = (model_of(method, run_eagerly=True) for _ in range(2))
    fit(expected, X, Y)
    plans = {expected.upcoming_step}
    logs = train_step_by_step(model)
    assert model.upcoming_step in plans
    for one, other in zip(all_values(model), all_values(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert all(np.isfinite(float(log["loss"])) for log in logs)


def test_step_of_a_plan_is_not_counted():
    model = model_of("esam_depth", run_eagerly=True)
    model.train_on_batch(X[:16], Y[:16])
    plan = model.upcoming_step
    if BACKEND != "jax":
        model.train_step((X[:16], Y[:16]), plan=plan)
    assert model.upcoming_step == plan


@tensorflow_only
def test_step_that_is_due_is_refused_within_a_tf_function():
    import tensorflow as tf

    model = model_of("esam_depth", run_eagerly=False)
    step = tf.function(lambda: model.train_step((X[:16], Y[:16])))
    with pytest.raises(ValueError, match="`train_on_batch.*plan=None"):
        step()


@pytest.mark.skipif(BACKEND != "jax", reason="is about JAX")
def test_step_that_is_due_is_refused_within_jit():
    import jax

    model = model_of("esam_depth", run_eagerly=False)
    model.train_on_batch(X[:16], Y[:16])
    state = tuple(
        [v.value for v in group]
        for group in (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
    )
    with pytest.raises(ValueError, match="`train_on_batch.*plan=None"):
        jax.jit(model.train_step)(state, (X[:16], Y[:16]))


def test_keras_is_not_changed_at_run_time():
    """A class of ours has no name that one of Keras' in its MRO has."""
    order = keras_esam.ESAMModel.__mro__
    ours = {c.__name__ for c in order if c.__module__.startswith("keras_esam")}
    assert not ours & {
        c.__name__ for c in order if c.__module__.startswith("keras.")
    }
    assert keras.Model in order
