"""Training on CIFAR, on a few made-up images."""

import json
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from examples import fitting
from examples import train_cifar
from examples.run_folder import locked
from keras_esam import data
from keras_esam import recipes
from tests.backends import BACKEND
from tests.backends import tensorflow_only
from tests.data.files import write_cifar
from tests.examples import runs


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    write_cifar(folder, num_train=40, num_test=20)
    return folder


@pytest.fixture
def train(data_dir, tmp_path, monkeypatch):
    """Function of more options, which trains in a folder for all of them."""

    def train(more="", out=tmp_path, patch=monkeypatch, data_dir=data_dir):
        options = "--batch-size 10 --learning-rate 0.1 --epochs 1 "
        options += f"--recipe cifar10/resnet18/sgd --data-dir {data_dir} {more}"
        return runs.run(train_cifar, options, out, patch)

    return train


def test_resumed_run_ends_as_the_whole_one(data_dir, tmp_path, monkeypatch):
    options = "--batch-size 10 --epochs 3 --rho 0.1 --granularity depth "
    options += f"--cutout 16 --seed 3 --beta 0.5 --data-dir {data_dir}"
    whole = runs.assert_resumed_run_ends_as_the_whole_one(
        train_cifar, options, tmp_path, monkeypatch
    )
    assert whole["recipe"] == "cifar10/resnet18/esam"
    assert whole["esam"] == {
        **{"rho": 0.1, "beta": 0.5, "gamma": 0.5, "granularity": "depth"},
        **{"ascent_fraction": 1.0},
    }
    assert whole["settings"]["weight_decay"] == 1e-3
    assert whole["settings"]["seed"] == 3
    networks = [
        keras.saving.load_model(tmp_path / name / "last.keras")
        for name in ("whole", "cut")
    ]
    for a, b in zip(*(n.get_weights() for n in networks), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.skipif(BACKEND == "tensorflow", reason="has strategies")
@pytest.mark.parametrize("strategy", ["mirrored", "multiworker"])
def test_strategies_are_refused_on_other_backends(strategy, train, capsys):
    with pytest.raises(SystemExit):
        train(f"--strategy {strategy}")
    message = f"Received: {strategy} with KERAS_BACKEND={BACKEND}"
    assert message in capsys.readouterr().err


@tensorflow_only
def test_kill_amid_a_file_damages_none(train, data_dir, tmp_path, monkeypatch):
    """Each run is killed a bit later than the one before."""
    test = data.cifar("cifar10", "test", 20, data_dir=data_dir)
    network = runs.make_small_network(num_classes=10)
    # At this seed the second epoch is better than the first.
    options = "--epochs 3 --seed 4"

    def accuracy_of_best():
        network.load_weights(tmp_path / "best.weights.h5")
        predictions = network.predict(test, verbose=0).argmax(-1)
        return np.mean(predictions == np.arange(20) % 10)

    def history():
        (path,) = tmp_path.glob("backup/epoch-*/logs.json")
        rows = json.loads(path.read_text())
        return [row["val_accuracy"] for row in rows]

    def train_until(*cut):
        with monkeypatch.context() as patch:
            runs.cut_in_file(patch, *cut)
            with pytest.raises(runs.Cut):
                train(options, patch=patch)

    train_until(keras.Model, "save_weights", "backup", 2)
    assert len(history()) == 1
    assert accuracy_of_best() == pytest.approx(history()[0])
    train_until(keras.Model, "save_weights", "best.weights", 2)
    assert len(history()) == 2 and history()[1] > history()[0]
    assert accuracy_of_best() == pytest.approx(history()[0])
    train_until(keras.Model, "save", "last.keras")
    assert len(history()) == 3
    assert accuracy_of_best() == pytest.approx(max(history()))
    assert not (tmp_path / "last.keras").exists()
    train_until(pathlib.Path, "write_text", "result.json")
    keras.saving.load_model(tmp_path / "last.keras")
    assert not (tmp_path / "result.json").exists()
    assert train(options)["best_test_accuracy"] == max(history())
    assert {path.name for path in tmp_path.iterdir()} == runs.FILES


@tensorflow_only
def test_other_settings_need_another_folder(
    train, data_dir, tmp_path, monkeypatch
):
    before = train("--subset 20")
    # A text, as NaN is no JSON: an epoch of two steps is too short to time.
    text = (tmp_path / "result.json").read_text()
    assert before["history"][0]["images_per_second"] is None
    assert before["images_per_second"] is None and "NaN" not in text
    for more, message in (
        ("--seed 7", "seed=0. Received: seed=7$"),
        ("--epochs 2", "epochs=1. Received: epochs=2$"),
        ("--rho 0.1 --momentum 0", r"momentum=0.9, rho=0.0. Received: mom"),
        ("--subset 30", "subset=20, steps_per_epoch=2. Rec.*steps_per_epoch=3"),
    ):
        with pytest.raises(ValueError, match=f"choose another.*{message}"):
            train(f"--subset 20 {more}")
    with monkeypatch.context() as patch:
        patch.setattr(tf.distribute.Strategy, "num_replicas_in_sync", 2)
        with pytest.raises(ValueError, match="num_replicas=1. .*replicas=2$"):
            train("--subset 20")
    with locked(tmp_path), pytest.raises(RuntimeError, match="Another proc"):
        train("--subset 20")
    assert (tmp_path / "result.json").read_text() == text
    # The same, from another place.
    moved = tmp_path / "moved"
    moved.symlink_to(data_dir)
    again = train("--subset 20 --seed 0 --strategy none", data_dir=moved)
    assert again["history"] == before["history"]


@tensorflow_only
def test_settings_without_an_epoch_do_not_count(train, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        runs.cut_in_file(patch, keras.Model, "save_weights", "backup")
        with pytest.raises(runs.Cut):
            train(patch=patch)
    result = train("--seed 1")
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert result["settings"]["seed"] == settings["seed"] == 1


@tensorflow_only
def test_mirrored_strategy_on_one_device_changes_nothing(
    train, tmp_path, monkeypatch
):
    used, rows = [], []

    def make_model(*args, make_model=fitting.make_model):
        model = make_model(*args)
        used.append(model.distribute_strategy)
        return model

    monkeypatch.setattr(fitting, "make_model", make_model)
    for strategy in ("none", "mirrored"):
        more = f"--recipe cifar10/resnet18/sam --strategy {strategy}"
        rows += train(more, tmp_path / strategy)["history"]
    assert isinstance(used[-1], tf.distribute.MirroredStrategy)
    for key in ("loss", "sharpness", "val_loss"):
        assert rows[1][key] == pytest.approx(rows[0][key], rel=1e-5)


@tensorflow_only
def test_size_and_precision_are_those_of_the_network(train, tmp_path):
    more = "--recipe cifar10/wrn-28-10/sgd --precision mixed_bfloat16"
    result = train(f"{more} --width 3 --depth 2")
    assert result["recipe"] == "cifar10/wrn-28-10/sgd"
    assert 0 <= result["test_accuracy"] <= 1
    network = keras.saving.load_model(tmp_path / "last.keras")
    expected = runs.make_small_network(num_classes=10, width=3, depth=2)
    assert network.count_params() == expected.count_params()
    assert network.layers[0].compute_dtype == "bfloat16"


@tensorflow_only
def test_recipe_of_another_data_set_is_refused(train, capsys):
    with pytest.raises(SystemExit):
        train("--recipe imagenet/resnet50/esam")
    assert "cifar100/pyramidnet-110/esam" in capsys.readouterr().err


@tensorflow_only
def test_width_and_depth_are_arguments_of_the_networks():
    for name in ("resnet18", "wrn-28-10", "pyramidnet-110"):
        depth = {"resnet18": 1, "wrn-28-10": 10, "pyramidnet-110": 8}[name]
        recipe = recipes.get(f"cifar10/{name}/sgd")
        assert recipe.make_network(width=6, depth=depth).count_params()
