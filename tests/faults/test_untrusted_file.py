"""A saved model that brings Python code of its own is refused by default."""

import keras
import numpy as np
import pytest

import keras_esam
from tests.networks import assert_identical
from tests.networks import compile_model
from tests.networks import dense_data
from tests.networks import fit


def save_with_lambda(path, wrap):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Lambda(lambda x: 2 * x),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    if wrap:
        model = keras_esam.ESAMModel(model, seed=1)
    compile_model(model)
    fit(model, *dense_data(16))
    model.save(path)
    return model


@pytest.mark.parametrize("wrap", [False, True], ids=["Keras", "ESAM"])
def test_python_lambda_in_a_file_is_refused_in_safe_mode(wrap, tmp_path):
    path = tmp_path / "model.keras"
    save_with_lambda(path, wrap)
    for safe_mode in ({}, {"safe_mode": True}):
        with pytest.raises(ValueError, match="lambda"):
            keras.saving.load_model(path, **safe_mode)


@pytest.mark.parametrize("wrap", [False, True], ids=["Keras", "ESAM"])
def test_python_lambda_in_a_file_is_loaded_on_request(wrap, tmp_path):
    path = tmp_path / "model.keras"
    model = save_with_lambda(path, wrap)
    loaded = keras.saving.load_model(path, safe_mode=False)
    x, y = dense_data(16)
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0)
    )
    fit(model, x, y)
    fit(loaded, x, y)
    assert_identical(model.get_weights(), loaded.get_weights())


def test_python_lambda_in_a_config_is_refused(tmp_path):
    """`from_config` does not trust a config more than Keras does."""
    model = save_with_lambda(tmp_path / "model.keras", True)
    with pytest.raises(ValueError, match="lambda"):
        keras_esam.ESAMModel.from_config(model.get_config())
