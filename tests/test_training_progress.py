"""All state of a training is variables, which every way of saving saves."""

import keras
import numpy as np
import pytest

from tests.backends import tensorflow_only
from tests.networks import all_values
from tests.networks import assert_identical
from tests.networks import compile_model
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import esam
from tests.networks import fit

Stages = keras.optimizers.schedules.PiecewiseConstantDecay
METHODS = {
    "depth": {},
    "weight": {"granularity": "weight", "rank_by": "random"},
    "stages": {"gamma": Stages([3], [1.0, 0.5])},
    "one-step": {"ascent": "momentum", "gamma": 1},
}


def make(method, seed=None, run_eagerly=True):
    """A model and its network, with the names of a script that starts."""
    keras.utils.clear_session(free_memory=False)
    model = esam(dense_network(), seed=seed, **method)
    compile_model(model, run_eagerly=run_eagerly)
    model.optimizer.build(model.trainable_variables)
    return model


def resumed_equals_uninterrupted(method, save, load):
    x, y = dense_data(48)
    model = make(method)
    fit(model, x, y)
    state = save(model)
    other = load(make(method, seed=12345), state)
    for trained in (model, other):
        # Runs of two batches and a half: no multiple of the subsets' number.
        fit(trained, x[:40], y[:40], epochs=2)
    assert_identical(all_values(model), all_values(other))
    assert other.seed == model.seed
    assert other.get_config()["seed"] == model.seed


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_state_tree_resumes_bit_for_bit(method):
    def save(model):
        return model.get_state_tree(value_format="numpy_array")

    def load(model, tree):
        model.set_state_tree(tree)
        return model

    resumed_equals_uninterrupted(method, save, load)


# On JAX Keras does not tell Orbax the shardings.
@pytest.mark.filterwarnings("ignore:Sharding info not provided")
def test_orbax_checkpoint_resumes_bit_for_bit(tmp_path):
    pytest.importorskip("orbax.checkpoint")
    if not hasattr(keras.callbacks, "OrbaxCheckpoint"):
        pytest.skip("Keras 3.14 brings it")

    def save(model):
        x, y = dense_data(48)
        callback = keras.callbacks.OrbaxCheckpoint(
            directory=str(tmp_path), save_freq="epoch", save_on_background=False
        )
        fit(model, x, y, callbacks=[callback])
        return tmp_path

    def load(model, folder):
        model.load_weights(str(folder))
        return model

    resumed_equals_uninterrupted(METHODS["one-step"], save, load)


@tensorflow_only
def test_tensorflow_checkpoint_resumes_bit_for_bit(tmp_path):
    import tensorflow as tf

    def save(model):
        checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
        return checkpoint.save(str(tmp_path / "checkpoint"))

    def load(model, path):
        checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
        checkpoint.restore(path).assert_consumed()
        return model

    resumed_equals_uninterrupted(METHODS["one-step"], save, load)


def test_variables_of_the_training_are_no_weights():
    x, y = dense_data(16)
    model = make(METHODS["one-step"])
    fit(model, x, y)
    network = model.model
    assert [v.path for v in model.weights] == [v.path for v in network.weights]
    assert model.count_params() == network.count_params()
    known = {id(v) for v in network.variables}
    others = [v.path for v in model.variables if id(v) not in known]
    assert others == [
        model.seed_generator.state.path,
        "alignment",
        "training_progress",
    ]


def test_step_that_is_due_is_that_of_the_loaded_variable():
    x, y = dense_data(48)
    model, other = make({}, seed=1), make({}, seed=1)
    fit(model, x, y)
    assert model.upcoming_step != other.upcoming_step
    other.set_state_tree(model.get_state_tree(value_format="numpy_array"))
    assert model.upcoming_step == other.upcoming_step


def test_seed_that_is_set_after_loading_keeps_the_place():
    x, y = dense_data(48)
    gamma = Stages([2], [1.0, 0.5])
    model = make({"gamma": gamma, "beta": gamma}, seed=3)
    fit(model, x, y)
    other = make({"gamma": gamma, "beta": gamma}, seed=9)
    assert other.num_subsets == 1
    other.set_state_tree(model.get_state_tree(value_format="numpy_array"))
    assert other.num_subsets == model.num_subsets > 1
    assert other.get_config()["seed"] == other.seed == 3
    other.seed = 9
    np.testing.assert_array_equal(other.variables[-1].numpy(), [9, 3, 3])


def test_subsets_that_were_compiled_are_dropped_when_another_seed_is_loaded():
    """Those of `"variable"` are drawn with it."""
    x, y = dense_data(32)
    method = {"granularity": "variable", "beta": 0.5, "gamma": 1}
    first = make(method, seed=1, run_eagerly=False)
    second = make(method, seed=2, run_eagerly=False)
    first._preferred_pool_size = second._preferred_pool_size = 2
    tree = first.get_state_tree(value_format="numpy_array")
    fit(second, x, y)
    second.set_state_tree(tree)
    for model in (first, second):
        fit(model, x, y)
    assert_identical(all_values(first), all_values(second))


def test_seed_that_is_set_while_training_is_kept():
    class SetsSeed(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 1:
                self.model.seed = 7

    x, y = dense_data(48)
    model = make({}, seed=1)
    fit(model, x, y, callbacks=[SetsSeed()])
    assert model.seed == 7
    values = model.get_state_tree("numpy_array")["non_trainable_variables"]
    np.testing.assert_array_equal(values["training_progress"], [7, 3, 3])
