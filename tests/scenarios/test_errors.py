"""Errors are those of Keras."""

import re

import numpy as np
import pytest
import tensorflow as tf

import keras_esam
from tests.backends import BACKEND
from tests.networks import compile_model
from tests.scenarios import X
from tests.scenarios import Y
from tests.scenarios import small_network


def dataset():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)


ERRORS = {
    "features": lambda model: model.fit(X[:, :5], Y, verbose=0),
    "lengths": lambda model: model.fit(X, Y[:3], verbose=0),
    "no_target": lambda model: model.fit(X, verbose=0),
    "no_data": lambda model: model.fit(X[:0], Y[:0], verbose=0),
    "both_weights": lambda model: model.fit(
        X, Y, sample_weight=np.ones(40), class_weight={0: 1.0}, verbose=0
    ),
    "evaluate": lambda model: model.evaluate(X[:, :5], Y, verbose=0),
    "predict": lambda model: model.predict(X[:, :5], verbose=0),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_those_of_keras(name):
    errors = []
    for rho in (None, 0, 0.1):
        model = small_network()
        if rho is not None:
            model = keras_esam.ESAMModel(model, rho=rho, seed=1)
        compile_model(model, run_eagerly=True)
        with pytest.raises(Exception) as error:  # noqa: B017, PT011
            ERRORS[name](model)
        errors.append(error)
    assert errors[1].type is errors[0].type and errors[2].type is errors[0].type
    # Keras may say before it in which model's call, and later of which layer.
    messages = [
        re.sub(
            r"^Exception encountered .*\n\n(\x1b\[1m)?", "", str(error.value)
        )
        for error in errors
    ]
    assert messages[0][:40] == messages[1][:40] == messages[2][:40]


@pytest.mark.parametrize("method", ["evaluate", "test_on_batch"])
def test_evaluation_before_compile(method):
    if BACKEND == "torch" and method == "evaluate":
        pytest.skip("Keras fails with another error on PyTorch")
    messages = []
    for make in (small_network, lambda: keras_esam.ESAMModel(small_network())):
        with pytest.raises(ValueError, match="compile") as error:
            getattr(make(), method)(X, Y)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def test_prediction_before_compile():
    model = small_network()
    expected = model.predict(X, verbose=0)
    prediction = keras_esam.ESAMModel(model).predict(X, verbose=0)
    np.testing.assert_array_equal(prediction, expected)
