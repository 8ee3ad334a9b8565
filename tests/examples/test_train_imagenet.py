"""The example fit on ImageNet, on a few made-up photographs."""

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_esam import data
from keras_esam import models
from keras_esam import recipes
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
    """Eight training and two validation photographs of each class."""
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
def small_network(monkeypatch):
    monkeypatch.setitem(recipes.MAKERS, "resnet50", runs.make_small_network)


def train(source, out, monkeypatch, more=""):
    from examples import train_imagenet

    options = f"{source} --image-size 32 --learning-rate 0.01 {more}"
    return runs.run(train_imagenet, options, out, monkeypatch)


@pytest.mark.parametrize(
    "is_small", [True, pytest.param(False, marks=pytest.mark.slow)]
)
def test_resnet50_on_class_folders(
    is_small, folder, tmp_path, monkeypatch, request
):
    if is_small:
        request.getfixturevalue("small_network")
    # Of 10 samples 6 are kept: an even number, see the README.
    more = "--epochs 1 --batch-size 10 --beta 1 --gamma 0.6 --subset 21"
    source = f"--folder {folder}"
    result = train(source, tmp_path, monkeypatch, more)
    assert result["recipe"] == "imagenet/resnet50/esam"
    assert result["esam"]["gamma"] == 0.6
    assert result["settings"]["batch_size"] == 10
    assert result["settings"]["epochs"] == 1
    network = keras.saving.load_model(tmp_path / "last.keras")
    assert network.input_shape == (None, 32, 32, 3)
    assert network.output_shape == (None, len(CLASSES))
    assert is_small or len(network.layers) > 100
    labels = np.repeat([0, 1, 2], 2)
    validation = data.imagenet("val", 6, folder=folder, image_size=32)
    predictions = network.predict(validation, verbose=0).argmax(-1)
    accuracy = np.mean(predictions == labels)
    assert result["test_accuracy"] == pytest.approx(accuracy)
    assert result["best_test_accuracy"] == result["test_accuracy"]
    network.load_weights(tmp_path / "best.weights.h5")
    assert {path.name for path in tmp_path.iterdir()} == {
        *("backup", "best.weights.h5", "last.keras", "lock"),
        *("result.json", "settings.json", "tensorboard"),
    }


def test_resumed_run_ends_as_the_whole_one(
    folder, tmp_path, monkeypatch, small_network
):
    source = f"--folder {folder}"
    more = "--epochs 3 --batch-size 6 --beta 0.5 --gamma 0.7 --seed 3"
    whole = train(source, tmp_path / "whole", monkeypatch, more)
    with monkeypatch.context() as patch:
        runs.cut_in_file(patch, keras.Model, "save_weights", "backup", 2)
        with pytest.raises(runs.Cut):
            train(source, tmp_path / "cut", patch, more)
    resumed = train(source, tmp_path / "cut", monkeypatch, more)
    runs.assert_same_history(resumed, whole)
    other = more.replace("--seed 3", "--seed 4")
    other = train(source, tmp_path / "other", monkeypatch, other)
    assert other["history"][0]["loss"] != whole["history"][0]["loss"]
    renamed = tmp_path / "photographs"
    shutil.copytree(folder, renamed)
    for split in ("train", "val"):
        (renamed / split / "bee").rename(renamed / split / "bug")
    with pytest.raises(ValueError, match="Received: classes=.*'bug'"):
        train(f"--folder {renamed}", tmp_path / "whole", monkeypatch, more)


def test_smaller_network(folder, tmp_path, monkeypatch):
    more = "--recipe imagenet/resnet50/sgd --epochs 1 --batch-size 12"
    more += " --width 4 --blocks 1 2 1 1"
    result = train(f"--folder {folder}", tmp_path, monkeypatch, more)
    network = keras.saving.load_model(tmp_path / "last.keras")
    expected = models.bottleneck_resnet(
        (32, 32, 3), len(CLASSES), width=4, blocks=(1, 2, 1, 1)
    )
    assert network.count_params() == expected.count_params()
    assert network.output_shape == (None, len(CLASSES))
    assert result["settings"]["width"] == 4


def test_broken_photograph_is_named(
    folder, tmp_path, monkeypatch, small_network
):
    shutil.copytree(folder, tmp_path / "photographs")
    path = tmp_path / "photographs/val/bee/9.JPEG"
    path.write_bytes(path.read_bytes()[:-200])
    more = "--recipe imagenet/resnet50/sgd --epochs 1 --batch-size 12"
    with pytest.raises(ValueError, match=f"must be whole.*{path}$"):
        source = f"--folder {tmp_path / 'photographs'}"
        train(source, tmp_path / "run", monkeypatch, more)
    # Another fault is not one of the photographs.
    monkeypatch.setattr(keras.Model, "fit", fail)
    with pytest.raises(tf.errors.InvalidArgumentError, match="of another kind"):
        train(f"--folder {folder}", tmp_path / "other", monkeypatch, more)


def fail(*args, **kwargs):
    raise tf.errors.InvalidArgumentError(None, None, "of another kind")


def test_photographs_of_tensorflow_datasets(
    tmp_path, monkeypatch, small_network
):
    write_imagenet(tmp_path / "tfds")
    source = f"--data-dir {tmp_path / 'tfds'} --subset 8"
    more = "--recipe imagenet/resnet50/sam --epochs 1 --batch-size 4"
    more += " --precision mixed_bfloat16"
    # Which the recipe's micro-batches do not go with.
    more += " --micro-batch-size 0 --ascent previous"
    result = train(source, tmp_path / "run", monkeypatch, more)
    network = keras.saving.load_model(tmp_path / "run" / "last.keras")
    assert network.output_shape == (None, 1000)
    assert result["esam"]["gamma"] == 1
    assert result["esam"]["micro_batch_size"] is None
    # Two steps of four samples, of which no class is known yet.
    assert np.log(1000) / 2 < result["history"][0]["loss"] < 20


def test_recipe_of_another_data_set_is_refused(
    folder, tmp_path, monkeypatch, capsys
):
    more = "--recipe cifar10/resnet18/esam"
    with pytest.raises(SystemExit):
        train(f"--folder {folder}", tmp_path, monkeypatch, more)
    assert "imagenet/resnet101/sam" in capsys.readouterr().err
