"""A run that is cut at any moment and started again."""

import csv
import json
import pathlib
import shutil

import keras
import numpy as np
import pytest

import keras_esam
from tests.networks import all_values
from tests.networks import assert_identical
from tests.networks import compile_model
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import fit

EPOCHS = 4


class Killed(BaseException):
    """Stands for a signal: nothing may catch it."""


def make_model():
    keras.utils.set_random_seed(1)
    return compile_model(keras_esam.ESAMModel(dense_network(), seed=3))


def train(folder, epochs=EPOCHS, callbacks=(), **kwargs):
    model = make_model()
    backup = keras_esam.callbacks.AtomicBackup(folder)
    x, y = dense_data(48)
    fit(model, x, y, epochs=epochs, callbacks=[*callbacks, backup], **kwargs)
    return model, backup


class Epochs(keras.callbacks.Callback):
    """Which epochs were begun."""

    def __init__(self):
        super().__init__()
        self.begun = []

    def on_epoch_begin(self, epoch, logs=None):
        self.begun.append(epoch)


def state(model):
    return all_values(model) + [v.numpy() for v in model.optimizer.variables]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The state after a training that was not interrupted."""
    model, _ = train(tmp_path_factory.mktemp("whole"))
    return state(model)


def kill_in(monkeypatch, owner, name, call):
    """Lets the `call`-th call of a method end the process."""
    method = getattr(owner, name)
    calls = []

    def killed(*args, **kwargs):
        calls.append(args)
        if len(calls) == call:
            raise Killed
        return method(*args, **kwargs)

    monkeypatch.setattr(owner, name, killed)


@pytest.mark.parametrize(
    "owner, name, call",
    [
        (keras.Model, "save_weights", 1),
        (keras.Model, "save_weights", 3),
        (pathlib.Path, "write_text", 2),
        (pathlib.Path, "rename", 1),
        (pathlib.Path, "rename", 3),
        (shutil, "rmtree", 2),
        (shutil, "rmtree", 3),
        (csv.DictWriter, "writerows", 2),
        (pathlib.Path, "replace", 2),
        (keras_esam.ESAMModel, "reset_metrics", 3),
    ],
)
def test_killed_run_ends_as_the_uninterrupted_one(
    owner, name, call, whole, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        kill_in(patch, owner, name, call)
        with pytest.raises(Killed):
            train(tmp_path / "cut")
    resumed, backup = train(tmp_path / "cut")
    assert_identical(state(resumed), whole)
    assert [row["epoch"] for row in backup.history] == list(range(EPOCHS))
    table = (tmp_path / "cut" / "log.csv").read_text()
    rows = list(csv.DictReader(table.splitlines()))
    assert [float(row["loss"]) for row in rows] == [
        row["loss"] for row in backup.history
    ]
    names = {path.name for path in (tmp_path / "cut").iterdir()}
    assert names == {"epoch-000004", "log.csv"}


def test_history_is_that_of_fit_and_is_there_before_fit(tmp_path):
    _, backup = train(tmp_path, epochs=2)
    assert [row["epoch"] for row in backup.history] == [0, 1]
    again = keras_esam.callbacks.AtomicBackup(tmp_path)
    assert again.history == backup.history
    assert set(backup.history[0]) >= {"loss", "accuracy", "sharpness"}


def test_history_is_read_while_another_process_trains(tmp_path, monkeypatch):
    backup = keras_esam.callbacks.AtomicBackup(tmp_path)
    backup.set_model(dense_network())
    backup.on_epoch_end(0, {"loss": 2.0})
    read_text = pathlib.Path.read_text

    def too_late(path):
        monkeypatch.undo()
        backup.on_epoch_end(1, {"loss": 1.0})
        return read_text(path)

    monkeypatch.setattr(pathlib.Path, "read_text", too_late)
    other = keras_esam.callbacks.AtomicBackup(tmp_path)
    assert [row["loss"] for row in other.history] == [2.0, 1.0]
    (tmp_path / "epoch-000002" / "logs.json").unlink()
    with pytest.raises(FileNotFoundError):
        keras_esam.callbacks.AtomicBackup(tmp_path)


def test_finished_training_is_not_repeated(tmp_path):
    expected, _ = train(tmp_path)
    watch = Epochs()
    model, _ = train(tmp_path, callbacks=[watch])
    assert not watch.begun
    assert_identical(state(model), state(expected))
    train(tmp_path, epochs=EPOCHS + 1, callbacks=[watch])
    assert watch.begun == [EPOCHS]


def test_goes_on_after_the_epoch_on_disk(tmp_path, monkeypatch):
    """And not after as many as there are, if the first was not epoch 0."""
    kwargs = {"initial_epoch": 5, "epochs": 9}
    expected, _ = train(tmp_path / "whole", **kwargs)
    with monkeypatch.context() as patch:
        kill_in(patch, keras.Model, "save_weights", 3)
        with pytest.raises(Killed):
            train(tmp_path / "cut", **kwargs)
    watch = Epochs()
    model, backup = train(tmp_path / "cut", callbacks=[watch], **kwargs)
    assert watch.begun == [7, 8]
    assert [row["epoch"] for row in backup.history] == [5, 6, 7, 8]
    assert_identical(state(model), state(expected))


def test_epoch_that_could_not_be_saved_is_trained_again(
    whole, tmp_path, monkeypatch
):
    model, watch = make_model(), Epochs()
    backup = keras_esam.callbacks.AtomicBackup(tmp_path / "full")
    x, y = dense_data(48)
    kwargs = {"epochs": EPOCHS, "callbacks": [watch, backup]}
    with monkeypatch.context() as patch:
        kill_in(patch, pathlib.Path, "rename", 3)
        with pytest.raises(Killed):
            fit(model, x, y, **kwargs)
    assert [row["epoch"] for row in backup.history] == [0, 1]
    fit(model, x, y, **kwargs)
    assert watch.begun == [0, 1, 2, 2, 3]
    assert [row["epoch"] for row in backup.history] == [0, 1, 2, 3]
    assert_identical(state(model), whole)


def test_history_is_that_of_the_folder_at_each_fit(tmp_path):
    model, backup = train(tmp_path, epochs=2)
    shutil.rmtree(tmp_path)
    fit(model, *dense_data(48), epochs=1, callbacks=[backup])
    assert [row["epoch"] for row in backup.history] == [0]


@pytest.mark.parametrize(
    "epochs, is_cut",
    [(1, False), (2, True)],
    ids=["nothing_left", "cut"],
)
def test_next_fit_of_a_restored_model_has_all_its_epochs(
    epochs, is_cut, tmp_path, monkeypatch
):
    train(tmp_path / "first", epochs=1)
    model, watch = make_model(), Epochs()
    backup = keras_esam.callbacks.AtomicBackup(tmp_path / "first")
    x, y = dense_data(48)
    with monkeypatch.context() as patch:
        if is_cut:
            kill_in(patch, keras.Model, "save_weights", 1)
        try:
            fit(model, x, y, epochs=epochs, callbacks=[backup])
        except Killed:
            assert is_cut
    own = keras_esam.callbacks.AtomicBackup(tmp_path / "second")
    for callbacks in ([], [own]):
        fit(model, x, y, epochs=2, callbacks=[watch, *callbacks])
    assert watch.begun == [0, 1, 0, 1]


def test_logs_that_are_not_finite_are_kept(tmp_path):
    backup = keras_esam.callbacks.AtomicBackup(tmp_path)
    backup.set_model(dense_network())
    backup.on_epoch_end(0, {"loss": float("nan")})
    (folder,) = tmp_path.glob("epoch-*")
    assert np.isnan(json.loads((folder / "logs.json").read_text())[0]["loss"])


def test_metric_of_each_class_is_a_list(tmp_path):
    model = dense_network()
    f1 = keras.metrics.F1Score(average=None)
    model.compile("sgd", "categorical_crossentropy", metrics=[f1])
    x, y = dense_data(48)
    y = keras.utils.to_categorical(y)
    backup = keras_esam.callbacks.AtomicBackup(tmp_path)
    history = fit(model, x, y, callbacks=[backup]).history
    again = keras_esam.callbacks.AtomicBackup(tmp_path)
    assert again.history == backup.history
    scores = keras.ops.convert_to_numpy(history["f1_score"][0]).tolist()
    assert len(scores) == 3
    assert again.history[0]["f1_score"] == scores


@pytest.mark.parametrize("has_backup", [False, True])
def test_unbuilt_model_is_an_error(has_backup, tmp_path):
    if has_backup:
        train(tmp_path, epochs=1)
    backup = keras_esam.callbacks.AtomicBackup(tmp_path)
    backup.set_model(keras.Sequential([keras.layers.Dense(1)]))
    with pytest.raises(ValueError, match="must be built"):
        backup.on_train_begin()
