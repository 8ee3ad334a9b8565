"""Against known spectra, and finite differences of plain Keras' gradients."""

import keras
import numpy as np
import pytest

from keras_esam import analysis
from keras_esam.analysis.mean_loss import MeanLoss
from tests.analysis import DIFFERENCE_RTOL
from tests.analysis import STEP
from tests.analysis.least_squares import LeastSquares
from tests.backends import BACKEND
from tests.backends import gradients_of
from tests.networks import compile_to_graph
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import esam

layers = keras.layers
# Its products have no special cases, and eager ones take long.
slow_on_jax = pytest.mark.slow if BACKEND == "jax" else lambda test: test


@pytest.mark.parametrize("num_eigenvalues", [1, 4])
def test_spectrum_of_least_squares(num_eigenvalues, float64):
    problem = LeastSquares()
    batches = [
        (problem.x[i:j], problem.y[i:j]) for i, j in ((0, 3), (3, 20), (20, 33))
    ]
    result = analysis.hessian_eigenvalues(
        problem.model(), batches, num_eigenvalues
    )
    expected = np.linalg.eigvalsh(problem.hessian())[::-1][:num_eigenvalues]
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_float32_is_as_accurate_as_the_tolerance():
    problem = LeastSquares(num_samples=200, num_inputs=50)
    result = analysis.hessian_eigenvalues(
        problem.model(), (problem.x, problem.y), 3, tolerance=1e-4
    )
    expected = np.linalg.eigvalsh(problem.hessian())[::-1][:3]
    np.testing.assert_allclose(result, expected, rtol=1e-4)


def test_largest_is_not_the_most_negative(float64):
    """With `y * y_pred**2` the Hessian has any signs that we like."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 5))
    y = np.where(np.arange(40) % 4, -1.0, 0.5)[:, None]
    model = keras.Sequential(
        [keras.Input((5,)), layers.Dense(1, use_bias=False)]
    )
    model.compile("sgd", lambda y, y_pred: y * y_pred**2)
    spectrum = np.linalg.eigvalsh(2 / 40 * x.T @ (y * x))[::-1]
    assert -spectrum[-1] > 3 * abs(spectrum[0])
    result = analysis.hessian_eigenvalues(model, (x, y), 2)
    np.testing.assert_allclose(result, spectrum[:2], rtol=1e-5, atol=1e-8)


def test_a_loss_without_curvature_has_zeros():
    x, y = np.ones((8, 3), "float32"), np.ones((8, 1), "float32")
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    model.compile("sgd", lambda y, y_pred: y * y_pred)
    result = analysis.hessian_eigenvalues(model, (x, y), 2)
    np.testing.assert_array_equal(result, [0.0, 0.0])


def gradient_at(model, x, y, vector):
    """Gradient of plain Keras as a flat array, at weights set to `vector`."""
    start = 0
    for variable in model.trainable_variables:
        end = start + np.prod(variable.shape, dtype=int)
        variable.assign(vector[start:end].reshape(variable.shape))
        start = end

    def loss():
        y_pred = model(x, training=False)
        return model.compute_loss(x, y, y_pred, training=False)

    gradients = gradients_of(loss, model.trainable_variables)
    return np.concatenate(
        [keras.ops.convert_to_numpy(g).ravel() for g in gradients]
    )


def flat_weights(model):
    values = [v.numpy().ravel() for v in model.trainable_variables]
    return np.concatenate(values)


@slow_on_jax
def test_nonlinear_network_by_finite_differences(float64):
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(3, activation="tanh"),
            layers.Dense(3, kernel_regularizer="l2"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    x, y = dense_data()
    result = analysis.hessian_eigenvalues(model, (x, y), 4)
    weights = flat_weights(model)
    x = keras.ops.convert_to_tensor(x)
    hessian = []
    for offset in STEP * np.eye(len(weights)):
        rise = gradient_at(model, x, y, weights + offset)
        fall = gradient_at(model, x, y, weights - offset)
        hessian.append((rise - fall) / (2 * STEP))
    expected = np.linalg.eigvalsh(np.array(hessian))[::-1]
    np.testing.assert_allclose(
        result, expected[:4], atol=DIFFERENCE_RTOL * expected[0]
    )


def image_network():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, activation="gelu"),
            layers.BatchNormalization(),
            layers.DepthwiseConv2D(3, activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


def text_network():
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(10, 4)(inputs)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 3)(x, x))
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(3)(x))


@slow_on_jax
@pytest.mark.parametrize("make", [image_network, text_network])
def test_product_with_a_vector_by_finite_differences(make, float64):
    rng = np.random.default_rng(3)
    model = make()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    if make is text_network:
        x = rng.integers(0, 10, (7, 6))
    else:
        x = rng.normal(size=(7, 8, 8, 3))
    y = rng.integers(0, 3, 7)
    # Not small ones, at which normalization is steep.
    weights = rng.uniform(0.3, 1, flat_weights(model).shape)
    gradient_at(model, keras.ops.convert_to_tensor(x), y, weights)
    mean_loss = MeanLoss(model, [(x[:3], y[:3]), (x[3:], y[3:])])
    vectors = [rng.normal(size=w.shape) for w in model.trainable_variables]
    products = mean_loss.hessian_vector_product(
        mean_loss.weights, [keras.ops.convert_to_tensor(v) for v in vectors]
    )
    result = [keras.ops.convert_to_numpy(p).ravel() for p in products]
    offset = STEP * np.concatenate([vector.ravel() for vector in vectors])
    x = keras.ops.convert_to_tensor(x)
    rise = gradient_at(model, x, y, weights + offset)
    fall = gradient_at(model, x, y, weights - offset)
    expected = (rise - fall) / (2 * STEP)
    np.testing.assert_allclose(
        np.concatenate(result),
        expected,
        atol=DIFFERENCE_RTOL * abs(expected).max(),
    )


def test_wrapped_and_bare_networks_are_equally_curved():
    network = compile_to_graph(dense_network())
    model = compile_to_graph(esam(network))
    np.testing.assert_array_equal(
        analysis.hessian_eigenvalues(model, dense_data()),
        analysis.hessian_eigenvalues(network, dense_data()),
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_eigenvalues": 0}, ValueError, "Received: num_eigenvalues=0"),
        ({"num_eigenvalues": 5}, ValueError, "number of weights, 5. Received"),
        ({"num_eigenvalues": 1.0}, TypeError, "Received: num_eigenvalues=1.0"),
        ({"max_restarts": True}, TypeError, "Received: max_restarts=True"),
        ({"tolerance": 0}, ValueError, "Received: tolerance=0"),
        ({"seed": -1}, ValueError, "Received: seed=-1"),
    ],
    ids=str,
)
def test_bad_arguments(arguments, error, message):
    problem = LeastSquares()
    with pytest.raises(error, match=message):
        analysis.hessian_eigenvalues(
            problem.model(), (problem.x, problem.y), **arguments
        )


def test_infinite_weights_are_an_error():
    problem = LeastSquares()
    problem.x[3, 1] = np.inf
    with pytest.raises(ValueError, match="must be finite"):
        analysis.hessian_eigenvalues(problem.model(), (problem.x, problem.y))
