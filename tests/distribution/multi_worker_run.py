"""Trainings by workers or by two logical devices, for `test_multi_worker`.

Usage: python -m tests.distribution.multi_worker_run FOLDER PART [PART ...]

With `TF_CONFIG` in the environment it is a worker of a
`MultiWorkerMirroredStrategy`, else `MirroredStrategy` on two logical CPUs.
Each `PART` is one of

- `compare`: several methods, which both strategies train alike;
- `kill`: a training in which the worker `KILLED`, of the environment, ends;
- `resume`: goes on after that, from the backups of either callback;
- `whole`: the same training without an interruption.

`FOLDER` gets the results.
"""

import os
import pathlib
import signal
import sys

import tensorflow as tf


def make_strategy():
    # Before anything is computed.
    if "TF_CONFIG" in os.environ:
        return tf.distribute.MultiWorkerMirroredStrategy()
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 2
    )
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


STRATEGY = make_strategy()

import keras  # noqa: E402
import numpy as np  # noqa: E402

import keras_esam  # noqa: E402
from keras_esam import data  # noqa: E402
from tests.methods import METHODS  # noqa: E402
from tests.networks import esam  # noqa: E402

IS_WORKER = "TF_CONFIG" in os.environ
RANK = STRATEGY.cluster_resolver.task_id if IS_WORKER else 0
COMPARED = ["sgd", "esam_depth"]
EPOCHS, KILLED_EPOCH = 3, 1
BATCH_SIZE = 8


def make_data(num_samples):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(num_samples, 8)).astype("float32")
    return x, rng.integers(0, 3, num_samples)


def make_model(method, synchronized=False):
    # Another seed on each worker: weights, masks and subsets are the chief's.
    keras.utils.set_random_seed(3 + RANK)
    layers = keras.layers
    with STRATEGY.scope():
        network = keras.Sequential(
            [
                keras.Input((8,)),
                layers.Dense(16, "relu"),
                layers.BatchNormalization(synchronized=synchronized),
                layers.Dropout(0.3),
                layers.Dense(3, "softmax"),
            ]
        )
        model = esam(network, **METHODS[method])
        # To compile each subset takes long.
        model._preferred_pool_size = 2
        model.compile(
            keras.optimizers.SGD(0.1, momentum=0.9),
            "sparse_categorical_crossentropy",
            metrics=["accuracy"],
        )
    return model


def fit(model, num_samples=2 * BATCH_SIZE + 5, **kwargs):
    return model.fit(
        *make_data(num_samples),
        batch_size=BATCH_SIZE,
        **{"epochs": 2, "shuffle": False, "verbose": 0, **kwargs},
    ).history


def state(model, name):
    """Values of all variables: for each one, those of the local replicas."""
    variables = [*model.variables, *model.optimizer.variables]
    results = {f"{name} seed": model.seed}
    for index, variable in enumerate(variables):
        kind = "statistic" if "moving" in variable.name else "variable"
        results[f"{name} {kind} {index}"] = np.stack(
            [
                value.numpy()
                for value in STRATEGY.experimental_local_results(variable.value)
            ]
        )
    return results


def compare():
    results = {}
    for name in COMPARED:
        model = make_model(name)
        more = {}
        if name == "esam_depth":
            more = {
                "validation_data": make_data(5),
                "validation_batch_size": 4,
            }
        logs = fit(model, **more)
        results |= {f"{name} log {key}": value for key, value in logs.items()}
        results |= state(model, name)
    x, y = make_data(2 * BATCH_SIZE + 5)
    options = {"batch_size": BATCH_SIZE, "verbose": 0}
    results["evaluation"] = model.evaluate(x, y, **options)
    results["predictions"] = model.predict(x, **options)
    results["labels"] = y
    results |= few_samples() | overflow() | pipeline()
    return results | (errors(model) if IS_WORKER else {})


def few_samples():
    """A training in which the last batch has samples for one replica only."""
    model = make_model("sds_loss")
    # Statistics of no samples are not finite, in plain Keras too.
    model.model.layers[1].trainable = False
    fit(model, num_samples=BATCH_SIZE + 1, epochs=1)
    return state(model, "few samples")


def overflow():
    """A step of the base optimizer that overflows on the second replica."""
    keras.config.set_dtype_policy("mixed_float16")
    model = make_model("sgd")
    keras.config.set_dtype_policy("float32")
    before = model.get_weights()[0]
    x, y = make_data(BATCH_SIZE)
    x[BATCH_SIZE // 2 :] *= 1e6
    model.fit(x, y, batch_size=BATCH_SIZE, shuffle=False, verbose=0)
    return {
        "overflow change": model.get_weights()[0] - before,
        "overflow scale": model.optimizer.dynamic_scale.numpy(),
    }


def pipeline():
    """The replicas' parts of the batches of two epochs."""
    counter = keras_esam.callbacks.EpochCounter()
    train = data.digits("train", 50, seed=4, epoch=counter.epoch)
    train = STRATEGY.experimental_distribute_dataset(train)
    results = {}
    for epoch in range(2):
        counter.on_epoch_begin(epoch)
        results[f"digits {epoch}"] = np.stack(
            [
                np.stack(STRATEGY.experimental_local_results(images))
                for images, _ in train
            ]
        )
    return results


def errors(model):
    def message(function):
        try:
            function()
        except ValueError as error:
            return str(error)
        return ""

    # As after a restart from other backups.
    other = make_model("sam")
    other._progress.num_executions = RANK
    other._progress.write()
    model.steps_per_execution = 2
    model.make_train_function(force=True)
    return {
        "error other step": message(lambda: fit(other)),
        "error steps_per_execution": message(lambda: fit(model)),
    }


class Kill(keras.callbacks.Callback):
    """Ends the process amid an epoch, as nothing can prevent."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if self.epoch == KILLED_EPOCH and batch == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def backups(folder):
    return {
        "AtomicBackup": keras_esam.callbacks.AtomicBackup(folder / "atomic"),
        # Every worker writes, so each needs a folder of its own.
        "BackupAndRestore": keras.callbacks.BackupAndRestore(
            folder / f"keras-{RANK}"
        ),
    }


def train(name, callbacks):
    model = make_model("sds_random", synchronized=True)
    fit(model, epochs=EPOCHS, callbacks=callbacks)
    return state(model, name)


def run(part, folder):
    if part == "compare":
        return compare()
    if part == "whole":
        return train(part, [])
    if part == "kill":
        kill = [Kill()] if RANK == int(os.environ["KILLED"]) else []
        return train(part, [*kill, *backups(folder).values()])
    results = {}
    for name, backup in backups(folder).items():
        results |= train(name, [backup])
    return results


def main():
    folder, *parts = sys.argv[1:]
    folder = pathlib.Path(folder)
    results = {}
    for part in parts:
        results |= run(part, folder)
    name = f"worker-{RANK}" if IS_WORKER else "mirrored"
    np.savez(folder / f"{name}.npz", **results)


if __name__ == "__main__":
    main()
