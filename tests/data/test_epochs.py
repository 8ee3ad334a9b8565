"""The order is a function of (seed, epoch)."""

import gc

import numpy as np
import pytest
import tensorflow as tf

from keras_esam.data import epochs


def indices_of(dataset):
    return np.array([index for index, _ in dataset.as_numpy_iterator()])


def epoch_of(seed, epoch):
    variable = epochs.make_epoch_variable(epoch)
    return indices_of(epochs.shuffled(50, seed, variable))


def test_every_sample_once():
    np.testing.assert_array_equal(np.sort(epoch_of(0, 0)), np.arange(50))


def test_seed_and_epoch_tell_the_order():
    orders = {
        (seed, epoch): tuple(epoch_of(seed, epoch))
        for seed in (0, 2**31 - 1)
        for epoch in (0, 1)
    }
    assert len(set(orders.values())) == len(orders)
    for (seed, epoch), order in orders.items():
        assert tuple(epoch_of(seed, epoch)) == order


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8"])
def test_variable_is_read_when_an_iterator_starts(dtype):
    epoch = tf.Variable(7, dtype=dtype)
    dataset = epochs.shuffled(50, 3, epoch)
    np.testing.assert_array_equal(indices_of(dataset), epoch_of(3, 7))
    epoch.assign(2)
    iterator = iter(dataset)
    first = int(next(iterator)[0])
    epoch.assign(5)  # too late for this iterator
    rest = [int(index) for index, _ in iterator]
    np.testing.assert_array_equal([first, *rest], epoch_of(3, 2))


def test_iterators_count_without_a_variable():
    dataset = epochs.shuffled(50, 3, None)
    for epoch in range(3):
        gc.collect()  # nothing but the data set holds the counter
        np.testing.assert_array_equal(indices_of(dataset), epoch_of(3, epoch))
    repeated = indices_of(epochs.shuffled(50, 3, None).repeat(2))
    np.testing.assert_array_equal(
        repeated, np.concatenate([epoch_of(3, 0), epoch_of(3, 1)])
    )


def test_batches_are_the_order_without_the_rest():
    dataset = epochs.shuffled(50, 3, None, batch_size=8)
    assert dataset.cardinality() == 6
    assert dataset.element_spec[0].shape == (8,)
    order = epoch_of(3, 0)
    np.testing.assert_array_equal(indices_of(dataset).ravel(), order[:48])


def test_seeds_of_elements_differ_within_and_between_epochs():
    dataset = epochs.shuffled(50, 3, None)
    seeds = [
        tuple(seed) for _ in range(3) for _, seed in dataset.as_numpy_iterator()
    ]
    assert len(set(seeds)) == 150


def test_options():
    options = epochs.finish(tf.data.Dataset.range(3)).options()
    assert options.autotune.enabled is False
    assert options.deterministic is True
