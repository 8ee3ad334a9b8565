import keras
import numpy as np
import pytest

from keras_esam import subsets
from tests.networks import esam


def draw_pool(num_variables, beta, seed):
    order = tuple(range(num_variables))
    return subsets.make_pool("variable", order, beta, seed)


def depth_pool(num_variables, beta):
    return subsets.make_pool("depth", tuple(range(num_variables)), beta, 0)


BETAS = [0.03, 0.1, 0.3, 1 / 3, 0.37, 0.5, 0.6, 2 / 3, 0.7, 0.9, 0.99, 1.0]


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("num_variables", [1, 2, 3, 7, 62])
def test_every_variable_is_in_the_stated_fraction_of_the_subsets(
    beta, num_variables
):
    pool = draw_pool(num_variables, beta, seed=1)
    counts = np.zeros(num_variables)
    for subset in pool.subsets:
        assert list(subset) == sorted(set(subset))
        counts[list(subset)] += 1
    np.testing.assert_allclose(
        counts / len(pool.subsets), pool.probabilities, atol=1e-12
    )
    assert min(pool.probabilities) > 0


@pytest.mark.parametrize("beta", BETAS)
def test_inclusion_probability_is_beta(beta):
    pool = draw_pool(62, beta, seed=1)
    size = len(pool.subsets)
    np.testing.assert_allclose(
        np.mean(pool.probabilities), beta, atol=1 / (62 * size) + 1e-9
    )
    np.testing.assert_allclose(pool.probabilities, beta, atol=1 / size)


@pytest.mark.parametrize(
    ("beta", "size"), [(0.6, 5), (0.5, 4), (0.7, 10), (2 / 3, 6), (1.0, 1)]
)
def test_pool_size_makes_the_inclusion_probability_exact(beta, size):
    pool = draw_pool(62, beta, seed=1)
    assert len(pool.subsets) == size
    np.testing.assert_allclose(pool.probabilities, beta, atol=1e-12)


@pytest.mark.parametrize(
    ("beta", "size"), [(1.0, 1), (0.6, 3), (0.5, 3), (0.4, 5), (0.1, 10)]
)
def test_pool_by_depth_is_small_and_leaves_no_variable_out(beta, size):
    pool = depth_pool(62, beta)
    assert len(pool.subsets) == size
    assert min(pool.probabilities) > 0


def test_subsets_have_equal_sizes():
    for seed in range(20):
        pool = draw_pool(62, 0.6, seed)
        sizes = [len(subset) for subset in pool.subsets]
        assert max(sizes) - min(sizes) <= 1


def test_subsets_are_drawn_at_random():
    pools = {draw_pool(62, 0.6, seed).subsets for seed in range(20)}
    assert len(pools) == 20
    # A variable is with each other one in about beta^2 of the subsets.
    together = np.zeros((8, 8))
    for seed in range(400):
        pool = draw_pool(8, 0.5, seed)
        for subset in pool.subsets:
            together[np.ix_(subset, subset)] += 1 / len(pool.subsets) / 400
    pairs = together[~np.eye(8, dtype=bool)]
    np.testing.assert_allclose(pairs, pairs.mean(), atol=0.05)


def test_each_round_has_every_subset_once_in_a_fresh_order():
    order = [subsets.subset_at(step, 5, seed=3) for step in range(500)]
    rounds = [tuple(order[i : i + 5]) for i in range(0, 500, 5)]
    assert all(sorted(turn) == [0, 1, 2, 3, 4] for turn in rounds)
    assert len(set(rounds)) > 50
    assert [turn[0] for turn in rounds].count(0) < 40


def test_order_is_a_function_of_the_seed_and_the_step():
    first = [subsets.subset_at(step, 5, seed=3) for step in range(100)]
    subsets._permutation.cache_clear()
    again = [subsets.subset_at(step, 5, seed=3) for step in range(50, 100)]
    assert first[50:] == again
    other = [subsets.subset_at(step, 5, seed=4) for step in range(100)]
    assert first != other


def test_pool_is_a_function_of_the_seed():
    assert draw_pool(20, 0.6, 7) == draw_pool(20, 0.6, 7)
    assert draw_pool(20, 0.6, 7) != draw_pool(20, 0.6, 8)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("num_variables", [1, 2, 7, 62])
def test_depth_subsets_reach_to_the_output_and_one_is_everything(
    beta, num_variables
):
    pool = depth_pool(num_variables, beta)
    counts = np.zeros(num_variables)
    for subset in pool.subsets:
        assert subset == tuple(range(subset[0], num_variables))
        counts[list(subset)] += 1
    np.testing.assert_allclose(
        counts / len(pool.subsets), pool.probabilities, atol=1e-12
    )
    assert len(max(pool.subsets)) >= 1
    assert pool.subsets[-1] == tuple(range(num_variables))


@pytest.mark.parametrize("beta", BETAS)
def test_depth_subsets_have_the_mean_size_beta(beta):
    num_variables = 1000
    pool = depth_pool(num_variables, beta)
    mean = np.mean([len(subset) for subset in pool.subsets])
    # A subset that should be empty has one variable.
    np.testing.assert_allclose(mean / num_variables, beta, atol=1e-3)
    np.testing.assert_allclose(np.mean(pool.probabilities), beta, atol=1e-3)


def test_depth_subsets_by_hand():
    sizes = [len(s) for s in depth_pool(10, 0.6).subsets]
    assert sizes == [2, 6, 10]
    probabilities = depth_pool(10, 0.6).probabilities
    thirds = [1] * 4 + [2] * 4 + [3] * 2
    np.testing.assert_allclose(probabilities, np.array(thirds) / 3)
    # Four from 0 to 0.5, which mean 0.25, and the whole.
    sizes = [len(s) for s in depth_pool(60, 0.4).subsets]
    assert sizes == [1, 10, 20, 30, 60]


def test_beta_1_has_one_subset_at_every_granularity():
    for granularity in subsets.GRANULARITIES:
        pool = subsets.make_pool(granularity, (0, 1, 2, 3), 1.0, seed=1)
        assert pool.subsets == ((0, 1, 2, 3),)
        assert pool.probabilities == (1.0,) * 4


def test_depth_subsets_follow_the_given_order():
    order = (3, 0, 1, 4, 2)
    pool = subsets.make_pool("depth", order, 0.6, seed=1)
    by_place = depth_pool(5, 0.6)
    for subset, places in zip(pool.subsets, by_place.subsets, strict=True):
        assert set(subset) == {order[place] for place in places}
        assert list(subset) == sorted(subset)
    for place, variable in enumerate(order):
        assert pool.probabilities[variable] == by_place.probabilities[place]


@pytest.mark.parametrize("beta", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("granularity", subsets.GRANULARITIES)
def test_variables_out_of_the_order_are_in_no_subset(granularity, beta):
    """The others have the pool that they have in a network of their own."""
    places = {0: 1, 1: 2, 2: 4, 3: 7}
    order = (3, 0, 1, 2)
    alone = subsets.make_pool(granularity, order, beta, seed=1)
    pool = subsets.make_pool(
        granularity, tuple(places[i] for i in order), beta, 1, num_variables=9
    )
    assert pool.subsets == tuple(
        tuple(places[i] for i in subset) for subset in alone.subsets
    )
    expected = np.zeros(9)
    expected[list(places.values())] = alone.probabilities
    np.testing.assert_array_equal(pool.probabilities, expected)


@pytest.mark.parametrize("granularity", subsets.GRANULARITIES)
def test_subsets_of_no_variables_are_empty(granularity):
    pool = subsets.make_pool(granularity, (), 0.5, 1, num_variables=3)
    assert set(pool.subsets) == {()}
    assert pool.probabilities == (0.0,) * 3


@pytest.mark.parametrize("granularity", ["depth", "variable"])
def test_preferred_size_of_the_pool(granularity):
    order = tuple(range(12))
    pool = subsets.make_pool(granularity, order, 0.75, 1, preferred_size=3)
    assert len(pool.subsets) == {"depth": 3, "variable": 4}[granularity]
    assert np.mean(pool.probabilities) == pytest.approx(0.75)


def test_granularity_of_ones_own_is_one_entry(monkeypatch):
    """Every second variable or the others: two steps of SGD by hand."""

    def halves(num_variables, beta, size, seed):
        parts = [tuple(range(i, num_variables, 2)) for i in range(size)]
        return subsets.SubsetPool(tuple(parts), (beta,) * num_variables)

    monkeypatch.setitem(
        subsets.GRANULARITIES,
        "halves",
        subsets.Granularity(halves, lambda beta, preferred: 2),
    )
    network = keras.Sequential(
        [
            keras.Input((1,)),
            keras.layers.Dense(1, use_bias=False),
            keras.layers.Dense(1, use_bias=False),
        ]
    )
    network.set_weights([np.full((1, 1), 2.0), np.full((1, 1), 3.0)])
    model = esam(
        network, rho=0.1, beta=0.5, gamma=1, granularity="halves", seed=2
    )
    model.compile(keras.optimizers.SGD(0.01), "mse", run_eagerly=True)
    expected = np.array([2.0, 3.0])
    for _ in range(2):
        (index,) = model.upcoming_step.subset
        # The loss is (w0 w1)^2 at x = 1 and y = 0. Of one variable, the
        # normalised gradient is its sign, and the estimate of the norm has a
        # root of the probability where the perturbation has the probability.
        perturbed = expected.copy()
        perturbed[index] += 0.1 / np.sqrt(0.5)
        expected = expected - 0.01 * 2 * perturbed.prod() * perturbed[::-1]
        model.fit(np.ones((4, 1)), np.zeros((4, 1)), batch_size=4, verbose=0)
    weights = np.ravel(network.get_weights())
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
