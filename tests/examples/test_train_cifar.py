"""The example fit on CIFAR, on a few made-up images."""

import json
import sys

import keras
import numpy as np
import pytest

from tests.backends import tensorflow_only
from tests.data.files import write_cifar

pytestmark = tensorflow_only


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    write_cifar(folder, num_train=40, num_test=20)
    return folder


def train(data_dir, out, monkeypatch, *more, epochs=3):
    from examples import train_cifar

    options = "--width 2 --depth 1 --batch-size 10 --learning-rate 0.01"
    options += f" --epochs {epochs} --rho 0.1 --granularity depth --cutout 16"
    command = ["train_cifar", *options.split(), "--data-dir", str(data_dir)]
    monkeypatch.setattr(sys, "argv", [*command, "--out", str(out), *more])
    train_cifar.main()
    keras.config.set_dtype_policy("float32")
    return json.loads((out / "result.json").read_text())


def test_resumed_run_ends_as_the_whole_one(data_dir, tmp_path, monkeypatch):
    whole = train(data_dir, tmp_path / "whole", monkeypatch)
    assert [row["epoch"] for row in whole["history"]] == [0, 1, 2]
    assert whole["esam"]["rho"] == 0.1
    assert whole["esam"]["granularity"] == "depth"

    class Cut(BaseException):
        pass

    save = keras.callbacks.ModelCheckpoint.on_epoch_end

    def cut_after_two(self, epoch, logs=None):
        save(self, epoch, logs)
        if epoch == 1:
            raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(
            keras.callbacks.ModelCheckpoint, "on_epoch_end", cut_after_two
        )
        with pytest.raises(Cut):
            train(data_dir, tmp_path / "cut", patch)
    resumed = train(data_dir, tmp_path / "cut", monkeypatch)
    for row, expected in zip(resumed["history"], whole["history"], strict=True):
        for key in ("loss", "accuracy", "val_loss", "val_accuracy"):
            assert row[key] == expected[key]
    networks = [
        keras.saving.load_model(tmp_path / name / "last.keras")
        for name in ("whole", "cut")
    ]
    for a, b in zip(*(n.get_weights() for n in networks), strict=True):
        np.testing.assert_array_equal(a, b)
    files = {path.name for path in (tmp_path / "cut").iterdir()}
    assert files == {
        *("backup", "best.weights.h5", "last.keras"),
        *("result.json", "tensorboard"),
    }


def test_recipe_of_another_method_in_half_precision(
    data_dir, tmp_path, monkeypatch
):
    more = "--recipe cifar10/wrn-28-10/sgd --precision mixed_bfloat16"
    more += " --subset 20 --depth 10 --width 1"
    result = train(data_dir, tmp_path, monkeypatch, *more.split(), epochs=1)
    assert result["recipe"] == "cifar10/wrn-28-10/sgd"
    assert result["settings"]["subset"] == 20
    assert 0 <= result["test_accuracy"] <= 1


def test_unknown_recipe_is_refused(data_dir, tmp_path, monkeypatch, capsys):
    more = ("--recipe", "imagenet/resnet50/esam")
    with pytest.raises(SystemExit):
        train(data_dir, tmp_path, monkeypatch, *more)
    assert "cifar100/pyramidnet-110/esam" in capsys.readouterr().err
