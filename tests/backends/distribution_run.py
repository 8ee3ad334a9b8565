"""Trainings with `keras.distribution.DataParallel`, for `test_distribution`.

Usage: python -m tests.backends.distribution_run FILE METHOD [METHOD ...]

Trains on all devices, or with `NUM_PROCESSES`, `PROCESS_ID` and `ADDRESS` in
the environment on those of several processes, each of which reads its part of
every batch. `FILE` gets the weights and the logs. Without `DISTRIBUTED` in the
environment it is one device.
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

from tests.backends import parity_run  # noqa: E402

BATCH_SIZE = 16


def own_part(values):
    """What this process reads: its part of every batch."""
    batches = values.reshape(-1, NUM_PROCESSES, BATCH_SIZE // NUM_PROCESSES)
    return batches[:, PROCESS_ID].reshape(-1)


def train(method):
    keras.utils.set_random_seed(3)
    model = parity_run.make_model(method)
    x, y, weights = parity_run.make_data()
    own = own_part(np.arange(len(x) // BATCH_SIZE * BATCH_SIZE))
    history = model.fit(
        x[own],
        y[own],
        sample_weight=weights[own],
        batch_size=BATCH_SIZE // NUM_PROCESSES,
        epochs=2,
        shuffle=False,
        verbose=0,
    )
    values = [keras.ops.convert_to_numpy(w) for w in model.weights]
    return [*values, *map(np.asarray, history.history.values())]


def main():
    path, *methods = sys.argv[1:]
    if os.environ.get("DISTRIBUTED"):
        keras.distribution.set_distribution(
            keras.distribution.DataParallel(auto_shard_dataset=False)
        )
    results = {}
    for method in methods:
        for index, value in enumerate(train(method)):
            results[f"{method}-{index}"] = value
    np.savez(path, **results)


if __name__ == "__main__":
    main()
