"""The wrapper is built when its network is, however that came about."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_esam
from tests.backends import tensorflow_only
from tests.networks import SubclassedNetwork
from tests.networks import assert_identical
from tests.networks import compile_model
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import esam
from tests.networks import fit

X, Y = dense_data(16)


@pytest.mark.parametrize(
    "make",
    [SubclassedNetwork, lambda: keras.Sequential([keras.layers.Dense(3)])],
    ids=["subclassed", "sequential"],
)
@pytest.mark.parametrize(
    "build",
    [
        lambda model: model.build((None, 8)),
        lambda model: model(X),
        lambda model: model.model(X),
        lambda model: fit(compile_model(model), X, Y),
    ],
    ids=["build", "call", "call_of_the_network", "fit"],
)
def test_network_is_built_through_the_wrapper(make, build, tmp_path):
    model = esam(make())
    assert not model.built
    build(model)
    assert model.built and model.model.built and len(model.weights) > 0
    model.save_weights(tmp_path / "a.weights.h5")


def test_nested_input_shapes():
    class Sum(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(2)

        def call(self, inputs):
            return self.dense(inputs["a"] + inputs["b"])

    model = esam(Sum())
    model.build({"a": (None, 4), "b": (None, 4)})
    assert [tuple(w.shape) for w in model.weights] == [(4, 2), (2,)]


def test_embedding_is_built_with_the_dtype_of_its_inputs():
    network = keras.Sequential(
        [keras.layers.Embedding(10, 4), keras.layers.Flatten()]
    )
    model = esam(network)
    assert model(np.ones((2, 3), "int32")).shape == (2, 12)


class Doubled(keras_esam.ESAMModel):
    """Has a call of its own."""

    def call(self, inputs, training=None):
        return 2 * super().call(inputs, training)


@tensorflow_only
@pytest.mark.parametrize(
    "make",
    [
        lambda: esam(SubclassedNetwork()),
        lambda: Doubled(SubclassedNetwork()),
        lambda: Doubled(dense_network()),
    ],
    ids=["network", "own_call", "own_call_of_functional"],
)
def test_export_serves_what_is_predicted(make, tmp_path):
    model = compile_model(make())
    fit(model, X, Y)
    model.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(tmp_path / "exported")
    np.testing.assert_allclose(
        exported.serve(X), model.predict(X, verbose=0), atol=1e-6
    )


def test_file_that_would_lose_the_state_of_the_training_is_refused(tmp_path):
    model = esam(dense_network())
    with pytest.raises(ValueError, match="must end with `.keras`.*model.h5"):
        model.save(tmp_path / "model.h5")
    assert not list(tmp_path.iterdir())


class NeedsItsMode(keras.Model):
    """Has no default of `training`."""

    def __init__(self):
        super().__init__(name="network")
        self.dense = keras.layers.Dense(3, activation="softmax", name="dense")

    def call(self, inputs, training):
        assert training in (True, False)
        return self.dense(inputs)


@pytest.mark.parametrize(
    "train", ["fit", pytest.param("train_step", marks=tensorflow_only)]
)
def test_fit_builds_as_a_call_does(train):
    """With the same paths, by which state trees are loaded."""
    model, other = (
        compile_model(esam(NeedsItsMode(), name="model")) for _ in range(2)
    )
    other(X, training=False)
    if train == "fit":
        fit(model, X, Y)
    else:
        model.train_step((X, Y))
    paths = [weight.path for weight in model.model.weights]
    assert paths == [weight.path for weight in other.model.weights]
    other.set_state_tree(model.get_state_tree())
    assert_identical(other.get_weights(), model.get_weights())


class WithoutAuxiliary(keras.Model):
    """Has an output that is `None`."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3, activation="softmax")

    def call(self, inputs):
        return {"auxiliary": None, "main": self.dense(inputs)}


@pytest.mark.parametrize("kwargs", [{}, {"micro_batch_size": 4}], ids=str)
def test_output_that_is_none(kwargs):
    model = esam(WithoutAuxiliary(), beta=1, gamma=1, **kwargs)
    loss = keras.losses.SparseCategoricalCrossentropy()
    model.compile("sgd", {"main": loss})
    assert np.isfinite(fit(model, X, {"main": Y}).history["loss"]).all()


@pytest.mark.parametrize("default", [True, False])
def test_direct_call_keeps_the_default_of_training_that_the_network_has(
    default,
):
    class Network(keras.Model):
        def call(self, x, training=default):
            return x + 1 if training else x

    network = Network()
    model = esam(network)
    x = np.zeros((2, 1), "float32")
    for arguments in ({}, {"training": True}, {"training": False}):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(model(x, **arguments)),
            keras.ops.convert_to_numpy(network(x, **arguments)),
        )
    assert keras.ops.convert_to_numpy(model(x)).max() == default
