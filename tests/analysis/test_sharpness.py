"""Against closed forms and against Keras' `evaluate` at moved weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_esam
from keras_esam import analysis
from tests.analysis import RTOL
from tests.analysis.least_squares import LeastSquares
from tests.backends import gradients_of
from tests.networks import SubclassedNetwork
from tests.networks import compile_model
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import esam

RHO = 0.3


def uneven_batches(*arrays):
    return [
        tuple(a[i:j] for a in arrays) for i, j in ((0, 5), (5, 25), (25, 33))
    ]


def dataset(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays).batch(10)


class Sequence(keras.utils.PyDataset):
    """Batches that can be had by index, without an end to iterate to."""

    def __init__(self, *arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return tuple(a[11 * (index % 3) :][:11] for a in self.arrays)


def closed_form(problem, rho=RHO, **kwargs):
    gradient = problem.gradient(problem.weights, **kwargs)
    step = rho * gradient / np.linalg.norm(gradient)
    moved = problem.loss(problem.weights + step, **kwargs)
    return moved - problem.loss(problem.weights, **kwargs)


@pytest.mark.parametrize(
    "read",
    [lambda *arrays: arrays, uneven_batches, dataset, Sequence],
    ids=["arrays", "batches", "dataset", "sequence"],
)
def test_least_squares_in_closed_form(read, float64):
    problem = LeastSquares()
    result = analysis.sharpness(
        problem.model(), read(problem.x, problem.y), rho=RHO
    )
    assert isinstance(result, float)
    np.testing.assert_allclose(result, closed_form(problem), rtol=RTOL)


def test_arrays_of_many_batches(float64):
    problem = LeastSquares(num_samples=600)
    result = analysis.sharpness(problem.model(), (problem.x, problem.y), RHO)
    np.testing.assert_allclose(result, closed_form(problem), rtol=RTOL)


def test_sample_weights_and_regularisation_count(float64):
    problem = LeastSquares(regularizer=0.125)
    data = uneven_batches(problem.x, problem.y, problem.sample_weight)
    result = analysis.sharpness(problem.model(), data, rho=RHO)
    expected = closed_form(problem, sample_weight=problem.sample_weight)
    np.testing.assert_allclose(result, expected, rtol=RTOL)


def test_adaptive_distance_is_relative_to_the_weights(float64):
    problem = LeastSquares()
    weights = problem.weights
    gradient = problem.gradient(weights)
    step = RHO * weights**2 * gradient / np.linalg.norm(weights * gradient)
    result = analysis.sharpness(
        problem.model(), (problem.x, problem.y), rho=RHO, adaptive=True
    )
    expected = problem.loss(weights + step) - problem.loss(weights)
    np.testing.assert_allclose(result, expected, rtol=RTOL)


def test_loss_of_a_subclass_gets_the_mode_by_keyword():
    modes = []

    class Model(keras_esam.ESAMModel):
        def compute_loss(self, *args, **kwargs):
            modes.append(kwargs["training"])
            return super().compute_loss(*args, **kwargs)

    problem = LeastSquares()
    model = Model(problem.model())
    model.compile("sgd", "mse")
    analysis.sharpness(model, (problem.x, problem.y), RHO)
    assert modes and not any(modes)


def two_outputs():
    """Dropout, batch statistics, `add_loss`, two weighted losses."""

    class Loud(keras.layers.Layer):
        def call(self, x):
            self.add_loss(0.1 * keras.ops.mean(x**2))
            return x

    inputs = keras.Input((8,))
    x = Loud()(keras.layers.Dense(6, activation="tanh")(inputs))
    x = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(x))
    outputs = {
        "a": keras.layers.Dense(1, name="a")(x),
        "b": keras.layers.Dense(2, name="b")(x),
    }
    model = keras.Model(inputs, outputs)
    losses = {"a": "mse", "b": "mae"}
    model.compile("adam", losses, {"a": 1.0, "b": 0.3})
    rng = np.random.default_rng(1)
    y = {"a": rng.normal(size=(48, 1)), "b": rng.normal(size=(48, 2))}
    return model, (dense_data()[0].astype("float64"), y)


def test_is_the_rise_of_what_evaluate_reports(float64):
    model, (x, y) = two_outputs()
    result = analysis.sharpness(model, (x, y), rho=RHO)

    def loss():
        y_pred = model(x, training=False)
        return model.compute_loss(x, y, y_pred, training=False)

    gradients = [
        keras.ops.convert_to_numpy(g)
        for g in gradients_of(loss, model.trainable_variables)
    ]
    norm = np.sqrt(sum(np.sum(g**2) for g in gradients))
    before = model.evaluate(x, y, verbose=0, return_dict=True)["loss"]
    for variable, gradient in zip(
        model.trainable_variables, gradients, strict=True
    ):
        variable.assign(variable + RHO * gradient / norm)
    after = model.evaluate(x, y, verbose=0, return_dict=True)["loss"]
    np.testing.assert_allclose(result, after - before, rtol=RTOL)


def test_wrapped_and_bare_networks_are_equally_sharp():
    network = compile_model(dense_network())
    model = compile_model(esam(network, rho=1.0))
    data = dense_data()
    assert analysis.sharpness(model, data) == analysis.sharpness(network, data)


def test_at_a_minimum_nothing_rises(float64):
    problem = LeastSquares()
    problem.y = problem.design @ problem.weights[:, None]
    result = analysis.sharpness(problem.model(), (problem.x, problem.y * 0))
    assert result > 0
    problem.weights *= 0
    result = analysis.sharpness(problem.model(), (problem.x, problem.y * 0))
    assert result == 0


def test_an_eager_model_stays_eager():
    class Eager(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(3, activation="softmax")

        def call(self, x):
            size = np.abs(keras.ops.convert_to_numpy(x)).max()
            return self.dense(x / float(size))

    network = Eager()
    network(dense_data()[0])
    compile_model(network, run_eagerly=True)
    assert analysis.sharpness(network, dense_data()) > 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"rho": 0}, ValueError, r"`rho` must be positive.* Received: rho=0"),
        ({"rho": -1.0}, ValueError, r"Received: rho=-1.0"),
        ({"rho": float("nan")}, ValueError, r"Received: rho=nan"),
        ({"rho": "1"}, TypeError, r"Received: rho='1' of type"),
        ({"adaptive": 1}, TypeError, r"Received: adaptive=1"),
        ({"data": []}, ValueError, r"`data` must have samples"),
        (
            {"data": (np.zeros((0, 8)), np.zeros(0))},
            ValueError,
            r"`data` must have samples",
        ),
        (
            {"data": (np.zeros((4, 8)), np.zeros(3))},
            ValueError,
            r"samples as their rows.* shapes \[\(4, 8\), \(3,\)\]",
        ),
        ({"data": 3}, TypeError, r"an iterable of batches. Received: data=3"),
        ({"data": np.zeros(3)}, TypeError, r"an iterable of batches"),
        ({"data": list(dense_data())}, TypeError, r"an iterable of batches"),
        ({"data": {"x": 3}}, TypeError, r"an iterable of batches"),
        ({"model": 3}, TypeError, r"`keras.Model`. Received: model=3"),
    ],
    ids=str,
)
def test_bad_arguments(arguments, error, message):
    model = compile_model(dense_network())
    with pytest.raises(error, match=message):
        analysis.sharpness(
            **{"model": model, "data": dense_data(), **arguments}
        )


def test_bad_models():
    with pytest.raises(ValueError, match="must be compiled"):
        analysis.sharpness(dense_network(), dense_data())
    with pytest.raises(ValueError, match="must be built"):
        analysis.sharpness(compile_model(SubclassedNetwork()), dense_data())
    frozen = dense_network()
    frozen.trainable = False
    with pytest.raises(ValueError, match="must have trainable weights"):
        analysis.sharpness(compile_model(frozen), dense_data())
