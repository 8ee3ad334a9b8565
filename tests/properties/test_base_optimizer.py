"""`rho=0` against `fit` of the bare model, on generated networks and data."""

import contextlib

import keras
from hypothesis import given

import keras_esam
from tests.networks import all_values
from tests.networks import assert_identical
from tests.properties import cases


@contextlib.contextmanager
def dtype_policy(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def state_after_training(case, wrap):
    """Logs, and the values of network and optimizer, of a trained model."""
    with dtype_policy(case.policy):
        network = model = cases.make_network(case)
        if wrap:
            model = keras_esam.ESAMModel(network, rho=0, seed=1)
        history = cases.train(model, case)
    return history, all_values(network), all_values(model.optimizer)


@given(cases.cases())
def test_training_is_that_of_the_bare_model(case):
    expected = state_after_training(case, wrap=False)
    result = state_after_training(case, wrap=True)
    assert list(result[0]) == list(expected[0])
    assert_identical(result[0].values(), expected[0].values())
    assert_identical(result[1], expected[1])
    assert_identical(result[2], expected[2])
