"""Trainings with `keras.distribution.DataParallel`, for `test_distribution`.

Usage: python -m tests.backends.distribution_run FILE METHOD [METHOD ...]

Trains on all devices, or with `NUM_PROCESSES`, `PROCESS_ID` and `ADDRESS` in
the environment on those of several processes, each of which reads its part of
every batch. `FILE` gets the weights and the logs. Without `DISTRIBUTED` in the
environment it is one device. With `BACKUP`, a folder, the training of the last
method is cut after its first epoch and goes on with a new model.
"""

import os
import sys

import keras
import numpy as np

NUM_PROCESSES = int(os.environ.get("NUM_PROCESSES", 1))
PROCESS_ID = int(os.environ.get("PROCESS_ID", 0))

if NUM_PROCESSES > 1:
    # Before anything is computed.
    keras.distribution.initialize(
        os.environ["ADDRESS"], NUM_PROCESSES, PROCESS_ID
    )

import keras_esam  # noqa: E402
from tests.backends import parity_run  # noqa: E402

BATCH_SIZE = 16


def own_part(values):
    """What this process reads: its part of every batch."""
    batches = values.reshape(-1, NUM_PROCESSES, BATCH_SIZE // NUM_PROCESSES)
    return batches[:, PROCESS_ID].reshape(-1)


def fit(model, **kwargs):
    """The logs, a dict of lists."""
    x, y, weights = parity_run.make_data()
    own = own_part(np.arange(len(x) // BATCH_SIZE * BATCH_SIZE))
    return model.fit(
        x[own],
        y[own],
        sample_weight=weights[own],
        batch_size=BATCH_SIZE // NUM_PROCESSES,
        shuffle=False,
        verbose=0,
        **kwargs,
    ).history


def make_model(method):
    keras.utils.set_random_seed(3)
    return parity_run.make_model(method)


def train(method):
    model = make_model(method)
    return model, fit(model, epochs=2)


def train_in_parts(method, folder):
    for epochs in (1, 2):
        model = make_model(method)
        backup = keras_esam.callbacks.AtomicBackup(folder)
        logs = fit(model, epochs=epochs, callbacks=[backup])
    assert [row["epoch"] for row in backup.history] == [0, 1]
    return model, {key: [r[key] for r in backup.history] for key in logs}


def main():
    path, *methods = sys.argv[1:]
    if os.environ.get("DISTRIBUTED"):
        keras.distribution.set_distribution(
            keras.distribution.DataParallel(auto_shard_dataset=False)
        )
    results = {}
    for method in methods:
        if "BACKUP" in os.environ and method == methods[-1]:
            model, logs = train_in_parts(method, os.environ["BACKUP"])
        else:
            model, logs = train(method)
        values = [keras.ops.convert_to_numpy(w) for w in model.weights]
        for index, value in enumerate([*values, *logs.values()]):
            results[f"{method}-{index}"] = value
    np.savez(path, **results)


if __name__ == "__main__":
    main()
