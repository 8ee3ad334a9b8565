"""Crops, flips and order of the images that lie on the device, by NumPy."""

import numpy as np

from benchmarks.device_images import PADDING
from benchmarks.device_images import AugmentedImages
from benchmarks.device_images import IndexBatches
from benchmarks.device_images import SetEpoch

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 6, 5, 3)).astype("uint8")
MEAN, DEVIATION = (100.0, 110.0, 120.0), (50.0, 60.0, 70.0)


def test_crops_and_flips_equal_those_of_numpy():
    layer = AugmentedImages(IMAGES, MEAN, DEVIATION)
    samples = np.stack(
        [
            RNG.integers(0, 12, 40),
            *RNG.integers(0, 2 * PADDING + 1, (2, 40)),
            RNG.integers(0, 2, 40),
        ],
        axis=1,
    ).astype("int32")
    result = np.asarray(layer(samples))
    for image, (index, row, column, flip) in zip(result, samples, strict=True):
        padded = np.zeros((6 + 2 * PADDING, 5 + 2 * PADDING, 3))
        padded[PADDING:-PADDING, PADDING:-PADDING] = IMAGES[index]
        expected = padded[row : row + 6, column : column + 5]
        if flip:
            expected = expected[:, ::-1]
        expected = (expected - MEAN) / DEVIATION
        np.testing.assert_allclose(image, expected, atol=1e-5)


def test_batches_of_evaluation_are_the_images_in_order():
    batches = IndexBatches(np.arange(7) % 3, batch_size=4, offset=5)
    assert len(batches) == 2
    x, y = (np.concatenate(part) for part in zip(*batches, strict=True))
    np.testing.assert_array_equal(y, np.arange(7) % 3)
    layer = AugmentedImages(IMAGES, (0, 0, 0), (1, 1, 1))
    np.testing.assert_array_equal(np.asarray(layer(x)), IMAGES[5:])


def test_epochs_have_an_order_of_their_own_and_always_the_same():
    labels = np.arange(20)
    batches = IndexBatches(labels, batch_size=20, seed=1)
    first, y = batches[0]
    np.testing.assert_array_equal(first[:, 0], y)
    assert sorted(y) == labels.tolist()
    batches.set_epoch(1)
    assert not np.array_equal(batches[0][0], first)
    batches.set_epoch(0)
    np.testing.assert_array_equal(batches[0][0], first)


def test_callback_sets_the_epoch():
    batches = IndexBatches(np.arange(20), batch_size=20, seed=1)
    batches.set_epoch(3)
    expected = batches[0][0]
    batches.set_epoch(0)
    SetEpoch(batches).on_epoch_begin(3)
    np.testing.assert_array_equal(batches[0][0], expected)
