"""Backups that a kill at any moment leaves whole."""

import csv
import json
import os
import pathlib
import shutil
import tempfile
import warnings
import weakref

import keras
import numpy as np

from keras_esam.callbacks import training_settings

if keras.backend.backend() == "jax":
    from keras_esam.callbacks import jax_processes
else:
    jax_processes = None

# Of each model that this process trains, by the folder of the backup: its
# optimizer, the settings with which the training began, and the last ones, in
# which callbacks may have changed the rates of both.
_TRAININGS = weakref.WeakKeyDictionary()


class AtomicBackup(keras.callbacks.Callback):
    """Backs up a training after every epoch, and goes on from there.

    Start the same script again after it was killed, at whatever moment: `fit`
    restores the last epoch that was finished and trains the others. Weights,
    optimizer, the state of an `ESAMModel` and the logs of all epochs are one
    backup, which is there as a whole or not at all, whereas
    `keras.callbacks.BackupAndRestore` writes one file over another. With data
    whose order depends on the epoch alone, as with
    `keras_esam.callbacks.EpochCounter`, the resumed run equals the
    uninterrupted one.

    `fit` prints a line when it resumes. A training of all its epochs keeps its
    backup, so the same script then trains nothing and says so: to train again,
    delete the folder or choose another one. One that a callback stopped early
    is resumed. The backup takes precedence over the argument `initial_epoch` of
    `fit`.

    A backup of another training is refused. It holds the settings from the
    beginning of its training: the configurations of the model and the
    optimizer, the loss with its weights, and the shapes of all weights. Names
    may change, and so may an `ESAMModel`'s `seed` if it is not given. Functions
    are compared by name and the numbers and strings that they close over. Data,
    batch size, metrics and the code of subclasses are not compared.

    The folder also gets a table of the logs, `log.csv`, one row for each epoch.

    Put it behind the callbacks that add to the logs or save files of their own,
    so that these are there before an epoch counts as finished.

    Of the workers of a `tf.distribute` strategy, or of several processes on
    JAX, the chief writes, and all of them restore what it wrote.

    The model must be built.

    Args:
        folder: String or path, where the backup is. Each training needs its
            own, and workers or processes one that they share.

    Raises:
        ValueError: In `fit`, if the model is not built, or if the backup is one
            of another training. The message lists the settings that differ;
            model and backup stay as they are.

    Attributes:
        history: List of dicts, the logs of the epochs that are finished,
            those of earlier processes too.

    Example:

    ```python
    backup = keras_esam.callbacks.AtomicBackup("runs/esam")
    model.fit(dataset, epochs=200, callbacks=[backup])
    backup.history[-1]["loss"]
    ```
    """

    _PREFIX = "epoch-"
    _WEIGHTS, _LOGS = "latest.weights.h5", "logs.json"
    _SETTINGS = "settings.json"

    def __init__(self, folder: str | os.PathLike):
        super().__init__()
        self.folder = pathlib.Path(folder)
        self.history = self._read_history()

    def set_model(self, model):
        super().set_model(model)
        # Before the other callbacks can change them.
        self._settings = training_settings.describe(model)

    def on_train_begin(self, logs=None):
        model = self.model
        if not model.built:
            raise ValueError(
                "A model must be built before its training is backed up or "
                "restored: call it on a batch, or give its network an `Input`. "
                f"Received: model={model}"
            )
        if jax_processes:
            # The chief may still be writing the last epoch of another `fit`.
            jax_processes.wait_for_all()
        self.history = self._read_history()
        latest = self._latest()
        if latest is None:
            model._initial_epoch = None
            self._keep_settings()
            return
        if model.optimizer is not None and not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        self._add_optimizer()
        self._check_settings(latest)
        self._keep_settings()
        self._load_weights(latest / self._WEIGHTS)
        model._initial_epoch = int(latest.name.removeprefix(self._PREFIX))
        if self._is_chief:
            self._write_table()
            self._announce(model._initial_epoch)

    def on_epoch_begin(self, epoch, logs=None):
        # It has been read, and is not for the next call of `fit`.
        self.model._initial_epoch = None
        self._keep_settings()

    def on_train_end(self, logs=None):
        self.model._initial_epoch = None
        self._keep_settings()

    def on_epoch_end(self, epoch, logs=None):
        values = {key: _plain(value) for key, value in (logs or {}).items()}
        history = [*self.history, {"epoch": epoch, **values}]
        self._add_optimizer()
        if not self._is_chief:
            # On TensorFlow it takes all workers to read a metric.
            with tempfile.TemporaryDirectory() as folder:
                self.model.save_weights(f"{folder}/{self._WEIGHTS}")
            self.history = history
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        # Its name makes it count, and it gets that when it is complete.
        unfinished = self.folder / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        self.model.save_weights(unfinished / self._WEIGHTS)
        (unfinished / self._LOGS).write_text(json.dumps(history))
        (unfinished / self._SETTINGS).write_text(json.dumps(self._settings))
        before = self._all()
        finished = self.folder / f"{self._PREFIX}{epoch + 1:06d}"
        unfinished.rename(finished)
        self.history = history
        for folder in before:
            shutil.rmtree(folder)
        self._write_table()

    def _check_settings(self, backup):
        path = backup / self._SETTINGS
        # Earlier versions wrote none.
        if not path.exists():
            return
        before = json.loads(path.read_text())
        optimizer, known, last = self._trainings.get(self._key, (None,) * 3)
        goes_on = (
            optimizer is not None
            and optimizer() is self.model.optimizer
            and known == before
            and not training_settings.differences(last, self._settings)
        )
        found = training_settings.differences(before, self._settings)
        if found and not goes_on:
            raise ValueError(
                "`folder` must be a new one, or have the backup of a training "
                "with the same settings, which then resumes. Choose another "
                "folder, or delete this one to train from the start; to resume "
                f"with the new settings nevertheless, delete `{path}`. "
                f"Received: folder={self.folder} with\n"
                + training_settings.listed(found)
            )
        self._settings = before

    def _keep_settings(self):
        """The next `fit` of model and optimizer goes on with this training, if
        nothing but its callbacks has changed their settings."""
        optimizer = self.model.optimizer
        reference = None if optimizer is None else weakref.ref(optimizer)
        last = training_settings.describe(self.model)
        self._trainings[self._key] = reference, self._settings, last

    def _add_optimizer(self):
        """Adds to the settings what is there once the optimizer is built."""
        optimizer = getattr(self.model, "optimizer", None)
        if optimizer is not None:
            shapes = training_settings.shapes(optimizer.variables)
            self._settings["optimizer_variables"] = shapes

    @property
    def _trainings(self):
        return _TRAININGS.setdefault(self.model, {})

    @property
    def _key(self):
        return self.folder.resolve()

    def _load_weights(self, path):
        """Loads weights and optimizer, or raises an error."""
        with warnings.catch_warnings():
            # Keras warns and leaves the optimizer as it is.
            warnings.filterwarnings("error", "Skipping variable loading")
            try:
                self.model.load_weights(path)
            except (ValueError, UserWarning) as error:
                raise ValueError(
                    f"`folder` must have the backup of a training with the "
                    "same network and optimizer, or none. Choose another one. "
                    f"Received: folder={self.folder}, where {error}"
                ) from error

    def _announce(self, num_epochs):
        epochs = self.params.get("epochs") if self.params else None
        if epochs is not None and num_epochs >= epochs:
            print(
                f"AtomicBackup: nothing left to train, epoch {num_epochs} of "
                f"{epochs} is in {self.folder}. To train again, delete the "
                "folder or choose another one.",
                flush=True,
            )
            return
        of = "" if epochs is None else f" of {epochs}"
        print(
            f"AtomicBackup: resuming after epoch {num_epochs}{of}, which is in "
            f"{self.folder}.",
            flush=True,
        )

    @property
    def _is_chief(self):
        if jax_processes:
            return jax_processes.is_chief()
        # Only on TensorFlow a model has it.
        strategy = getattr(self.model, "distribute_strategy", None)
        return strategy is None or strategy.extended.should_checkpoint

    def _all(self):
        """The backups, the latest one last."""
        return sorted(self.folder.glob(f"{self._PREFIX}*"))

    def _latest(self):
        backups = self._all()
        return backups[-1] if backups else None

    def _read_history(self):
        """Also while another process trains: a backup goes when the next one
        is there, maybe before it is read."""
        while backup := self._latest():
            try:
                return json.loads((backup / self._LOGS).read_text())
            except FileNotFoundError:
                if backup == self._latest():
                    raise
        return []

    def _write_table(self):
        keys = list(dict.fromkeys(key for row in self.history for key in row))
        unfinished = self.folder / "log.csv.unfinished"
        with unfinished.open("w", newline="") as file:
            writer = csv.DictWriter(file, keys)
            writer.writeheader()
            writer.writerows(self.history)
        unfinished.replace(self.folder / "log.csv")


def _plain(value):
    """A log as a float, or as a list of floats if it is no scalar."""
    if np.ndim(value) == 0:
        return float(value)
    return keras.ops.convert_to_numpy(value).tolist()
