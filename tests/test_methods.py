"""Every method through one battery: fit, evaluate, predict, save, load, resume,
eager, graph and XLA.
"""

import inspect
import os

import keras
import numpy as np
import pytest

import keras_esam
from tests.backends import BACKEND
from tests.backends import compiled_steps
from tests.backends import tensorflow_only
from tests.methods import METHODS
from tests.networks import all_values
from tests.networks import assert_identical
from tests.networks import compile_model
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import esam
from tests.networks import fit

# One of each kind. The tests of the other methods are slow ones.
SAVED = {"esam_variable_loss", "esam_weight", "one_step_loss"}
RESUMED = SAVED | {"esam_depth_random", "esam_micro_batches"}
RESUMED |= {"esam_start", "sam_part"}
START_NOT_REACHED = "ignore:`fit` ended after"
COMPILED = {"esam_depth", "esam_micro_batches", "one_step_loss", "sam_part"}
COMPILED_BY_XLA = {"esam_depth"}
if BACKEND == "jax":  # On which they take long.
    RESUMED = {"sam_part", "esam_depth_random"}
    COMPILED = {"esam_depth"}


def some(methods):
    """Parametrizes over all methods, those that are not given as slow ones."""
    return pytest.mark.parametrize(
        "method",
        [
            pytest.param(
                name, marks=[] if name in methods else pytest.mark.slow
            )
            for name in METHODS
        ],
    )


def make(method, network=None, optimizer=None, **kwargs):
    network = network or dense_network()
    model = esam(network, seed=3, **METHODS[method])
    # A compiled step for each subset takes long.
    model._preferred_pool_size = 2
    return compile_model(model, optimizer, **kwargs)


def arguments(model):
    config = model.get_config()
    del config["model"]
    return config


def test_fit_learns():
    x, _ = dense_data(64)
    y = np.argmax(x[:, :3], axis=1)
    model = make("sam_part", optimizer=keras.optimizers.AdamW(0.05))
    history = fit(model, x, y, epochs=16)
    assert history.history["loss"][-1] < 0.7 * history.history["loss"][0]
    assert model.evaluate(x, y, verbose=0, return_dict=True)["accuracy"] > 0.8


@pytest.mark.filterwarnings(START_NOT_REACHED)
@some(SAVED)
def test_saved_model_goes_on_and_predicts_as_its_network(method, tmp_path):
    x, y = dense_data(32)
    model = esam(dense_network(), seed=3, **METHODS[method])
    fit(compile_model(model), x, y)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert arguments(loaded) == arguments(model)
    assert_identical(all_values(loaded), all_values(model))
    loaded.run_eagerly = True
    fit(model, x, y)
    fit(loaded, x, y)
    assert_identical(all_values(loaded), all_values(model))
    assert_identical(loaded.optimizer.variables, model.optimizer.variables)
    network = compile_model(model.model)
    expected = network.evaluate(x, y, verbose=0, return_dict=True)
    assert model.evaluate(x, y, verbose=0, return_dict=True) == expected
    np.testing.assert_array_equal(
        model.predict(x, verbose=0), network.predict(x, verbose=0)
    )


def test_configuration_has_every_argument():
    """A change of one of them must survive the way there and back."""
    changed = {
        **{"rho": 0.1, "beta": 0.5, "gamma": 0.7, "granularity": "variable"},
        **{"rank_by": "loss", "ascent": "momentum", "ascent_scope": "global"},
        **{"micro_batch_size": 8, "adaptive": True},
        **{"ascent_fraction": 0.5, "start": 3},
        **{"perturbable": "normalization"},
        **{"scale": "authors", "seed": 7, "name": "other"},
    }
    parameters = inspect.signature(keras_esam.ESAMModel).parameters
    assert set(changed) == set(parameters) - {"model"}
    for name, value in changed.items():
        # On its own, as not all of them go together.
        others = {"ascent_fraction": 1} if name == "gamma" else {}
        arguments = {**others, name: value}
        config = keras_esam.ESAMModel(dense_network(), **arguments).get_config()
        again = keras_esam.ESAMModel.from_config(config)
        assert getattr(again, name) == value != parameters[name].default


@pytest.mark.parametrize("method", ["esam_depth", "one_step"])
def test_weights_file_continues_the_training(method, tmp_path):
    x, y = dense_data()
    model = make(method)
    fit(model, x, y)
    model.save_weights(tmp_path / "model.weights.h5")
    fresh = make(method)
    fresh.optimizer.build(fresh.trainable_variables)
    fresh.load_weights(tmp_path / "model.weights.h5")
    fit(model, x, y)
    fit(fresh, x, y)
    assert_identical(all_values(fresh), all_values(model))


class StopAfter(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt


@some(RESUMED)
def test_resumed_run_equals_the_uninterrupted_one(method, tmp_path):
    x, y = dense_data(40)
    whole = make(method)
    fit(whole, x, y, epochs=3)
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    cut = make(method)
    with pytest.raises(KeyboardInterrupt):
        fit(cut, x, y, epochs=3, callbacks=[backup, StopAfter(1)])
    # Made without a seed, as by a user who starts the script again.
    resumed = esam(dense_network(), **METHODS[method])
    resumed._preferred_pool_size = 2
    fit(compile_model(resumed), x, y, epochs=3, callbacks=[backup])
    assert_identical(all_values(whole), all_values(resumed))
    assert_identical(whole.optimizer.variables, resumed.optimizer.variables)
    assert not os.path.exists(tmp_path / "backup")


@pytest.mark.filterwarnings(START_NOT_REACHED)
@compiled_steps
@some(COMPILED)
def test_eager_equals_graph(method):
    x, y = dense_data(40)
    weights = []
    for run_eagerly in (False, True):
        model = make(method, run_eagerly=run_eagerly)
        fit(model, x, y)
        weights.append(all_values(model))
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@tensorflow_only
@some(COMPILED_BY_XLA)
def test_xla_equals_eager(method):
    """On full batches: each batch size would be compiled once more."""
    x, y = dense_data(16 * 4)
    weights = []
    for options in ({}, {"run_eagerly": False, "jit_compile": True}):
        # Without dropout, whose masks XLA draws with another algorithm.
        model = make(method, dense_network(dropout=False), **options)
        fit(model, x, y)
        weights.append(model.get_weights())
    if "weight" in method or "random" in method:
        # Other random numbers under XLA.
        assert all(np.all(np.isfinite(w)) for w in weights[1])
        return
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
