import numpy as np
import pytest
import tensorflow as tf

from keras_esam import data
from keras_esam.data import augmentation
from keras_esam.data.cifar import STATISTICS
from keras_esam.data.cifar import standardised
from tests.data.files import arrays_of
from tests.data.files import write_cifar
from tests.networks import assert_different
from tests.networks import assert_identical


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    return folder, write_cifar(folder)


def load(written, split="train", batch_size=8, name="cifar10", **kwargs):
    return data.cifar(name, split, batch_size, data_dir=written[0], **kwargs)


def numbers_of(images):
    """The numbers of the images, which the middle pixels show."""
    mean, deviation = STATISTICS["cifar10"]
    red = images[:, 16, 16, 0] * deviation[0] + mean[0]
    np.testing.assert_allclose(red, np.round(red), atol=1e-3)
    return np.round(red).astype(int)


def test_batches_have_static_shapes_and_known_length(written):
    train = load(written)
    assert train.cardinality() == 7  # 60 images, the rest is left out
    assert train.element_spec == (
        tf.TensorSpec((8, 32, 32, 3), "float32"),
        tf.TensorSpec((8,), "int32"),
    )
    test = load(written, "test")
    assert test.cardinality() == 3
    sizes = [len(labels) for _, labels in test]
    assert sizes == [8, 8, 4]


def test_training_images_are_as_they_are_without_augmentation(written):
    train = load(written, batch_size=6, augment=False)
    x, y = arrays_of(train)
    order = numbers_of(x)
    assert not np.array_equal(order, np.arange(60))
    np.testing.assert_array_equal(np.sort(order), np.arange(60))
    mean, deviation = STATISTICS["cifar10"]
    expected = (written[1]["train"].astype("float64") - mean) / deviation
    np.testing.assert_allclose(x, expected[order], atol=1e-5)
    np.testing.assert_array_equal(y, order % 10)


def test_cutout_is_part_of_the_augmentation(written):
    with pytest.raises(ValueError, match="`cutout` is part"):
        load(written, augment=False, cutout=16)
    with pytest.raises(TypeError, match="`augment` must be a boolean"):
        load(written, augment="yes")


def test_test_images_are_in_order_and_standardised(written):
    folder, images = written
    x, y = arrays_of(load(written, "test"))
    np.testing.assert_array_equal(y, np.arange(20) % 10)
    # The usual constants, of pixels from 0 to 1.
    mean = [0.4914, 0.4822, 0.4465]
    deviation = [0.2470, 0.2435, 0.2616]
    expected = (images["test"] / 255 - mean) / deviation
    np.testing.assert_allclose(x, expected, atol=1e-3)
    again, _ = arrays_of(load(written, "test", seed=5))
    np.testing.assert_array_equal(x, again)


def test_constants_of_cifar100():
    """Those of its training images from 0 to 1, as commonly used."""
    mean, deviation = STATISTICS["cifar100"]
    np.testing.assert_allclose(
        np.divide(mean, 255), [0.5071, 0.4865, 0.4409], atol=1e-4
    )
    np.testing.assert_allclose(
        np.divide(deviation, 255), [0.2673, 0.2564, 0.2762], atol=1e-4
    )


def test_same_seed_and_epoch_give_the_same_batches(written):
    def run(seed=0, epoch=3, cutout=16):
        variable = tf.Variable(epoch)
        return arrays_of(
            load(written, seed=seed, epoch=variable, cutout=cutout)
        )

    first = run()
    assert_identical(first, run())
    assert_different(first, run(seed=1))
    assert_different(first, run(epoch=4))


def test_augmentation_equals_its_parts(written):
    x = written[1]["train"]
    mean, deviation = STATISTICS["cifar10"]
    seeds = tf.unstack(tf.random.split((5, 6)))
    crops = augmentation.draw_crops(60, seeds[0])
    cropped = augmentation.crop_and_flip(x, *crops).numpy()
    expected = (cropped.astype("float32") - mean) / deviation
    squares = augmentation.draw_cutouts(60, (32, 32), 16, seeds[1])
    for image, top, left in zip(expected, *map(np.array, squares), strict=True):
        rows = slice(max(top, 0), top + 16)
        image[rows, max(left, 0) : left + 16] = 0
    result = standardised(tf.constant(x), mean, deviation, 16, (5, 6))
    np.testing.assert_allclose(result, expected, atol=1e-6)


@pytest.mark.parametrize(("split", "count"), [("train", 20), ("test", 10)])
def test_part_is_balanced_and_always_the_same(written, split, count):
    def numbers(**kwargs):
        x, y = arrays_of(load(written, split, 5, num_samples=count, **kwargs))
        np.testing.assert_array_equal(np.bincount(y), [count // 10] * 10)
        return numbers_of(x)

    first = numbers()
    assert len(set(first)) == count
    assert set(first) == set(numbers(seed=4))
    if split == "test":
        np.testing.assert_array_equal(first, np.sort(first))


def test_environment_variable_names_the_folder(written, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(written[0]))
    assert data.cifar("cifar10", "test", 20).cardinality() == 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": "cifar"}, ValueError, "`name` must be one of .*'cifar'"),
        ({"split": "val"}, ValueError, "`split` must be one of .*'val'"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be at least 1"),
        ({"batch_size": 2.0}, TypeError, "`batch_size` .*batch_size=2.0"),
        ({"batch_size": 61}, ValueError, "at most the number .* 60. Received"),
        ({"num_samples": 15}, ValueError, "multiple of 10 and at most 60"),
        ({"cutout": -1}, ValueError, "`cutout` must be .*cutout=-1"),
        ({"seed": None}, TypeError, "`seed` must be an integer"),
        ({"seed": -1}, ValueError, "`seed` must be in the range"),
        ({"epoch": 3}, TypeError, "`epoch` must be `None` or a scalar"),
        ({"epoch": tf.Variable(1.0)}, TypeError, "`epoch` must be"),
        ({"epoch": tf.Variable([1])}, TypeError, "`epoch` must be"),
    ],
)
def test_wrong_arguments(written, arguments, error, message):
    with pytest.raises(error, match=message):
        load(written, **arguments)
