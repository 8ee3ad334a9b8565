import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from keras_esam import data
from tests.data.files import arrays_of


def sorted_images(images):
    return np.array(sorted(map(tuple, images.reshape(len(images), -1))))


@pytest.mark.parametrize("count", [None, 200])
def test_training_part_is_balanced_and_the_rest_is_the_test_part(count):
    size = count or 1000
    x, y = arrays_of(data.digits("train", 100, num_samples=count))
    x_test, y_test = arrays_of(data.digits("test", 100, num_samples=count))
    np.testing.assert_array_equal(np.bincount(y), [size // 10] * 10)
    assert len(x_test) == 1797 - size
    everything = load_digits()
    np.testing.assert_array_equal(
        sorted_images(np.concatenate([x, x_test])),
        sorted_images(everything.images / 16),
    )
    assert x.min() == 0 and x.max() == 1
    counts = np.bincount(np.concatenate([y, y_test]))
    np.testing.assert_array_equal(counts, np.bincount(everything.target))


def test_shapes_and_length():
    train = data.digits("train", 64)
    assert train.element_spec == (
        tf.TensorSpec((64, 8, 8, 1), "float32"),
        tf.TensorSpec((64,), "int32"),
    )
    assert train.cardinality() == 15
    assert data.digits("test", 64).cardinality() == 13


def test_test_part_is_in_order_and_images_have_their_labels():
    everything = load_digits()
    x, y = arrays_of(data.digits("test", 100))
    originals = everything.images / 16
    numbers = [
        int(np.flatnonzero(np.all(originals == image[..., 0], (1, 2)))[0])
        for image in x
    ]
    assert numbers == sorted(numbers)
    np.testing.assert_array_equal(everything.target[numbers], y)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "val"}, "`split` must be one of"),
        ({"num_samples": 15}, "multiple of 10 and at most 1740"),
        ({"batch_size": 1001}, "at most the number of training samples, 1000"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        data.digits(**{"split": "train", "batch_size": 10, **arguments})
