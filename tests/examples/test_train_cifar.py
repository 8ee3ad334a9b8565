"""The example fit on CIFAR, on a few made-up images."""

import json
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_esam import data
from keras_esam import recipes
from keras_esam.experiments.locked import locked
from tests.backends import tensorflow_only
from tests.data.files import write_cifar
from tests.examples import runs

pytestmark = tensorflow_only
FILES = {
    *("backup", "best.weights.h5", "last.keras", "lock"),
    *("result.json", "settings.json", "tensorboard"),
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    write_cifar(folder, num_train=40, num_test=20)
    return folder


def train(data_dir, out, monkeypatch, more="", epochs=3):
    from examples import train_cifar

    options = "--width 2 --depth 1 --batch-size 10 --learning-rate 0.01"
    options += f" --epochs {epochs} --rho 0.1 --granularity depth --cutout 16"
    options += f" --data-dir {data_dir} {more}"
    return runs.run(train_cifar, options, out, monkeypatch)


def test_resumed_run_ends_as_the_whole_one(data_dir, tmp_path, monkeypatch):
    from examples import fitting

    more = "--beta 0.5"
    whole = train(data_dir, tmp_path / "whole", monkeypatch, more)
    assert [row["epoch"] for row in whole["history"]] == [0, 1, 2]
    assert whole["esam"]["rho"] == 0.1
    assert whole["esam"]["granularity"] == "depth"
    assert whole["settings"]["weight_decay"] == 1e-3

    save = fitting.BestWeights.on_epoch_end

    def cut_after_two(self, epoch, logs=None):
        save(self, epoch, logs)
        if epoch == 1:
            raise runs.Cut

    with monkeypatch.context() as patch:
        patch.setattr(fitting.BestWeights, "on_epoch_end", cut_after_two)
        with pytest.raises(runs.Cut):
            train(data_dir, tmp_path / "cut", patch, more)
    resumed = train(data_dir, tmp_path / "cut", monkeypatch, more)
    runs.assert_same_history(resumed, whole)
    networks = [
        keras.saving.load_model(tmp_path / name / "last.keras")
        for name in ("whole", "cut")
    ]
    for a, b in zip(*(n.get_weights() for n in networks), strict=True):
        np.testing.assert_array_equal(a, b)
    assert {path.name for path in (tmp_path / "cut").iterdir()} == FILES


def test_kill_amid_a_file_damages_none(data_dir, tmp_path, monkeypatch):
    """Each run is killed a bit later than the one before."""
    test = data.cifar("cifar10", "test", 20, data_dir=data_dir)
    recipe = recipes.get("cifar10/resnet18/sgd")
    network = recipe.make_network(width=2, depth=1)

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
                train(data_dir, tmp_path, patch, "--rho 0")

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
    result = train(data_dir, tmp_path, monkeypatch, "--rho 0")
    assert result["best_test_accuracy"] == max(history())
    assert {path.name for path in tmp_path.iterdir()} == FILES


def test_other_settings_need_another_folder(data_dir, tmp_path, monkeypatch):
    from examples import train_cifar

    options = "--recipe cifar10/resnet18/sgd --width 2 --depth 1 --epochs 1 "
    options += "--subset 20 --batch-size 10"

    def train(more, data_dir=data_dir):
        more = f"{options} {more} --data-dir {data_dir}"
        return runs.run(train_cifar, more, tmp_path, monkeypatch)

    before = train("")
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
            train(more)
    with monkeypatch.context() as patch:
        patch.setattr(tf.distribute.Strategy, "num_replicas_in_sync", 2)
        with pytest.raises(ValueError, match="num_replicas=1. .*replicas=2$"):
            train("")
    with locked(tmp_path), pytest.raises(RuntimeError, match="Another proc"):
        train("")
    assert (tmp_path / "result.json").read_text() == text
    # The same, from another place.
    moved = tmp_path / "moved"
    moved.symlink_to(data_dir)
    assert (
        train("--seed 0 --strategy none", moved)["history"] == before["history"]
    )


def test_best_accuracy_is_said_to_be_chosen_by_test_accuracy(
    data_dir, tmp_path, monkeypatch, capsys
):
    with pytest.raises(SystemExit):
        train(data_dir, tmp_path, monkeypatch, "--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "`best_test_accuracy` that of the epoch that is the best" in text


def test_settings_without_an_epoch_do_not_count(
    data_dir, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        runs.cut_in_file(patch, keras.Model, "save_weights", "backup")
        with pytest.raises(runs.Cut):
            train(data_dir, tmp_path, patch, "--rho 0", epochs=1)
    result = train(data_dir, tmp_path, monkeypatch, "--rho 0 --seed 1", 1)
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert result["settings"]["seed"] == settings["seed"] == 1


def test_mirrored_strategy_on_one_device_changes_nothing(
    data_dir, tmp_path, monkeypatch
):
    from examples import fitting

    used = []

    def is_chief(model):
        used.append(model.distribute_strategy)
        return True

    monkeypatch.setattr(fitting, "is_chief", is_chief)
    rows = []
    for strategy in ("none", "mirrored"):
        more = f"--recipe cifar10/resnet18/sam --strategy {strategy}"
        result = train(data_dir, tmp_path / strategy, monkeypatch, more, 1)
        rows += result["history"]
    assert isinstance(used[-1], tf.distribute.MirroredStrategy)
    for key in ("loss", "sharpness", "val_loss"):
        assert rows[1][key] == pytest.approx(rows[0][key], rel=1e-5)


def test_recipe_of_another_method_in_half_precision(
    data_dir, tmp_path, monkeypatch
):
    more = "--recipe cifar10/wrn-28-10/sgd --precision mixed_bfloat16"
    more += " --subset 20 --depth 10 --width 1"
    result = train(data_dir, tmp_path, monkeypatch, more, epochs=1)
    assert result["recipe"] == "cifar10/wrn-28-10/sgd"
    assert result["settings"]["subset"] == 20
    assert 0 <= result["test_accuracy"] <= 1


def test_unknown_recipe_is_refused(data_dir, tmp_path, monkeypatch, capsys):
    more = "--recipe imagenet/resnet50/esam"
    with pytest.raises(SystemExit):
        train(data_dir, tmp_path, monkeypatch, more)
    assert "cifar100/pyramidnet-110/esam" in capsys.readouterr().err
