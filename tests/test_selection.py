import math
from fractions import Fraction

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_esam import rows
from keras_esam import selection
from tests.backends import tensorflow_only
from tests.networks import esam


@pytest.mark.parametrize(
    ("batch_size", "gamma", "count"),
    [
        (1, 0.5, 1),
        (2, 0.5, 1),
        (3, 0.5, 2),
        (7, 0.5, 4),
        (128, 0.5, 64),
        (100, 0.07, 7),  # ceil(0.07 * 100) is 8 in floating point
        (10, 0.7, 7),
        (3, 1 / 3, 1),
        (5, 0.001, 1),
        (5, 1.0, 5),
    ],
)
def test_number_of_selected_samples(batch_size, gamma, count):
    assert selection.num_selected(batch_size, gamma) == count
    tensor = keras.ops.convert_to_tensor(batch_size, dtype="int32")
    assert int(selection.num_selected(tensor, gamma)) == count


def test_number_of_selected_samples_is_the_ceiling_for_every_batch_size():
    for percent in range(1, 101):
        for batch_size in range(1, 300):
            expected = max(1, math.ceil(Fraction(percent, 100) * batch_size))
            count = selection.num_selected(batch_size, percent / 100)
            assert count == expected


@pytest.mark.parametrize("batch_size", [1_000_003, 10**9])
def test_number_selected_of_a_large_batch(batch_size):
    expected = -(-batch_size * 3333 // 10_000)
    tensor = keras.ops.convert_to_tensor(batch_size, dtype="int32")
    assert int(selection.num_selected(tensor, 0.3333)) == expected
    assert selection.num_selected(batch_size, 0.3333) == expected


@pytest.mark.parametrize(
    "is_tensor", [False, pytest.param(True, marks=tensorflow_only)]
)
def test_rows_of_a_large_batch_are_spread_over_it(is_tensor):
    batch_size, count = 1_000_003, 250_002
    arguments = (batch_size, count)
    if is_tensor:
        arguments = map(keras.ops.convert_to_tensor, arguments)
    rows = keras.ops.convert_to_numpy(selection.spread(*arguments))
    distances = np.diff(rows)
    assert rows[0] == 0 and rows[-1] == batch_size - 4
    assert distances.min() == 3 and distances.max() == 4


def test_selected_samples_are_those_with_the_largest_scores():
    scores = np.array([0.1, -3.0, 5.0, 0.2, 4.0], "float32")
    indices = selection.select(keras.ops.convert_to_tensor(scores), 3)
    np.testing.assert_array_equal(indices, [2, 3, 4])


@pytest.mark.parametrize("value", [0.0, -1.0, np.inf, -np.inf, np.nan])
def test_exactly_k_are_selected_when_all_scores_are_equal(value):
    scores = keras.ops.full((7,), value)
    indices = np.asarray(selection.select(scores, 4))
    assert len(set(indices.tolist())) == 4


def test_exactly_k_are_selected_when_the_threshold_is_tied():
    scores = keras.ops.convert_to_tensor([1.0, 2.0, 2.0, 2.0, 0.0])
    indices = np.asarray(selection.select(scores, 2)).tolist()
    assert len(indices) == 2 and set(indices) <= {1, 2, 3}


@tensorflow_only
@pytest.mark.parametrize("jit_compile", [False, True])
def test_selection_with_a_batch_size_unknown_at_tracing(jit_compile):
    @tf.function(
        input_signature=[tf.TensorSpec((None,))], jit_compile=jit_compile
    )
    def select(scores):
        count = selection.num_selected(tf.shape(scores)[0], 0.5)
        return selection.select(scores, count)

    # A replica can get an empty batch.
    for size in (0, 1, 2, 3, 7):
        scores = tf.range(size, dtype="float32")
        expected = range(size - (size + 1) // 2, size)
        np.testing.assert_array_equal(select(scores), expected)


@tensorflow_only
def test_the_same_rows_are_taken_of_every_tensor():
    batch = (
        {"a": tf.range(4), "b": [tf.reshape(tf.range(8), (4, 2)), None]},
        tf.constant([b"w", b"x", b"y", b"z"]),
        None,
    )
    x, y, weight = rows.take(batch, tf.constant([0, 3]))
    np.testing.assert_array_equal(x["a"], [0, 3])
    np.testing.assert_array_equal(x["b"][0], [[0, 1], [6, 7]])
    assert x["b"][1] is None and weight is None
    np.testing.assert_array_equal(y, [b"w", b"z"])


def test_ranking_of_ones_own_is_one_entry(monkeypatch):
    """Of the smallest losses: one step of least squares by hand."""
    ranking = selection.Ranking(lambda losses, increase, draw: -losses)
    monkeypatch.setitem(selection.RANKINGS, "smallest", ranking)
    network = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(1, use_bias=False)]
    )
    network.set_weights([np.ones((1, 1))])
    model = esam(network, rho=0.5, beta=1, gamma=0.5, rank_by="smallest")
    model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    x = np.array([[3.0], [1.0], [4.0], [2.0]])
    history = model.fit(x, 0 * x, batch_size=4, verbose=0).history
    # The gradient is positive: the update is that at 1.5, of x = 1 and x = 2.
    expected = 1 - 0.1 * 2 * 1.5 * (1 + 4) / 2
    np.testing.assert_allclose(network.get_weights()[0], expected, rtol=1e-6)
    assert "sharpness" not in history
