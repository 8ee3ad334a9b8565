"""Training scripts run within the process of a test, and their kills."""

import json
import pathlib
import sys

import keras
import pytest

from examples import fitting
from keras_esam import recipes

FILES = {
    *("backup", "best.weights.h5", "last.keras", "lock"),
    *("result.json", "settings.json", "tensorboard"),
}


class Cut(BaseException):
    """Stands for a signal: nothing may catch it."""


def run(script, options, out, monkeypatch):
    """Runs a module of `examples` and returns its result."""
    command = [script.__name__, *options.split(), "--out", str(out)]
    with monkeypatch.context() as patch:
        for network in ("resnet18", "wrn-28-10", "resnet50"):
            patch.setitem(recipes.MAKERS, network, make_small_network)
        patch.setattr(sys, "argv", command)
        try:
            script.main()
        finally:
            keras.config.set_dtype_policy("float32")
    return json.loads((out / "result.json").read_text())


def make_small_network(
    input_shape=(32, 32, 3), num_classes=1000, width=4, depth=1
):
    """Instead of a ResNet, which takes long to compile."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(input_shape),
            *(layers.Conv2D(width, 3, strides=2) for _ in range(depth)),
            layers.BatchNormalization(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(num_classes),
        ]
    )


def assert_resumed_run_ends_as_the_whole_one(script, options, folder, patch):
    """Cuts a run after two epochs; losses must agree bit for bit.

    Returns:
        The result of the whole run.
    """
    whole = run(script, options, folder / "whole", patch)
    assert whole["history"][1]["loss"] != whole["history"][0]["loss"]
    save = fitting.BestWeights.on_epoch_end

    def cut_after_two(self, epoch, logs=None):
        save(self, epoch, logs)
        if epoch == 1:
            raise Cut

    with patch.context() as cut:
        cut.setattr(fitting.BestWeights, "on_epoch_end", cut_after_two)
        with pytest.raises(Cut):
            run(script, options, folder / "cut", patch)
    resumed = run(script, options, folder / "cut", patch)
    keys = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy")
    assert [[row[key] for key in keys] for row in resumed["history"]] == [
        [row[key] for key in keys] for row in whole["history"]
    ]
    assert {path.name for path in (folder / "cut").iterdir()} == FILES
    return whole


def cut_in_file(patch, owner, method, part, call=1):
    """Ends the process in the middle of a file, at the `call`-th time.

    Args:
        patch: The fixture `monkeypatch` or a context of it.
        owner: `keras.Model` or `pathlib.Path`.
        method: String, the method that writes the file.
        part: String, part of the file's path.
        call: Integer.
    """
    write = getattr(owner, method)
    calls = []

    def cut(self, *args, **kwargs):
        path = self if owner is pathlib.Path else args[0]
        calls.append(part in str(path))
        if sum(calls) == call and calls[-1]:
            pathlib.Path(path).write_bytes(b"half a file")
            raise Cut
        return write(self, *args, **kwargs)

    patch.setattr(owner, method, cut)
