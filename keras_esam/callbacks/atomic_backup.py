"""Backups that are written atomically."""

import json
import os
import pathlib
import shutil
import tempfile
import warnings

import keras
import numpy as np

from keras_esam.callbacks import training_settings

PREFIX = "epoch-"
WEIGHTS, LOGS, SETTINGS = "latest.weights.h5", "logs.json", "settings.json"


class AtomicBackup(keras.callbacks.Callback):
    """Backs up a training after every epoch, and resumes it.

    A script may be killed at any moment. Start it again: `fit` prints a line,
    restores the last finished epoch and trains the remaining ones. Weights,
    optimizer, the state of an `ESAMModel` and the logs of all epochs are one
    folder, which is written atomically, unlike in
    `keras.callbacks.BackupAndRestore`. If the order of the data depends on the
    epoch alone, see `keras_esam.callbacks.EpochCounter`, the resumed run equals
    the uninterrupted one.

    A finished training keeps its backup: the same script then trains nothing
    and says so. A training that a callback stopped early is resumed. The backup
    takes precedence over the argument `initial_epoch` of `fit`.

    The backup of a different training is refused: one with another
    configuration of model, optimizer or loss, or other shapes of weights. Names
    may change, and so may an `ESAMModel`'s `seed` if it is not given. Functions
    are compared by name, default arguments, and the numbers and strings that
    they close over. Data, batch size, metrics and the code of subclasses are
    not compared.

    Put it behind callbacks that add to the logs or save files, such as
    `keras.callbacks.CSVLogger(path, append=True)`: they must run before an
    epoch counts as finished. The chief of several workers writes; all restore.

    Args:
        folder: String or path, where the backup is. Each training needs its
            own; its workers or processes share it.

    Raises:
        ValueError: In `fit`, if the model is not built, or if the backup
            belongs to another training. It lists the settings that differ;
            model and backup do not change.

    Attributes:
        history: List of dicts, the logs of all finished epochs.

    Example:

    ```python
    backup = keras_esam.callbacks.AtomicBackup("runs/esam")
    model.fit(dataset, epochs=200, callbacks=[backup])
    backup.history[-1]["loss"]
    ```
    """

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
        if keras.backend.backend() == "jax":
            from jax.experimental import multihost_utils

            # The chief may still be writing the last epoch of another `fit`.
            multihost_utils.sync_global_devices("keras_esam")
        model._initial_epoch = None
        self.history = self._read_history()
        latest = self._latest()
        if latest is None:
            return
        if model.optimizer is not None and not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        self._check_settings(latest / SETTINGS)
        self._load_weights(latest / WEIGHTS)
        finished = int(latest.name.removeprefix(PREFIX))
        model._initial_epoch = finished
        if self._is_chief:
            epochs = self.params["epochs"]
            last = f"epoch {finished} of {epochs}"
            text = f"resuming after {last}, which is in {self.folder}."
            if finished >= epochs:
                text = (
                    f"nothing left to train, {last} is in {self.folder}. To "
                    "train again, delete the folder or choose another one."
                )
            print(f"AtomicBackup: {text}", flush=True)

    def on_epoch_begin(self, epoch, logs=None):
        # It has been read, and must not affect the next call of `fit`.
        self.model._initial_epoch = None

    def on_train_end(self, logs=None):
        self.model._initial_epoch = None
        latest = self._latest()
        if latest and self._is_chief:
            # Callbacks may have changed rates since the last epoch.
            unfinished = latest / f"{SETTINGS}.unfinished"
            self._write_settings(unfinished)
            unfinished.replace(latest / SETTINGS)

    def on_epoch_end(self, epoch, logs=None):
        values = {
            key: float(value)
            if np.ndim(value) == 0
            else keras.ops.convert_to_numpy(value).tolist()
            for key, value in (logs or {}).items()
        }
        history = [*self.history, {"epoch": epoch, **values}]
        if not self._is_chief:
            # On TensorFlow it takes all workers to read a metric.
            with tempfile.TemporaryDirectory() as folder:
                self.model.save_weights(f"{folder}/{WEIGHTS}")
            self.history = history
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        # It gets the name that makes it count once it is complete.
        unfinished = self.folder / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        self.model.save_weights(unfinished / WEIGHTS)
        (unfinished / LOGS).write_text(json.dumps(history))
        self._write_settings(unfinished / SETTINGS)
        before = self._all()
        unfinished.rename(self.folder / f"{PREFIX}{epoch + 1:06d}")
        self.history = history
        for folder in before:
            shutil.rmtree(folder)

    def _write_settings(self, path):
        now = training_settings.describe(self.model)
        # Adds what exists only once the optimizer is built.
        self._settings = {**now, **self._settings}
        begin = self._settings
        changed = {k: v for k, v in now.items() if v != begin[k]}
        path.write_text(json.dumps({"before": begin, "changed": changed}))

    def _check_settings(self, path):
        # Earlier versions wrote no settings, or others.
        saved = json.loads(path.read_text()) if path.exists() else {}
        if "before" not in saved:
            return
        now = training_settings.describe(self.model) | self._settings
        if getattr(self.model, "_has_drawn_seed", False):
            # The restored model takes the seed that was drawn before.
            now.pop("model.seed")
        found = training_settings.differences(now, **saved)
        if found:
            raise ValueError(
                "`folder` must be a new one, or have the backup of a training "
                "with the same settings, which then resumes. Choose another "
                "folder, or delete this one to train from the start; to resume "
                f"with the new settings nevertheless, delete `{path}`. "
                f"Received: folder={self.folder} with\n" + "\n".join(found)
            )
        self._settings = saved["before"]

    def _load_weights(self, path):
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

    @property
    def _is_chief(self):
        if keras.backend.backend() == "jax":
            import jax

            return jax.process_index() == 0
        # Models have it on TensorFlow only.
        strategy = getattr(self.model, "distribute_strategy", None)
        return strategy is None or strategy.extended.should_checkpoint

    def _all(self):
        """The backups, the latest one last."""
        return sorted(self.folder.glob(f"{PREFIX}*"))

    def _latest(self):
        return max(self._all(), default=None)

    def _read_history(self):
        # Another process may train: its next backup replaces the one just read.
        while backup := self._latest():
            try:
                return json.loads((backup / LOGS).read_text())
            except FileNotFoundError:
                if backup == self._latest():
                    raise
        return []
