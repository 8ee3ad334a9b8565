"""Against loops over the images in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from keras_esam.data import augmentation

HEIGHT, WIDTH = 12, 10


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return rng.integers(1, 256, (40, HEIGHT, WIDTH, 3)).astype("uint8")


def test_crop_and_flip_equal_a_loop(images):
    rows, columns, flips = augmentation.draw_crops(len(images), (1, 2))
    result = augmentation.crop_and_flip(images, rows, columns, flips)
    for i, image in enumerate(images):
        padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
        row, column = int(rows[i]), int(columns[i])
        expected = padded[row : row + HEIGHT, column : column + WIDTH]
        if flips[i]:
            expected = expected[:, ::-1]
        np.testing.assert_array_equal(result[i], expected)
    assert result.dtype == tf.uint8


def test_all_crops_are_drawn_equally_often():
    rows, columns, flips = augmentation.draw_crops(9000, (1, 2))
    for corners in (rows, columns):
        counts = np.bincount(corners)
        assert len(counts) == 9
        # Five standard deviations of a binomial.
        assert np.all(np.abs(counts - 1000) < 150)
    assert abs(np.mean(flips) - 0.5) < 0.03
    assert abs(np.corrcoef(rows, columns)[0, 1]) < 0.05
    assert abs(np.corrcoef(rows, flips)[0, 1]) < 0.05


@pytest.mark.parametrize("size", [1, 5, 6, 30])
def test_cutout_equals_a_loop(images, size):
    x = images.astype("float32")
    tops, lefts = augmentation.draw_cutouts(
        len(x), (HEIGHT, WIDTH), size, (3, 4)
    )
    result = augmentation.cut_out(x, tops, lefts, size)
    expected = x.copy()
    for image, top, left in zip(expected, tops, lefts, strict=True):
        for row in range(int(top), int(top) + size):
            for column in range(int(left), int(left) + size):
                if 0 <= row < HEIGHT and 0 <= column < WIDTH:
                    image[row, column] = 0
    np.testing.assert_array_equal(result, expected)
    changed = np.any(expected != x, axis=(1, 2, 3))
    assert 5 < changed.sum() < 35


def test_squares_of_cutout_lie_in_half_of_the_images():
    size = 16
    tops, lefts = augmentation.draw_cutouts(6400, (32, 32), size, (3, 4))
    tops, lefts = np.array(tops), np.array(lefts)
    is_cut = tops < 32
    assert abs(is_cut.mean() - 0.5) < 0.03
    # From half outside on one side to half outside on the other.
    for first in (tops[is_cut], lefts):
        counts = np.bincount(first + 8)
        assert first.min() == -8 and first.max() == 23
        share = len(first) / 32
        assert np.all(np.abs(counts - share) < 5 * np.sqrt(share))
