import keras
import numpy as np
import pytest

from keras_esam import ascent
from tests.networks import esam

ONES = np.ones(2, "float32")
# Gradients, weights, other arguments of `ascent_step`, norm and perturbation.
BY_HAND = {
    "sam": ([[3.0, 0.0], [4.0, 0.0]], [ONES] * 2, {}, 5, [[0.6, 0], [0.8, 0]]),
    # N^2 = 9 / 0.25 + 16 / 0.5 = 68
    "horvitz_thompson": (
        [[3.0], [4.0]],
        [ONES[:1]] * 2,
        {"probabilities": [0.25, 0.5]},
        68**0.5,
        [[12 / 68**0.5], [8 / 68**0.5]],
    ),
    "authors": (
        [[3.0, 4.0]],
        [ONES],
        {"probabilities": [0.5], "scale": "authors"},
        5,
        [[1.2, 1.6]],
    ),
    # The norm of the whole gradient, or of what is perturbed.
    "masked": (
        [[3.0, 4.0]],
        [ONES],
        {"probabilities": [0.5], "masks": [np.array([True, False])]},
        5,
        [[1.2, 0]],
    ),
    "masked_authors": (
        [[3.0, 4.0]],
        [ONES],
        {
            "probabilities": [0.5],
            "masks": [np.array([True, False])],
            "scale": "authors",
        },
        3,
        [[2, 0]],
    ),
    # |w| g = (6, 8), w^2 g = (12, 16)
    "asam": (
        [[3.0, 4.0]],
        [np.array([-2.0, 2.0], "float32")],
        {"adaptive": True},
        10,
        [[1.2, 1.6]],
    ),
    "zero": ([[0.0, 0.0]], [ONES], {}, 0, [[0, 0]]),
    "zero_asam": ([[0.0, 0.0]], [ONES], {"adaptive": True}, 0, [[0, 0]]),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_perturbation_computed_by_hand(name):
    gradients, weights, options, norm, expected = BY_HAND[name]
    options = {"probabilities": [1.0] * len(gradients), **options}
    eps, result = ascent.ascent_step(
        [np.array(g) for g in gradients], to_tensors(weights), 0.1, **options
    )
    np.testing.assert_allclose(result, norm, rtol=1e-6)
    for own, other in zip(eps, expected, strict=True):
        np.testing.assert_allclose(own, 0.1 * np.array(other), rtol=1e-6)


def test_horvitz_thompson_is_unbiased_over_a_balanced_pool():
    rng = np.random.default_rng(0)
    gradients = [rng.normal(size=5) for _ in range(4)]
    subsets = [(0, 1), (2, 3), (0, 2), (1, 3)]
    squares = []
    total = [np.zeros(5) for _ in range(4)]
    for subset in subsets:
        eps, norm = ascent.ascent_step(
            [gradients[i] for i in subset],
            to_tensors([np.ones(5, "float32")] * 2),
            1.0,
            [0.5, 0.5],
        )
        squares.append(float(norm) ** 2)
        for i, e in zip(subset, eps, strict=True):
            total[i] += np.asarray(e) * float(norm) / len(subsets)
    expected = sum((g**2).sum() for g in gradients)
    np.testing.assert_allclose(np.mean(squares), expected, rtol=1e-5)
    for mean, g in zip(total, gradients, strict=True):
        np.testing.assert_allclose(mean, g, rtol=1e-5)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_gradient_that_is_not_finite_shows_in_the_norm(value):
    _, norm = ascent.ascent_step(
        [np.array([value, 1.0]), np.ones(2)],
        to_tensors([np.ones(2, "float32")] * 2),
        0.1,
        [1.0, 1.0],
    )
    assert not np.isfinite(float(norm))


def test_variables_without_gradient_are_not_perturbed():
    weights = to_tensors([np.ones(1, "float32")] * 2)
    eps, norm = ascent.ascent_step(
        [None, np.array([2.0])], weights, 0.1, [1.0, 1.0]
    )
    assert eps[0] is None
    np.testing.assert_allclose(eps[1], [0.1], rtol=1e-6)
    eps, norm = ascent.ascent_step([None, None], weights, 0.1, [1.0, 1.0])
    assert eps == [None, None] and float(norm) == 0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_norm_does_not_overflow(dtype):
    # In float16 the sum of squares, 4e6, is already infinite.
    gradient = keras.ops.full((400,), 100.0, dtype=dtype)
    weight = keras.ops.ones((400,), dtype=dtype)
    eps, norm = ascent.ascent_step([gradient], [weight], 0.5, [1.0])
    np.testing.assert_allclose(float(norm), 2000.0, rtol=1e-6)
    assert keras.backend.standardize_dtype(eps[0].dtype) == dtype


def test_float64_keeps_its_precision(float64):
    gradient = np.array([1.0, 1e-9])
    weight = keras.ops.convert_to_tensor(np.ones(2), dtype="float64")
    eps, _ = ascent.ascent_step([gradient], [weight], 1.0, [1.0])
    np.testing.assert_allclose(
        eps[0], gradient / np.linalg.norm(gradient), rtol=1e-15
    )


def test_bernoulli_masks_have_the_probability_and_change_every_step():
    generator = keras.random.SeedGenerator(1)
    first, second = ascent.bernoulli_masks(
        [(200, 100), (200, 100)], 0.6, generator
    )
    again, _ = ascent.bernoulli_masks([(200, 100), (3,)], 0.6, generator)
    for mask in (first, second, again):
        # Standard deviation of the mean of 20,000 draws: 0.0035.
        np.testing.assert_allclose(np.mean(np.asarray(mask)), 0.6, atol=0.015)
    for other in (second, again):
        agreement = np.mean(np.asarray(first) == np.asarray(other))
        np.testing.assert_allclose(agreement, 0.6**2 + 0.4**2, atol=0.015)


def test_rule_of_ones_own_is_one_entry(monkeypatch):
    """Along the signs of the gradient: two steps of least squares by hand."""
    rule = ascent.Ascent(
        lambda current, momentum: [keras.ops.sign(g) for g in current]
    )
    monkeypatch.setitem(ascent.ASCENTS, "sign", rule)
    network = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(1, use_bias=False)]
    )
    w = np.array([[2.0], [-1.0]])
    network.set_weights([w])
    model = esam(network, rho=0.5, beta=1, gamma=1, ascent="sign")
    model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    x, y = np.array([[1.0, 3.0], [0.0, 1.0]]), np.zeros((2, 1))
    model.fit(x, y, batch_size=2, epochs=2, verbose=0)
    for _ in range(2):
        signs = np.sign(x.T @ x @ w)
        w = w - 0.1 * (x.T @ x @ (w + 0.5 * signs / np.sqrt(2)))
    np.testing.assert_allclose(network.get_weights()[0], w, rtol=1e-5)
    assert model.get_config()["ascent"] == "sign"


def to_tensors(arrays):
    return [keras.ops.convert_to_tensor(array) for array in arrays]
