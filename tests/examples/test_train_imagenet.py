"""Training on ImageNet and class folders, on a few made-up images."""

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from examples import train_imagenet
from keras_esam import data
from keras_esam import models
from tests.backends import tensorflow_only
from tests.data.files import encoded
from tests.data.files import photograph
from tests.data.files import write_imagenet
from tests.data.files import write_tree
from tests.examples import runs

pytestmark = tensorflow_only
CLASSES = ("ant", "bee", "cat")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eight training and two validation images of each class."""
    files = {}
    for label, name in enumerate(CLASSES):
        for i in range(10):
            image = np.roll(photograph(50 + i, 70 - i), label, axis=-1)
            mode = "L" if i in (0, 8) else "RGB"
            split = "train" if i < 8 else "val"
            files[f"{split}/{name}/{i}.JPEG"] = encoded(image, mode)
    folder = tmp_path_factory.mktemp("photographs")
    write_tree(folder, files)
    return folder


@pytest.fixture
def train(tmp_path, monkeypatch):
    def train(options, out=tmp_path):
        options = f"--image-size 32 --learning-rate 0.01 --epochs 1 {options}"
        return runs.run(train_imagenet, options, out, monkeypatch)

    return train


def test_training_on_class_folders(train, folder, tmp_path):
    more = "--batch-size 10 --beta 1 --gamma 0.6 --subset 21"
    result = train(f"--folder {folder} {more}")
    assert result["recipe"] == "imagenet/resnet50/esam"
    assert result["esam"]["gamma"] == 0.6
    assert result["settings"]["batch_size"] == 10
    network = keras.saving.load_model(tmp_path / "last.keras")
    assert network.input_shape == (None, 32, 32, 3)
    assert network.output_shape == (None, len(CLASSES))
    labels = np.repeat([0, 1, 2], 2)
    validation = data.imagenet("val", 6, folder=folder, image_size=32)
    predictions = network.predict(validation, verbose=0).argmax(-1)
    accuracy = np.mean(predictions == labels)
    assert result["test_accuracy"] == pytest.approx(accuracy)
    assert result["best_test_accuracy"] == result["test_accuracy"]
    network.load_weights(tmp_path / "best.weights.h5")


@pytest.mark.slow
def test_resumed_run_ends_as_the_whole_one(folder, tmp_path, monkeypatch):
    options = "--image-size 32 --epochs 3 --batch-size 6 --gamma 0.7 "
    runs.assert_resumed_run_ends_as_the_whole_one(
        *(train_imagenet, f"{options} --folder {folder}"),
        *(tmp_path, monkeypatch),
    )
    renamed = tmp_path / "photographs"
    shutil.copytree(folder, renamed)
    for split in ("train", "val"):
        (renamed / split / "bee").rename(renamed / split / "bug")
    options += f"--folder {renamed}"
    with pytest.raises(ValueError, match="Received: classes=.*'bug'"):
        runs.run(train_imagenet, options, tmp_path / "whole", monkeypatch)


@pytest.mark.slow
def test_smaller_network(train, folder, tmp_path):
    more = "--recipe imagenet/resnet50/sgd --batch-size 12"
    train(f"--folder {folder} {more} --width 4 --blocks 1 2 1 1")
    network = keras.saving.load_model(tmp_path / "last.keras")
    expected = models.bottleneck_resnet(
        (32, 32, 3), len(CLASSES), width=4, blocks=(1, 2, 1, 1)
    )
    assert network.count_params() == expected.count_params()


def test_broken_image_is_named(train, folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "photographs")
    path = tmp_path / "photographs/val/bee/9.JPEG"
    path.write_bytes(path.read_bytes()[:-200])
    more = "--recipe imagenet/resnet50/sgd --batch-size 12"
    with pytest.raises(ValueError, match=f"must be whole.*{path}$"):
        train(f"--folder {tmp_path / 'photographs'} {more}", tmp_path / "run")
    # Another fault is not one of the images.
    monkeypatch.setattr(keras.Model, "fit", fail)
    with pytest.raises(tf.errors.InvalidArgumentError, match="of another kind"):
        train(f"--folder {folder} {more}", tmp_path / "other")


def fail(*args, **kwargs):
    raise tf.errors.InvalidArgumentError(None, None, "of another kind")


def test_images_of_tensorflow_datasets(train, tmp_path):
    write_imagenet(tmp_path / "tfds")
    more = "--recipe imagenet/resnet50/sam --batch-size 4 --subset 8"
    more += " --precision mixed_bfloat16"
    # Which the recipe's micro-batches do not go with.
    more += " --micro-batch-size 0 --ascent momentum"
    result = train(f"--data-dir {tmp_path / 'tfds'} {more}", tmp_path / "run")
    network = keras.saving.load_model(tmp_path / "run" / "last.keras")
    assert network.output_shape == (None, 1000)
    assert result["esam"]["gamma"] == 1
    assert result["esam"]["micro_batch_size"] is None
    # Two steps of four samples, of which no class is known yet.
    assert np.log(1000) / 2 < result["history"][0]["loss"] < 20
