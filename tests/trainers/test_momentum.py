"""`ascent="momentum"`: one forward and one backward pass a step."""

import keras
import numpy as np
import pytest

import keras_esam
from keras_esam import momentum
from tests.networks import all_values
from tests.networks import assert_identical
from tests.networks import compile_model
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import esam
from tests.networks import fit

optimizers = keras.optimizers


def make(network, **kwargs):
    arguments = {"beta": 1, "gamma": 1, "seed": 1, **kwargs}
    return esam(network, ascent="momentum", **arguments)


def test_first_step_is_that_of_the_base_optimizer():
    """Statistics, seeds and metrics included: there is no momentum yet."""
    x, y = dense_data(16)
    results = []
    for model in (
        make(dense_network()),
        keras_esam.ESAMModel(dense_network(), rho=0, seed=1),
    ):
        logs = fit(compile_model(model), x, y).history
        results.append((all_values(model.model), logs))
    for a, b in zip(results[0][0], results[1][0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    for key, values in results[1][1].items():
        assert results[0][1][key] == pytest.approx(values)


def test_loss_and_metrics_are_those_ahead_of_the_weights():
    """At the weights plus `rho` times the direction of the last update."""
    x, y = dense_data(16)
    network = dense_network(batch_norm=False, dropout=False)
    model = compile_model(make(network, rho=0.5))
    before = network.get_weights()
    fit(model, x, y)
    theta = network.get_weights()
    updates = [b - a for a, b in zip(before, theta, strict=True)]
    norm = np.sqrt(sum(np.sum(u.astype("float64") ** 2) for u in updates))
    other = compile_model(dense_network(batch_norm=False, dropout=False))
    other.set_weights(
        [w + 0.5 * u / norm for w, u in zip(theta, updates, strict=True)]
    )
    expected = other.evaluate(x, y, verbose=0, return_dict=True)
    logs = fit(model, x, y).history
    assert logs["loss"][0] == pytest.approx(expected["loss"], rel=1e-4)
    assert logs["accuracy"][0] == pytest.approx(expected["accuracy"])
    assert "sharpness" not in logs


@pytest.mark.parametrize(
    "optimizer",
    [
        optimizers.SGD(0.1, momentum=0.9),
        optimizers.SGD(0.1, momentum=0.9, nesterov=True),
        *(kind(0.01) for kind in momentum.OPTIMIZERS[1:]),
        optimizers.LossScaleOptimizer(optimizers.SGD(0.1, momentum=0.9)),
    ],
    ids=lambda optimizer: optimizer.name,
)
def test_momentum_has_the_sign_of_the_gradients(optimizer):
    weights = [keras.Variable(np.ones((2, 3), "float32"), name=n) for n in "ab"]
    assert not any(
        keras.ops.convert_to_numpy(value).any()
        for value in momentum.read(optimizer, weights)
    )
    # Alone, on JAX the loss scale can be changed in a compiled step only.
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    for _ in range(3):
        gradients = [
            keras.ops.convert_to_tensor(np.full((2, 3), value, "float32"))
            for value in (2.0, -3.0)
        ]
        inner.apply(gradients, weights)
    first, second = map(
        keras.ops.convert_to_numpy, momentum.read(optimizer, weights)
    )
    assert (first > 0).all() and (second < 0).all()


@pytest.mark.parametrize(
    "optimizer",
    [
        optimizers.SGD(0.1),
        optimizers.Adagrad(),
        "adadelta",
        # Of the updates, and of two scales.
        optimizers.RMSprop(0.01, momentum=0.9),
        optimizers.Muon(0.01),
    ],
)
def test_optimizer_without_momentum_is_an_error(optimizer):
    model = compile_model(make(dense_network()), optimizer)
    before = all_values(model)
    with pytest.raises(ValueError, match="that keeps the momentum of the"):
        fit(model, *dense_data(16))
    assert_identical(before, all_values(model))


def test_weights_of_one_name_have_each_its_own_momentum():
    weights = [keras.Variable(np.ones(1), name="same") for _ in range(2)]
    optimizer = optimizers.SGD(1.0, momentum=0.5)
    optimizer.build(weights)
    gradients = [keras.ops.ones(1), 3 * keras.ops.ones(1)]
    optimizer.apply(gradients, weights)
    values = momentum.read(optimizer, weights)
    assert [float(value[0]) for value in values] == [1.0, 3.0]


def test_frozen_weight_of_the_same_name_is_an_error():
    """It is not known whose momentum is whose."""
    layers = keras.layers
    inputs, towers = keras.Input((8,)), []
    for _ in range(2):
        own = keras.Input((8,))
        towers.append(keras.Model(own, layers.Dense(4, name="same")(own)))
    first, second = (tower.weights[0].path for tower in towers)
    assert first == second
    merged = layers.concatenate([tower(inputs) for tower in towers])
    outputs = layers.Dense(3, activation="softmax")(merged)
    model = compile_model(make(keras.Model(inputs, outputs)))
    fit(model, *dense_data(16))
    towers[0].trainable = False
    with pytest.raises(ValueError, match="weights with names of their own"):
        fit(model, *dense_data(16))


def test_minus_the_momentum_lowers_the_loss_of_a_quadratic():
    """Plus the momentum is the failure: it keeps the weights up the walls."""
    curvatures = np.geomspace(0.01, 1, 20)

    def loss_after(num_steps, sign, rho=0.3, learning_rate=0.2):
        theta, velocity = np.ones(20), np.zeros(20)
        for _ in range(num_steps):
            norm = np.linalg.norm(velocity) or 1.0
            gradient = curvatures * (theta + sign * rho * velocity / norm)
            velocity = 0.9 * velocity - learning_rate * gradient
            theta = theta + velocity
        return np.sum(curvatures * theta**2) / 2

    network = keras.Sequential(
        [keras.Input((20,)), keras.layers.Dense(1, use_bias=False)]
    )
    network.layers[0].kernel.assign(np.ones((20, 1)))
    model = make(network, rho=0.3)
    # Half the mean of the squares is `sum(curvatures * theta**2) / 2`.
    x = np.diag(np.sqrt(20 * curvatures)).astype("float32")
    model.compile(
        optimizers.SGD(0.2, momentum=0.9),
        lambda y, y_pred: keras.ops.square(y_pred - y) / 2,
        run_eagerly=True,
    )
    y = np.zeros((20, 1), "float32")
    fit(model, x, y, batch_size=20, epochs=40)
    theta = network.get_weights()[0][:, 0].astype("float64")
    loss = np.sum(curvatures * theta**2) / 2
    assert loss == pytest.approx(loss_after(40, sign=1), rel=1e-3)
    assert loss < 0.01 * loss_after(40, sign=-1)


def test_selected_half_has_the_largest_losses_and_metrics_are_of_all():
    """The first step, at eps = 0, is one of SDS by loss with the same seed."""
    x, y = dense_data(16)
    results = []
    for kwargs in ({"ascent": "momentum"}, {"rho": 1e-12}):
        model = esam(
            dense_network(dropout=False),
            seed=1,
            rank_by="loss",
            beta=1,
            **kwargs,
        )
        logs = fit(compile_model(model), x, y).history
        results.append((model.get_weights(), logs))
    for a, b in zip(results[0][0], results[1][0], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    for key, values in results[1][1].items():
        assert results[0][1][key] == pytest.approx(values)


def test_sharpness_ranking_has_nothing_to_compare():
    message = '`ascent="momentum"` runs no pass .* Received: gamma=0.5'
    with pytest.raises(ValueError, match=message):
        make(dense_network(), gamma=0.5)
    for has_trained in (False, True):
        model = compile_model(make(dense_network()))
        if has_trained:
            fit(model, *dense_data(16))
        model.gamma = 0.5
        with pytest.raises(ValueError, match=message):
            fit(model, *dense_data(16))
    # What counts is what `fit` finds, in whatever order it was set.
    model.ascent = "current"
    fit(model, *dense_data(16))
    model.ascent = "momentum"
    model.gamma = 1
    fit(model, *dense_data(16))
