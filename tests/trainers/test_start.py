"""Trainings that begin with the base optimizer: `start`."""

import warnings

import keras
import numpy as np
import pytest

from tests.backends import compiled_steps
from tests.networks import all_values
from tests.networks import assert_identical
from tests.networks import compile_model
from tests.networks import compile_to_graph
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import esam
from tests.networks import fit

Stages = keras.optimizers.schedules.PiecewiseConstantDecay
# Steps until then, and sharpness-aware ones after it.
LATE = [{"start": 3}, {"rho": Stages([2], [0.0, 0.05])}]


def make(**kwargs):
    kwargs = {"seed": 1, "beta": 1, "gamma": 1, **kwargs}
    return compile_model(esam(dense_network(), **kwargs))


@pytest.mark.filterwarnings("ignore:`fit` ended after")
@pytest.mark.parametrize("late", LATE, ids=["start", "rho"])
def test_it_is_plain_training_until_then_and_not_after_it(late):
    x, y = dense_data(16 * 4)
    model, bare = make(**late), compile_model(dense_network())
    for step in range(4):
        batch = slice(16 * step, 16 * step + 16)
        logs = fit(model, x[batch], y[batch]).history
        expected = fit(bare, x[batch], y[batch]).history
        if step < 3:
            assert np.isnan(logs.pop("sharpness")).all()
            assert logs == expected
            assert_identical(model.model.get_weights(), bare.get_weights())
    assert np.isfinite(logs["sharpness"]).all()
    assert np.abs(model.get_weights()[0] - bare.get_weights()[0]).max() > 1e-6


@compiled_steps
@pytest.mark.filterwarnings("ignore:`fit` ended after")
@pytest.mark.parametrize("late", LATE, ids=["start", "rho"])
def test_it_compiles_the_base_step_and_then_the_other(late):
    x, y = dense_data(16 * 3)
    model = compile_to_graph(make(**late))
    for num_compiled in (1, 2, 2):
        fit(model, x, y)
        assert model.train_function.num_compiled == num_compiled


def test_steps_are_those_of_the_whole_training(tmp_path):
    x, y = dense_data(32)
    whole = make(start=3)
    with pytest.warns(UserWarning, match="after 2 training steps.*`start=3`"):
        fit(whole, x, y)
    whole.save_weights(tmp_path / "model.weights.h5")
    resumed = make(start=3)
    resumed.optimizer.build(resumed.trainable_variables)
    resumed.load_weights(tmp_path / "model.weights.h5")
    fit(whole, x, y)
    fit(resumed, x, y)
    assert_identical(all_values(resumed), all_values(whole))


def test_base_optimizer_has_nothing_to_start():
    x, y = dense_data(16)
    fit(make(start=30, rho=0), x, y)


def test_start_at_the_end_of_the_training_is_never_reached():
    with pytest.warns(UserWarning, match="after 2 training steps") as warned:
        fit(make(start=2), *dense_data(32))
    (own,) = [w for w in warned if "`start=2`" in str(w.message)]
    assert own.filename.endswith("networks.py")  # Where `fit` is called.


def test_stages_of_rho_that_stay_at_0_are_reported():
    with pytest.warns(UserWarning, match="before its `rho` .*, after 3 steps"):
        fit(make(rho=Stages([2], [0.0, 0.05])), *dense_data(32))


@pytest.mark.filterwarnings("error:`fit` ended after")
def test_fit_that_takes_no_step_or_reaches_start_does_not_warn():
    fit(make(start=30), *dense_data(16), epochs=2, initial_epoch=2)
    fit(make(start=2), *dense_data(16 * 3))
    fit(make(rho=Stages([2], [0.05, 0.0])), *dense_data(16))
    moved = make(start=30)
    move = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: setattr(moved, "start", 0)
    )
    fit(moved, *dense_data(16), callbacks=[move])


@compiled_steps
@pytest.mark.parametrize("start, warns", [(3, False), (5, True)])
def test_start_within_an_execution_waits_for_the_next(start, warns):
    model = compile_to_graph(make(start=start), steps_per_execution=4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(model, *dense_data(16 * 8))
    assert warns == any(f"`start={start}`" in str(w.message) for w in caught)


@pytest.mark.filterwarnings("ignore:`fit` ended after")
@pytest.mark.parametrize("values", [[0.0, 0.5], [0.5, 0.0], [0.5, 0.1]])
def test_stages_of_rho_follow_the_steps_of_the_whole_training(values):
    """Neither a second `compile` nor accumulated gradients shift them."""
    x, y = dense_data(16 * 5)
    staged = make(rho=Stages([2], values))
    by_hand = make(rho=values[0])
    for step in range(5):
        if step == 3:
            by_hand.rho = values[1]
        for model in (staged, by_hand):
            if step in (0, 2):
                optimizer = keras.optimizers.SGD(
                    0.1, gradient_accumulation_steps=2
                )
                compile_model(model, optimizer)
            batch = slice(16 * step, 16 * step + 16)
            fit(model, x[batch], y[batch])
    assert_identical(staged.get_weights(), by_hand.get_weights())


def test_subclass_of_stages_is_a_schedule_like_any_other():
    class Raised(Stages):
        def __call__(self, step):
            return super().__call__(step) + 0.5

    x, y = dense_data(16)
    raised, constant = make(rho=Raised([4], [0.0, 0.0])), make(rho=0.5)
    for model in (raised, constant):
        fit(model, x, y)
    for own, other in zip(
        raised.get_weights(), constant.get_weights(), strict=True
    ):
        np.testing.assert_allclose(own, other, rtol=1e-6)


@pytest.mark.parametrize("value", [-1.0, np.nan])
def test_stages_of_rho_are_checked(value):
    with pytest.raises(ValueError, match="`rho` must be finite and at least 0"):
        make(rho=Stages([2], [0.1, value]))


@pytest.mark.parametrize(
    "start, error", [(-1, ValueError), (1.5, TypeError), (True, TypeError)]
)
def test_start_is_a_number_of_steps(start, error):
    with pytest.raises(error, match=f"Received: start={start}"):
        make(start=start)
