"""Runs of the example fits within the process of a test, and their kills."""

import json
import pathlib
import sys

import keras


class Cut(BaseException):
    """Stands for a signal: nothing may catch it."""


def run(script, options, out, monkeypatch):
    """Runs a script of `examples` and returns its result.

    Args:
        script: Module.
        options: String.
        out: Path.
        monkeypatch: The fixture.
    """
    command = [script.__name__, *options.split(), "--out", str(out)]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", command)
        try:
            script.main()
        finally:
            keras.config.set_dtype_policy("float32")
    return json.loads((out / "result.json").read_text())


def make_small_network(input_shape=(32, 32, 3), num_classes=1000):
    """Instead of a ResNet, which takes long to compile."""
    return keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.Conv2D(4, 3, strides=2),
            keras.layers.BatchNormalization(),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(num_classes),
        ]
    )


def assert_same_history(result, expected):
    """Asserts that two runs had the same losses and accuracies, bit for bit."""
    pairs = zip(result["history"], expected["history"], strict=True)
    for row, expected_row in pairs:
        for key in ("loss", "accuracy", "val_loss", "val_accuracy"):
            assert row[key] == expected_row[key]


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
