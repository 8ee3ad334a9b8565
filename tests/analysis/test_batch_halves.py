"""Against logistic regression by hand, in NumPy."""

import dataclasses
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_esam
from keras_esam import analysis
from tests.analysis import RTOL
from tests.networks import PAPER
from tests.networks import compile_model
from tests.networks import dense_data
from tests.networks import dense_network

layers = keras.layers


class LogisticRegression:
    """`p = sigmoid(x @ w)`; the last column of `x` is that of the bias."""

    def __init__(self, weighted, penalty):
        rng = np.random.default_rng(0)
        self.x = np.append(rng.normal(size=(10, 4)), np.ones((10, 1)), axis=1)
        self.y = rng.integers(0, 2, 10).astype("float64")
        self.w = rng.normal(size=5)
        self.sample_weight = rng.uniform(0.5, 2, 10) if weighted else None
        self.penalty = penalty

    def batch(self):
        batch = (self.x[:, :-1], self.y[:, None])
        if self.sample_weight is None:
            return batch
        return (*batch, self.sample_weight)

    def model(self):
        dense = layers.Dense(
            1, kernel_regularizer=keras.regularizers.L2(self.penalty)
        )
        model = keras.Sequential([keras.Input((4,)), dense])
        model.set_weights([self.w[:-1, None], self.w[-1:]])
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        model.compile("sgd", loss)
        return model

    def losses(self, w):
        logits = self.x @ w
        losses = np.log1p(np.exp(logits)) - self.y * logits
        return losses * self._factors

    def gradients(self, w):
        """Of the losses of the samples, shape `(10, 5)`."""
        errors = 1 / (1 + np.exp(-self.x @ w)) - self.y
        return (self._factors * errors)[:, None] * self.x

    @property
    def _factors(self):
        return 1.0 if self.sample_weight is None else self.sample_weight

    def expected(self, rho, num_selected, adaptive):
        w = self.w
        g = self.gradients(w).mean(axis=0)
        g = g + 2 * self.penalty * np.append(w[:-1], 0)
        step = rho * g / np.linalg.norm(g)
        if adaptive:
            step = rho * w**2 * g / np.linalg.norm(w * g)
        clean, perturbed = self.losses(w), self.losses(w + step)
        order = np.argsort(clean - perturbed)
        plus, minus = order[:num_selected], order[num_selected:]
        gradients = self.gradients(w + step)

        def cosine(rows):
            a, b = gradients[rows].mean(axis=0), gradients.mean(axis=0)
            return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

        return {
            "loss": clean.mean(),
            "loss_plus": clean[plus].mean(),
            "loss_minus": clean[minus].mean(),
            "perturbed_loss": perturbed.mean(),
            "perturbed_loss_plus": perturbed[plus].mean(),
            "perturbed_loss_minus": perturbed[minus].mean(),
            "cosine_plus": cosine(plus),
            "cosine_minus": cosine(minus),
        }


@pytest.mark.parametrize(
    ("gamma", "num_selected", "adaptive", "weighted"),
    [
        (0.5, 5, False, False),
        (0.31, 4, True, True),
        (0.01, 1, False, True),
    ],
)
def test_logistic_regression(gamma, num_selected, adaptive, weighted, float64):
    problem = LogisticRegression(weighted, penalty=0.25)
    result = analysis.batch_halves(
        problem.model(), problem.batch(), 0.5, gamma, adaptive
    )
    expected = problem.expected(0.5, num_selected, adaptive)
    assert dataclasses.asdict(result) == pytest.approx(expected, RTOL, RTOL)


def test_batch_statistics_are_those_of_the_whole_batch(float64):
    """The moving ones have another scale, and the halves other means."""
    x, y = dense_data(12)
    model = dense_network(dropout=False)
    model.layers[1].moving_variance.assign(np.full(16, 100.0))
    compile_model(model, jit_compile=False)
    result = analysis.batch_halves(model, (x, y), rho=1e-6)
    p = keras.ops.convert_to_numpy(model(x, training=True))
    losses = -np.log(p[np.arange(12), y])
    np.testing.assert_allclose(result.loss, losses.mean(), rtol=1e-6)
    np.testing.assert_allclose(
        result.loss, (result.loss_plus + result.loss_minus) / 2, rtol=RTOL
    )


def test_all_passes_have_the_same_dropout_masks():
    network = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(64, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model = compile_model(network)
    result = analysis.batch_halves(model, dense_data(), rho=1e-6)
    assert abs(result.perturbed_loss - result.loss) < 1e-5
    again = analysis.batch_halves(model, dense_data(), rho=1e-6)
    assert again == result


def test_esam_model_ranks_as_it_trains():
    """A subclass with a loss of its own tells the losses of the samples."""

    class Doubled(keras_esam.ESAMModel):
        def compute_loss(self, *args, **kwargs):
            return 2 * super().compute_loss(*args, **kwargs)

        def compute_sample_losses(self, x, y, y_pred, sample_weight=None):
            return 2 * keras.losses.sparse_categorical_crossentropy(y, y_pred)

    network = compile_model(dense_network())
    model = compile_model(Doubled(network, **PAPER))
    result = analysis.batch_halves(model, dense_data())
    expected = analysis.batch_halves(network, dense_data())
    np.testing.assert_allclose(result.loss, 2 * expected.loss, rtol=1e-6)
    np.testing.assert_allclose(
        result.perturbed_loss_plus, 2 * expected.perturbed_loss_plus, rtol=1e-5
    )


def test_cosine_with_a_zero_gradient_is_not_a_number():
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(1, kernel_initializer="zeros")]
    )
    model.compile("sgd", "mse")
    x, _ = dense_data(8)
    result = analysis.batch_halves(model, (x, np.zeros((8, 1))))
    assert result.perturbed_loss == 0
    assert math.isnan(result.cosine_plus) and math.isnan(result.cosine_minus)


X, Y = dense_data(8)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"rho": 0.0}, ValueError, r"positive.* Received: rho=0.0"),
        ({"gamma": 0}, ValueError, r"\(0, 1\]. Received: gamma=0"),
        ({"gamma": 1}, ValueError, r"all are in B\+. Received: gamma=1"),
        ({"gamma": 0.9}, ValueError, r"all are in B\+. Received: gamma=0.9"),
        ({"adaptive": None}, TypeError, r"Received: adaptive=None"),
        ({"batch": (X[:1], Y[:1])}, ValueError, r"of the 1 samples all are"),
        ({"batch": (X[:0], Y[:0])}, ValueError, r"must have samples"),
        (
            {"batch": tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)},
            TypeError,
            r"next\(iter\(dataset\)\).*Received: batch=<_Batch",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_arguments(arguments, error, message):
    model = compile_model(dense_network())
    with pytest.raises(error, match=message):
        analysis.batch_halves(**{"model": model, "batch": (X, Y), **arguments})


def test_batch_whose_samples_are_not_its_rows():
    names = ("examples", "query")
    inputs = {name: keras.Input((8,), name=name) for name in names}
    outputs = keras.layers.Dense(1)(inputs["query"])
    outputs += keras.ops.mean(inputs["examples"])
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "mse")
    x = {"examples": X[:6], "query": X[:4]}
    with pytest.raises(ValueError, match="a batch of 6 rows with 4 losses"):
        analysis.batch_halves(model, (x, np.zeros((4, 1))))


def test_losses_that_reduce_by_themselves():
    model = dense_network()
    model.compile("sgd", lambda y, y_pred: keras.ops.mean(y_pred))
    with pytest.raises(ValueError, match="need the loss of each sample"):
        analysis.batch_halves(model, (X, Y))
