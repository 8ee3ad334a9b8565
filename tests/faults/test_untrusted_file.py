"""A saved model that brings Python code of its own is refused by default."""

import keras
import numpy as np
import pytest

import keras_esam
from tests.networks import compile_model
from tests.networks import dense_data
from tests.networks import esam
from tests.networks import fit


def save_with_lambda(path):
    keras.utils.set_random_seed(1)
    network = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Lambda(lambda x: 2 * x),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model = compile_model(esam(network, seed=1))
    fit(model, *dense_data(16))
    model.save(path)
    return model


def test_python_lambda_is_refused_in_safe_mode_and_loaded_on_request(tmp_path):
    path = tmp_path / "model.keras"
    model = save_with_lambda(path)
    for safe_mode in ({}, {"safe_mode": True}):
        with pytest.raises(ValueError, match="lambda"):
            keras.saving.load_model(path, **safe_mode)
    with pytest.raises(ValueError, match="lambda"):
        keras_esam.ESAMModel.from_config(model.get_config())
    loaded = keras.saving.load_model(path, safe_mode=False)
    x, _ = dense_data(16)
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0)
    )
