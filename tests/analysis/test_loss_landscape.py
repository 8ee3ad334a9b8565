"""Round bowls, whose landscape does not depend on the directions."""

import keras
import numpy as np
import pytest

from keras_esam import analysis
from keras_esam.analysis import directions
from tests.analysis import RTOL
from tests.networks import compile_model
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import fit

layers = keras.layers


def bowl(num_outputs=1):
    """Model, data and kernel; at a step `d` of all weights from these, the loss
    is `1 + ||d||^2 / num_outputs`.

    The inputs, and the ones of the bias, are orthogonal and equally long; the
    targets are the predictions and something orthogonal to all of them.
    """
    rng = np.random.default_rng(0)
    samples = np.append(np.ones((8, 1)), rng.normal(size=(8, 7)), axis=1)
    samples = np.sqrt(8) * np.linalg.qr(samples)[0]
    x, rest = samples[:, 1:5], samples[:, 5:6]
    model = keras.Sequential([keras.Input((4,)), layers.Dense(num_outputs)])
    kernel = rng.normal(size=(4, num_outputs))
    model.set_weights([kernel, rng.normal(size=num_outputs)])
    model.compile("sgd", "mse")
    return model, (x, keras.ops.convert_to_numpy(model(x)) + rest), kernel


def squared_distance(coordinates):
    return coordinates[:, None] ** 2 + coordinates[None] ** 2


def test_filter_normalised_bowl_in_closed_form(float64):
    model, data, kernel = bowl(num_outputs=2)
    result = analysis.loss_landscape(
        model, data, num_points=5, radius=0.8, num_draws=3
    )
    np.testing.assert_allclose(result.coordinates, [-0.8, -0.4, 0, 0.4, 0.8])
    rise = np.sum(kernel**2) / 2
    expected = 1 + rise * squared_distance(result.coordinates)
    assert result.losses.shape == (3, 5, 5)
    for losses in result.losses:
        np.testing.assert_allclose(losses, expected, rtol=RTOL)


def test_bowl_over_l2_distance_in_closed_form(float64):
    model, data, _ = bowl()
    result = analysis.loss_landscape(
        model, data, num_points=4, radius=2, filter_normalise=False
    )
    expected = 1 + squared_distance(result.coordinates)
    np.testing.assert_allclose(result.losses[0], expected, rtol=RTOL)


def test_axes_are_those_of_the_directions(float64):
    """With a gradient, the losses along them are not symmetric."""
    model = compile_model(dense_network(), jit_compile=False)
    data = dense_data()
    result = analysis.loss_landscape(model, data, num_points=3, radius=0.1)
    weights = model.get_weights()
    arrays = [v.numpy() for v in model.trainable_variables]
    first, second = directions.filter_normalised_pair(
        arrays, directions.filter_axes(model), np.random.default_rng([0, 0])
    )
    for i, j in np.ndindex(3, 3):
        for variable, array, a, b in zip(
            model.trainable_variables, arrays, first, second, strict=True
        ):
            variable.assign(array + 0.1 * (i - 1) * a + 0.1 * (j - 1) * b)
        loss = model.evaluate(*data, verbose=0)[0]
        np.testing.assert_allclose(result.losses[0, i, j], loss, rtol=RTOL)
    model.set_weights(weights)


def test_progress_bar_counts_the_rows_of_all_draws(capsys):
    model, data, _ = bowl()
    analysis.loss_landscape(model, data, num_points=3, num_draws=2)
    assert capsys.readouterr().out == ""
    analysis.loss_landscape(model, data, num_points=3, num_draws=2, verbose=1)
    assert "6/6" in capsys.readouterr().out


def test_mean_over_the_draws_and_seeds():
    model = compile_model(dense_network())

    def landscape(**kwargs):
        return analysis.loss_landscape(
            model, dense_data(), num_points=3, **kwargs
        )

    result = landscape(num_draws=2)
    first, second = result.losses
    assert (first != second).any()
    np.testing.assert_allclose(
        result.mean_losses, (first + second) / 2, rtol=1e-12
    )
    np.testing.assert_array_equal(landscape().losses[0], first)
    assert (landscape(seed=1).losses[0] != first).any()


def many_layers():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(x)
    x = layers.SeparableConv2D(5, 2, name="separable")(x)
    x = layers.Conv2DTranspose(6, 2, name="transpose")(x)
    x = layers.Flatten()(x)
    tokens = keras.Input((6,), dtype="int32")
    z = layers.Embedding(10, 4, name="embedding")(tokens)
    z = layers.MultiHeadAttention(2, 3, name="attention")(z, z)
    x = layers.Concatenate()([x, layers.GRU(3, name="gru")(z)])
    return keras.Model([inputs, tokens], layers.Dense(3, name="dense")(x))


# Of each kernel the axes within a filter; all else stays as it is.
WITHIN_FILTERS = {
    "conv/kernel": (0, 1, 2),
    "depthwise/kernel": (0, 1),
    "separable/depthwise_kernel": (0, 1),
    "separable/pointwise_kernel": (0, 1, 2),
    "transpose/kernel": (0, 1, 3),
    "embedding/embeddings": (1,),
    "attention/query/kernel": (0,),
    "attention/key/kernel": (0,),
    "attention/value/kernel": (0,),
    "attention/attention_output/kernel": (0, 1),
    "gru/gru_cell/kernel": (0,),
    "gru/gru_cell/recurrent_kernel": (0,),
    "dense/kernel": (0,),
}


def test_filters_have_the_norms_of_the_weights_and_are_orthogonal():
    model = many_layers()
    rng = np.random.default_rng(1)
    # Offsets too, which are zero in a new network.
    weights = [rng.normal(size=v.shape) for v in model.trainable_variables]
    pair = directions.filter_normalised_pair(
        weights, directions.filter_axes(model), np.random.default_rng(0)
    )
    seen = set()
    for variable, weight, first, second in zip(
        model.trainable_variables, weights, *pair, strict=True
    ):
        axes = WITHIN_FILTERS.get(variable.path)
        if axes is None:
            assert not first.any() and not second.any()
            assert len(weight.shape) == 1 or "bias" in variable.path
            continue
        seen.add(variable.path)
        for direction in (first, second):
            np.testing.assert_allclose(
                np.sum(direction**2, axes), np.sum(weight**2, axes), rtol=1e-5
            )
        np.testing.assert_allclose(np.sum(first * second, axes), 0, atol=1e-6)
    assert seen == set(WITHIN_FILTERS)


def test_unit_directions_are_gaussian_orthogonal_and_of_length_one():
    shapes = [(50, 40), (40,), ()]
    first, second = directions.unit_pair(shapes, np.random.default_rng(0))
    assert [a.shape for a in first] == [a.shape for a in second] == shapes
    flat = [np.concatenate([a.ravel() for a in d]) for d in (first, second)]
    np.testing.assert_allclose(np.inner(flat, flat), np.eye(2), atol=1e-12)
    # A normal distribution has a kurtosis of 3.
    for values in flat:
        values = values / values.std()
        assert abs(values.mean()) < 0.1
        assert abs(np.mean(values**4) - 3) < 0.5


def test_trained_batch_statistics_are_used():
    """At the weights themselves it is what `evaluate` reports."""
    model = compile_model(dense_network())
    fit(model, *dense_data(), epochs=2)
    losses = analysis.loss_landscape(model, dense_data(), num_points=3).losses
    expected = model.evaluate(*dense_data(), verbose=0)[0]
    np.testing.assert_allclose(losses[0, 1, 1], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_points": 1}, ValueError, "at least 2. Received: num_points=1"),
        ({"num_draws": 0}, ValueError, "at least 1. Received: num_draws=0"),
        ({"num_draws": 1.5}, TypeError, "Received: num_draws=1.5"),
        ({"radius": 0}, ValueError, "positive.* Received: radius=0"),
        ({"filter_normalise": 1}, TypeError, "Received: filter_normalise=1"),
        ({"seed": "a"}, TypeError, "Received: seed='a'"),
    ],
    ids=str,
)
def test_bad_arguments(arguments, error, message):
    model = compile_model(dense_network())
    with pytest.raises(error, match=message):
        analysis.loss_landscape(model, dense_data(), **arguments)
