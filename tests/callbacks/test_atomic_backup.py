"""A run that is cut at any moment and started again."""

import pathlib
import shutil

import keras
import pytest

from keras_esam.callbacks import AtomicBackup
from tests.networks import all_values
from tests.networks import assert_identical
from tests.networks import compile_model
from tests.networks import dense_data
from tests.networks import dense_network
from tests.networks import esam
from tests.networks import fit

EPOCHS = 4
DATA = dense_data(16)


class Killed(BaseException):
    """Stands for a signal: nothing may catch it."""


class Epochs(keras.callbacks.Callback):
    """Which epochs were begun."""

    def __init__(self):
        super().__init__()
        self.begun = []

    def on_epoch_begin(self, epoch, logs=None):
        self.begun.append(epoch)


def train(folder, epochs=EPOCHS, callbacks=(), model=None, **kwargs):
    """Trains, as a new process does if there is no model."""
    if model is None:
        keras.utils.set_random_seed(1)
        model = esam(dense_network(), seed=3)
        compile_model(model, run_eagerly=True)
    backup = AtomicBackup(folder)
    callbacks = [*callbacks, backup]
    fit(model, *DATA, epochs=epochs, callbacks=callbacks, **kwargs)
    return model, backup


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
        (keras.Model, "save_weights", 2),
        (pathlib.Path, "write_text", 2),
        (pathlib.Path, "write_text", 5),
        (pathlib.Path, "rename", 3),
        (shutil, "rmtree", 3),
        (pathlib.Path, "replace", 1),
    ],
)
def test_killed_run_ends_as_the_uninterrupted_one(
    owner, name, call, whole, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        kill_in(patch, owner, name, call)
        with pytest.raises(Killed):
            train(tmp_path)
    resumed, backup = train(tmp_path)
    assert_identical(state(resumed), whole)
    assert [row["epoch"] for row in backup.history] == list(range(EPOCHS))
    assert set(backup.history[0]) >= {"loss", "accuracy", "sharpness"}
    (folder,) = tmp_path.iterdir()
    assert folder.name == "epoch-000004"
    assert AtomicBackup(tmp_path).history == backup.history


def test_epoch_that_could_not_be_saved_is_trained_again(
    whole, tmp_path, monkeypatch
):
    """In the same process, and with the same callback."""
    model, _ = train(tmp_path / "other", epochs=0)
    backup, watch = AtomicBackup(tmp_path), Epochs()
    with monkeypatch.context() as patch:
        kill_in(patch, pathlib.Path, "rename", 3)
        with pytest.raises(Killed):
            fit(model, *DATA, epochs=EPOCHS, callbacks=[watch, backup])
    assert [row["epoch"] for row in backup.history] == [0, 1]
    fit(model, *DATA, epochs=EPOCHS, callbacks=[watch, backup])
    assert watch.begun == [0, 1, 2, 2, 3]
    assert [row["epoch"] for row in backup.history] == [0, 1, 2, 3]
    assert_identical(state(model), whole)


def test_finished_training_is_not_repeated_and_says_so(whole, tmp_path, capsys):
    watch = Epochs()
    train(tmp_path, epochs=2)
    assert not capsys.readouterr().out
    train(tmp_path, callbacks=[watch])
    resumed = f"resuming after epoch 2 of 4, which is in {tmp_path}."
    assert resumed in capsys.readouterr().out
    model, _ = train(tmp_path, callbacks=[watch])
    assert watch.begun == [2, 3]
    assert_identical(state(model), whole)
    said = capsys.readouterr().out
    assert f"nothing left to train, epoch 4 of 4 is in {tmp_path}. To" in said
    assert "delete the folder" in said


def test_goes_on_after_the_epoch_on_disk(tmp_path):
    """And not after as many as there are, if the first was not epoch 0."""
    watch = Epochs()
    train(tmp_path, initial_epoch=5, epochs=7)
    kwargs = {"initial_epoch": 5, "epochs": 9}
    _, backup = train(tmp_path, callbacks=[watch], **kwargs)
    assert watch.begun == [7, 8]
    assert [row["epoch"] for row in backup.history] == [5, 6, 7, 8]


@pytest.mark.parametrize("epochs", [1, 2], ids=["nothing_left", "cut"])
def test_next_fit_of_a_restored_model_has_all_its_epochs(
    epochs, tmp_path, monkeypatch
):
    train(tmp_path / "first", epochs=1)
    model, watch = train(tmp_path / "second", epochs=0)[0], Epochs()
    with monkeypatch.context() as patch:
        kill_in(patch, keras.Model, "save_weights", 1)
        try:
            train(tmp_path / "first", epochs, model=model)
        except Killed:
            assert epochs == 2
    fit(model, *DATA, epochs=2, callbacks=[watch])
    train(tmp_path / "second", 2, [watch], model=model)
    assert watch.begun == [0, 1, 0, 1]
    # The history is that of the folder at each `fit`.
    shutil.rmtree(tmp_path / "second")
    _, backup = train(tmp_path / "second", 1, model=model)
    assert [row["epoch"] for row in backup.history] == [0]


def test_history_is_read_while_another_process_trains(tmp_path, monkeypatch):
    backup = AtomicBackup(tmp_path)
    backup.set_model(dense_network())
    backup.on_epoch_end(0, {"loss": float("nan")})
    read_text = pathlib.Path.read_text

    def too_late(path):
        monkeypatch.undo()
        backup.on_epoch_end(1, {"loss": 1.0, "f1": keras.ops.ones(3)})
        return read_text(path)

    monkeypatch.setattr(pathlib.Path, "read_text", too_late)
    first, second = AtomicBackup(tmp_path).history
    assert str(first["loss"]) == "nan"
    assert second == {"epoch": 1, "loss": 1.0, "f1": [1.0, 1.0, 1.0]}
    (tmp_path / "epoch-000002" / "logs.json").unlink()
    with pytest.raises(FileNotFoundError):
        AtomicBackup(tmp_path)


@pytest.mark.parametrize("has_backup", [False, True])
def test_unbuilt_model_is_an_error(has_backup, tmp_path):
    if has_backup:
        back_up(tmp_path, small_model())
    with pytest.raises(ValueError, match="must be built"):
        begin(tmp_path, keras.Sequential([keras.layers.Dense(1)]))


def small_model(rho=0.05, seed=3, units=8, loss="mse", optimizer=None):
    network = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(units), keras.layers.Dense(1)]
    )
    model = esam(network, rho=rho, seed=seed)
    return compiled(model, loss, optimizer)


def compiled(model, loss="mse", optimizer=None):
    model.compile(optimizer or keras.optimizers.SGD(0.1), loss)
    model.optimizer.build(model.trainable_variables)
    return model


def begin(folder, model):
    """What `fit` calls before the first epoch."""
    backup = AtomicBackup(folder)
    backup.set_model(model)
    backup.set_params({"epochs": 2})
    backup.on_train_begin()
    return backup


def back_up(folder, model):
    begin(folder, model).on_epoch_end(0, {"loss": 1.0})


class Hidden(keras.optimizers.SGD):
    """Momentum that its configuration does not tell."""

    def get_config(self):
        return {**super().get_config(), "momentum": 0.0}


@pytest.mark.parametrize(
    "changed, line",
    [
        ({"rho": 0.5}, "model.rho: 0.5, not 0.05"),
        ({"units": 9}, "model.model.layers.1.units: 9, not 8"),
        ({"loss": "mae"}, "loss: 'mae', not 'mse'"),
        ({"optimizer": "adam"}, "optimizer: 'Adam', not 'SGD'"),
    ],
)
def test_backup_of_another_training_is_an_error(changed, line, tmp_path):
    back_up(tmp_path, small_model())
    model = small_model(**changed)
    before = state(model)
    on_disk = {p: p.read_bytes() for p in tmp_path.glob("*/*")}
    with pytest.raises(ValueError, match=f"folder={tmp_path} with") as error:
        begin(tmp_path, model)
    assert str(error.value).splitlines()[1:] == [f"- {line}"]
    assert_identical(state(model), before)
    assert on_disk == {p: p.read_bytes() for p in tmp_path.glob("*/*")}


def test_optimizer_with_other_variables_is_an_error(tmp_path):
    back_up(tmp_path, small_model(optimizer=Hidden(0.1)))
    model = small_model(optimizer=Hidden(0.1, momentum=0.9))
    before = state(model)
    with pytest.raises(ValueError, match="optimizer_variables"):
        begin(tmp_path, model)
    assert_identical(state(model), before)


def test_deleted_settings_let_a_changed_training_resume(tmp_path):
    back_up(tmp_path, small_model())
    (tmp_path / "epoch-000001" / "settings.json").unlink()
    with pytest.raises(ValueError, match="same network and optimizer"):
        begin(tmp_path, small_model(optimizer="adam"))
    changed = small_model(rho=0.5)
    begin(tmp_path, changed).on_epoch_end(1, {"loss": 1.0})
    assert changed._initial_epoch == 1
    begin(tmp_path, small_model(rho=0.5))
    with pytest.raises(ValueError, match="rho"):
        begin(tmp_path, small_model())


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


class LowerRates(keras.callbacks.Callback):
    """Changes learning rate and `rho` whenever `fit` calls it."""

    def change(self, *args, **kwargs):
        self.model.optimizer.learning_rate *= 0.5
        self.model.rho *= 0.5

    on_train_begin = on_epoch_begin = on_epoch_end = on_train_end = change


def test_rates_that_callbacks_changed_are_no_difference(tmp_path):
    model, _ = train(tmp_path, 1, [LowerRates()])
    train(tmp_path, 2, [LowerRates()], model=model)
    assert model.rho == 0.05 / 2**8
    # A restart.
    model, _ = train(tmp_path, 3)
    # What the user changes is one.
    model.rho = 0.5
    with pytest.raises(ValueError, match=r"model.rho: 0\.5, not 0\.05"):
        train(tmp_path, 4, model=model)


def test_recompiled_model_must_be_compiled_as_before(tmp_path):
    model = small_model()
    back_up(tmp_path, model)
    begin(tmp_path, compiled(model))
    with pytest.raises(ValueError, match="learning_rate: 0.2, not 0.1"):
        begin(tmp_path, compiled(model, optimizer=keras.optimizers.SGD(0.2)))


def test_backup_of_a_plain_model_is_checked(tmp_path):
    back_up(tmp_path, compiled(dense_network()))
    begin(tmp_path, compiled(dense_network()))
    with pytest.raises(ValueError, match="nesterov"):
        optimizer = keras.optimizers.SGD(0.1, nesterov=True)
        begin(tmp_path, compiled(dense_network(), optimizer=optimizer))
    with pytest.raises(ValueError, match="model: 'ESAMModel', not 'Seq"):
        begin(tmp_path, compiled(esam(dense_network())))
