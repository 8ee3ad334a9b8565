"""`rho`, `beta` and `gamma` that change over the steps."""

import dataclasses

import keras
import numpy as np
import pytest

import keras_esam
from tests.backends import compiled_steps
from tests.networks import assert_identical
from tests.networks import compile_model
from tests.networks import compile_to_graph
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import esam
from tests.networks import fit

schedules = keras.optimizers.schedules
Stages = schedules.PiecewiseConstantDecay


def train(num_steps=6, **kwargs):
    x, y = dense_data(16 * 6)
    x, y = x[: 16 * num_steps], y[: 16 * num_steps]
    model = esam(
        dense_network(), **{"seed": 1, "beta": 1, "gamma": 1, **kwargs}
    )
    history = fit(compile_model(model), x, y).history
    return model, history


@pytest.mark.filterwarnings("ignore:`fit` ended after")
def test_rho_schedule_is_of_the_optimizers_steps():
    """A radius of 0 until step 3: until then the base optimizer's weights."""
    schedule = Stages([2], [0.0, 0.5])
    first, _ = train(3, rho=schedule)
    base, _ = train(3, rho=0)
    assert_identical(first.get_weights(), base.get_weights())
    first, _ = train(4, rho=schedule)
    base, _ = train(4, rho=0)
    assert np.abs(first.get_weights()[0] - base.get_weights()[0]).max() > 1e-4


@compiled_steps
def test_stages_compile_their_own_steps_and_drop_the_old_ones():
    compiled = []

    class Traced(keras_esam.ESAMModel):
        def train_step(self, *args):
            compiled.append(self._plan_step())
            return super().train_step(*args)

    x, y = dense_data(16 * 8)
    model = Traced(
        dense_network(),
        seed=1,
        ascent_fraction=1,
        granularity="variable",
        beta=Stages([3], [1.0, 0.5]),
        gamma=Stages([1], [1.0, 0.5]),
    )
    model._preferred_pool_size = 2
    compile_to_graph(model)
    fit(model, x, y)
    assert [(plan.beta, plan.gamma) for plan in compiled] == [
        (1.0, 1.0),
        (1.0, 0.5),
        *[(0.5, 0.5)] * 2,
    ]
    assert len(model.train_function._functions) == 2
    assert model.num_subsets == 2


def test_stages_survive_saving_and_loading(tmp_path):
    x, y = dense_data(16 * 4)
    model, _ = train(
        4,
        rho=schedules.CosineDecay(0.1, 10),
        beta=Stages([5], [1.0, 0.5]),
        gamma=Stages([5], [1.0, 0.5]),
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.rho, schedules.CosineDecay)
    # The schedules are other objects of the same values.
    plan = dataclasses.replace(loaded.upcoming_step, method=model._method)
    assert plan == model.upcoming_step
    for trained in (model, loaded):
        trained.run_eagerly = True
        fit(trained, x, y)
    assert_identical(model.get_weights(), loaded.get_weights())
    assert model.upcoming_step.gamma == 0.5


@compiled_steps
def test_steps_per_execution_counts_all_its_steps():
    x, y = dense_data(16 * 6)
    gamma = Stages([3], [1.0, 0.5])
    model = esam(dense_network(), beta=1, gamma=gamma)
    compile_to_graph(model, steps_per_execution=3)
    for _ in range(2):
        model.train_on_batch(x[:16], y[:16])
    assert model._progress.num_steps == 2
    fit(model, x, y)
    assert model._progress.num_steps == 8
    assert model.upcoming_step.gamma == 0.5


def test_stages_of_numpy_numbers_have_the_pool_of_the_numbers_they_stand_for():
    stages = Stages([100], [np.float32(0.6), np.float32(0.7)])
    model, _ = train(1, beta=stages, granularity="variable")
    assert model.num_subsets == 5
    assert model.subset_pool.probabilities == (0.6,) * 6


def test_sharpness_is_logged_whatever_the_last_step_is():
    _, history = train(2, rho=Stages([0], [0.1, 0.0]))
    assert history["sharpness"][0] > 0


def test_sharpness_is_nan_where_no_step_of_an_epoch_knows_it():
    """3 steps an epoch: gamma is 1 in the second and in half of the third."""
    x, y = dense_data(16 * 3)
    gamma = Stages([2, 6], [0.5, 1.0, 0.5])
    model = esam(dense_network(), seed=1, beta=1, gamma=gamma, rank_by="loss")
    logged = []
    keep = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: logged.append(logs["sharpness"])
    )
    history = fit(
        compile_model(model), x, y, epochs=4, callbacks=[keep]
    ).history
    assert len(history["sharpness"]) == len(history["loss"]) == 4
    known = [False, True, True, False]
    np.testing.assert_array_equal(np.isfinite(history["sharpness"]), known)
    assert history["sharpness"][2] == pytest.approx(logged[6]) != 0
    # Of a batch: the mean since the epoch began.
    known = [*[False] * 3, *[True] * 6, *[False] * 3]
    np.testing.assert_array_equal(np.isfinite(logged), known)
    loss, accuracy, sharpness = model.train_on_batch(x[:16], y[:16])
    assert np.isfinite([loss, accuracy]).all() and np.isnan(sharpness)


def test_sharpness_of_an_epoch_without_a_sharpness_aware_step_is_nan():
    x, y = dense_data(16)
    model = esam(dense_network(), rho=Stages([1], [0.1, 0.0]), gamma=1)
    history = fit(compile_model(model), x, y, epochs=4).history
    np.testing.assert_array_equal(
        np.isnan(history["sharpness"]), [False, False, True, True]
    )


def test_nothing_is_dropped_where_all_samples_are_kept():
    """ceil(0.99 * 16) = 16: no ranking pass, and the step of SAM."""
    selecting, _ = train(2, beta=1, gamma=0.99)
    sam, _ = train(2, beta=1, gamma=1)
    assert_identical(selecting.get_weights(), sam.get_weights())
