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
        (pathlib.Path, "write_text", 5),
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


def small_model(rho=0.05, seed=3, units=8, loss="mse", optimizer=None):
    network = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(units), keras.layers.Dense(1)]
    )
    model = keras_esam.ESAMModel(network, rho=rho, seed=seed)
    return compiled(model, loss, optimizer)


def compiled(model, loss="mse", optimizer=None):
    model.compile(optimizer or keras.optimizers.SGD(0.1), loss)
    model.optimizer.build(model.trainable_variables)
    return model


def begin(folder, model, epochs=2):
    """What `fit` calls before the first epoch."""
    backup = keras_esam.callbacks.AtomicBackup(folder)
    backup.set_model(model)
    backup.set_params({"epochs": epochs})
    backup.on_train_begin()
    return backup


def back_up(folder, model):
    begin(folder, model).on_epoch_end(0, {"loss": 1.0})


def files(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"rho": 0.5}, r"model\.rho: 0\.5, not 0\.05"),
        ({"seed": 4}, r"model\.seed: 4, not 3"),
        ({"units": 9}, r"model\.model\.layers\.1\.units: 9, not 8"),
        ({"loss": "mae"}, r"loss: 'mae', not 'mse'"),
        ({"optimizer": "adam"}, r"optimizer\.class: 'Adam', not 'SGD'"),
        (
            {"optimizer": keras.optimizers.SGD(0.2)},
            r"optimizer\.learning_rate: 0\.2, not 0\.1",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_backup_of_another_training_is_an_error(changed, message, tmp_path):
    back_up(tmp_path, small_model())
    model = small_model(**changed)
    before, on_disk = state(model), files(tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        begin(tmp_path, model)
    assert str(tmp_path) in str(error.value)
    assert len(str(error.value).splitlines()) == 2
    assert_identical(state(model), before)
    assert files(tmp_path) == on_disk


def test_sweep_in_one_folder_is_an_error(tmp_path):
    train(tmp_path, epochs=1)
    model = make_model()
    model.rho = 0.5
    backup = keras_esam.callbacks.AtomicBackup(tmp_path)
    with pytest.raises(ValueError, match=r"model\.rho: 0\.5, not 0\.05"):
        fit(model, *dense_data(48), callbacks=[backup])


def test_five_differences_are_shown(tmp_path):
    back_up(tmp_path, small_model())
    optimizer = keras.optimizers.SGD(0.2, momentum=0.9, clipnorm=1.0)
    model = small_model(0.5, 4, 9, "mae", optimizer)
    with pytest.raises(ValueError, match="and 2 more") as error:
        begin(tmp_path, model)
    assert len(str(error.value).splitlines()) == 7


def test_deleted_settings_let_a_changed_training_resume(tmp_path):
    back_up(tmp_path, small_model())
    (tmp_path / "epoch-000001" / "settings.json").unlink()
    changed = small_model(rho=0.5)
    begin(tmp_path, changed).on_epoch_end(1, {"loss": 1.0})
    assert changed._initial_epoch == 1
    begin(tmp_path, small_model(rho=0.5))
    with pytest.raises(ValueError, match="rho"):
        begin(tmp_path, small_model())


def test_backup_without_settings_of_another_optimizer_is_an_error(tmp_path):
    back_up(tmp_path, small_model())
    (tmp_path / "epoch-000001" / "settings.json").unlink()
    with pytest.raises(ValueError, match="same network and optimizer"):
        begin(tmp_path, small_model(optimizer="adam"))


class Hidden(keras.optimizers.SGD):
    """Momentum that its configuration does not tell."""

    def get_config(self):
        return {**super().get_config(), "momentum": 0.0}


def test_optimizer_with_other_variables_is_an_error(tmp_path):
    back_up(tmp_path, small_model(optimizer=Hidden(0.1)))
    model = small_model(optimizer=Hidden(0.1, momentum=0.9))
    before = state(model)
    with pytest.raises(ValueError, match="optimizer_variables"):
        begin(tmp_path, model)
    assert_identical(state(model), before)


def test_seed_that_was_drawn_is_restored(tmp_path):
    model = small_model(seed=None)
    back_up(tmp_path, model)
    restored = small_model(seed=None)
    restored.seed = None
    begin(tmp_path, restored)
    assert restored.seed == model.seed
    # By another callback it is still one that was drawn.
    compiled(restored)
    begin(tmp_path, restored)
    begin(tmp_path, small_model(seed=model.seed))
    with pytest.raises(ValueError, match=r"model\.seed: 3, not "):
        begin(tmp_path, small_model(seed=3))
    back_up(tmp_path / "given", small_model(seed=3))
    begin(tmp_path / "given", small_model(seed=None))


def test_resuming_is_announced(tmp_path, capsys):
    train(tmp_path, epochs=1)
    assert not capsys.readouterr().out
    train(tmp_path, epochs=2)
    resumed = f"resuming after epoch 1 of 2, which is in {tmp_path}"
    assert resumed in capsys.readouterr().out
    train(tmp_path, epochs=2)
    said = capsys.readouterr().out
    assert f"nothing left to train, epoch 2 of 2 is in {tmp_path}" in said
    assert "delete the folder" in said


class LowerRates(keras.callbacks.Callback):
    """Halves learning rate and `rho`, from before the first epoch on."""

    def on_train_begin(self, logs=None):
        self.model.optimizer.learning_rate = 0.05
        self.model.rho = 0.025

    def on_epoch_end(self, epoch, logs=None):
        self.on_train_begin()


def test_rates_that_callbacks_changed_are_no_difference(tmp_path):
    model, backup = train(tmp_path, epochs=1, callbacks=[LowerRates()])
    x, y = dense_data(48)
    fit(model, x, y, epochs=2, callbacks=[backup])
    # A new callback, and a restart.
    again = keras_esam.callbacks.AtomicBackup(tmp_path)
    fit(model, x, y, epochs=3, callbacks=[again])
    assert model.rho == 0.025
    train(tmp_path, epochs=4)
    # The folder has become one of another training.
    shutil.rmtree(tmp_path)
    back_up(tmp_path, small_model())
    with pytest.raises(ValueError, match="layers"):
        fit(model, x, y, epochs=5, callbacks=[again])


def test_recompiled_model_must_be_compiled_as_before(tmp_path):
    model = small_model()
    back_up(tmp_path, model)
    begin(tmp_path, compiled(model))
    with pytest.raises(ValueError, match="learning_rate"):
        begin(tmp_path, compiled(model, optimizer=keras.optimizers.SGD(0.2)))


def test_backup_of_a_plain_model_is_checked(tmp_path):
    back_up(tmp_path, compiled(dense_network()))
    begin(tmp_path, compiled(dense_network()))
    with pytest.raises(ValueError, match="nesterov"):
        optimizer = keras.optimizers.SGD(0.1, nesterov=True)
        begin(tmp_path, compiled(dense_network(), optimizer=optimizer))
    with pytest.raises(ValueError, match="model.class: 'ESAMModel', not 'Seq"):
        begin(tmp_path, compiled(keras_esam.ESAMModel(dense_network())))


@pytest.mark.parametrize("by_callback", [True, False])
def test_only_callbacks_may_change_rates_between_two_fits(
    by_callback, tmp_path
):
    x, y = dense_data(16)
    model = compile_model(keras_esam.ESAMModel(dense_network(), rho=0.05))

    class SetsRates(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if by_callback:
                self.model.rho = 0.5
                self.model.optimizer.learning_rate = 0.01

    def train(epochs):
        backup = keras_esam.callbacks.AtomicBackup(tmp_path)
        callbacks = [SetsRates(), backup]
        return fit(model, x, y, epochs=epochs, callbacks=callbacks).epoch

    assert train(epochs=1) == [0]
    if by_callback:
        assert train(epochs=2) == [1]
        return
    model.rho = 0.5
    with pytest.raises(ValueError, match="model.rho: 0.5, not 0.05"):
        train(epochs=2)
