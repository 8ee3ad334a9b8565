import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_esam import data
from keras_esam.data import epochs
from keras_esam.data import jpeg
from tests.data.files import arrays_of
from tests.data.files import encoded
from tests.data.files import photograph
from tests.data.files import write_imagenet
from tests.data.files import write_tree
from tests.networks import assert_different
from tests.networks import assert_identical

# Of pixels from 0 to 1, as in torchvision.
MEAN = np.array([0.485, 0.456, 0.406])
DEVIATION = np.array([0.229, 0.224, 0.225])
COUNT = 12


def grey_levels(images):
    """The one level of each image."""
    levels = (images * DEVIATION + MEAN) * 255
    assert np.ptp(levels, axis=(1, 2, 3)).max() < 2
    return np.round(levels.mean(axis=(1, 2, 3))).astype(int)


def grey(level, mode="L", kind="JPEG"):
    return encoded(
        np.full((40 + level // 10, 50, 3), level, "uint8"), mode, kind
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Training image `i` has the level `10 * i`, in each kind of file."""
    folder = tmp_path_factory.mktemp("tree")
    kinds = [("L", "JPEG"), ("RGB", "JPEG"), ("CMYK", "JPEG"), ("RGB", "PNG")]
    files = {}
    for i in range(COUNT):
        name = f"train/class{i // 6}/{i:02}.JPEG"
        files[name] = grey(10 * i, *kinds[i % 4])
    for i, (mode, kind) in enumerate(kinds):
        contents = encoded(photograph(64 + i, 80), mode, kind)
        files[f"val/class{i // 2}/{i}.JPEG"] = contents
    write_tree(folder, files)
    return {"folder": folder}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    write_imagenet(folder, COUNT)
    return {"data_dir": folder}


def test_training_images_without_augmentation_are_cropped_as_those_of_val(tree):
    folder = tree["folder"]
    x, _ = arrays_of(
        data.imagenet("train", 6, image_size=32, augment=False, **tree)
    )
    files = sorted(folder.glob("train/*/*"))
    expected = {}
    for index, file in enumerate(files):
        image = jpeg.centre_crop(tf.io.read_file(str(file)), 32) / 255
        expected[index] = (image.numpy() - MEAN) / DEVIATION
    order = grey_levels(x) / 10
    assert sorted(np.round(order)) == list(range(COUNT))
    for image, index in zip(x, np.round(order), strict=True):
        np.testing.assert_allclose(image, expected[index], atol=1e-4)


@pytest.fixture(params=["tree", "records"])
def source(request):
    return request.getfixturevalue(request.param)


def load(source, split="train", batch_size=5, **kwargs):
    kwargs = {"image_size": 28, **source, **kwargs}
    return data.imagenet(split, batch_size, **kwargs)


def test_batches_have_static_shapes_and_known_length(source):
    train = load(source)
    assert train.cardinality() == COUNT // 5 == len(list(train))
    assert train.element_spec == (
        tf.TensorSpec((5, 28, 28, 3), "float32"),
        tf.TensorSpec((5,), "int32"),
    )


def test_every_training_image_once_in_an_order_that_changes(source):
    train = load(source, batch_size=4)
    orders = []
    for _ in range(3):
        images, labels = arrays_of(train)
        order = np.round(grey_levels(images) / 10).astype(int)
        np.testing.assert_array_equal(np.sort(order), np.arange(COUNT))
        is_tree = "folder" in source
        np.testing.assert_array_equal(labels, order // 6 if is_tree else order)
        orders.append(tuple(order))
    assert len(set(orders)) == 3


def test_same_seed_and_epoch_give_the_same_batches(tree, records):
    photographs = tree["folder"].parent / "photographs"
    write_tree(
        photographs,
        {
            f"train/{i % 2}/{i}.jpg": encoded(photograph(50 + i, 70 - i))
            for i in range(8)
        },
    )

    def run(source, seed=0, epoch=3):
        variable = tf.Variable(epoch)
        return arrays_of(load(source, batch_size=4, seed=seed, epoch=variable))

    for source in ({"folder": photographs}, records):
        first = run(source)
        assert_identical(first, run(source))
        assert_different(first, run(source, seed=1))
        assert_different(first, run(source, epoch=4))


def test_number_of_threads_does_not_matter(source, monkeypatch):
    results = []
    for threads in (1, 20):
        monkeypatch.setattr(epochs, "NUM_PARALLEL", threads)
        results.append(arrays_of(load(source)))
    assert_identical(*results)


@pytest.mark.parametrize(("split", "count"), [("train", 4), ("val", 2)])
def test_part_of_a_tree_is_balanced_and_always_the_same(tree, split, count):
    def part(**kwargs):
        arguments = {"batch_size": count, "num_samples": count, **kwargs}
        images, labels = arrays_of(load(tree, split, **arguments))
        np.testing.assert_array_equal(np.bincount(labels), [count // 2] * 2)
        return images

    if split == "val":
        assert len(np.unique(part(), axis=0)) == count
        assert_identical([part()], [part(seed=4)])
        return
    levels = [sorted(grey_levels(part(seed=seed))) for seed in range(3)]
    assert len(set(levels[0])) == count
    assert levels[0] == levels[1] == levels[2]


def test_part_of_tensorflow_datasets_is_its_first_images(records):
    for seed in range(3):
        train = load(records, batch_size=4, num_samples=8, seed=seed)
        assert train.cardinality() == 2
        images, labels = arrays_of(train)
        np.testing.assert_array_equal(np.sort(labels), np.arange(8))
        np.testing.assert_allclose(grey_levels(images), 10 * labels, atol=1)
    _, labels = arrays_of(load(records, "val", num_samples=3))
    np.testing.assert_array_equal(labels, np.arange(3))
    with pytest.raises(ValueError, match="`num_samples` must be at most 12"):
        load(records, num_samples=13)


def test_validation_images_are_in_order_and_standardised(tree):
    images, labels = arrays_of(load(tree, "val", batch_size=3))
    np.testing.assert_array_equal(labels, [0, 0, 1, 1])
    for i, image in enumerate(images):
        path = tree["folder"] / f"val/class{i // 2}/{i}.JPEG"
        photo = Image.open(io.BytesIO(path.read_bytes())).convert("RGB")
        # The shorter side becomes 32.
        photo = photo.resize((80 * 32 // (64 + i), 32), Image.BILINEAR)
        left = (photo.width - 28) // 2
        pixels = np.array(photo)[2:30, left : left + 28] / 255
        expected = (pixels - MEAN) / DEVIATION
        np.testing.assert_allclose(image, expected, atol=0.1)


def test_validation_images_of_tensorflow_datasets(records):
    validation = load(records, "val", batch_size=3)
    assert validation.cardinality() == 2
    images, labels = arrays_of(validation)
    np.testing.assert_array_equal(labels, np.arange(5))
    np.testing.assert_allclose(grey_levels(images), 10 * labels, atol=1)


def test_other_files_than_tfrecord(tmp_path):
    write_imagenet(tmp_path, file_format="array_record")
    with pytest.raises(ValueError, match="TFRecord files.*'array_record'"):
        load({"data_dir": tmp_path})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "test"}, "`split` must be one of .*'test'"),
        ({"image_size": 0}, "`image_size` must be at least 1"),
        ({"data_dir": "x"}, "`data_dir` and `folder` are two sources"),
        ({"num_samples": 0}, "`num_samples` must be at least 1"),
        ({"num_samples": 5}, "must be a multiple of 2 and at most 12"),
        ({"batch_size": 5, "num_samples": 4}, "training samples, 4. Received"),
        ({"batch_size": 13}, "at most the number of training samples, 12"),
    ],
)
def test_wrong_arguments(tree, arguments, message):
    with pytest.raises(ValueError, match=message):
        load(tree, **arguments)
