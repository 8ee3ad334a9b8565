"""Processes that are killed (SIGKILL) at random moments and started again."""

import json
import multiprocessing
import random
import time

import h5py
import numpy as np
import pytest

from tests.backends import tensorflow_only
from tests.faults import killed_run

pytestmark = tensorflow_only
# A life ends in its second epoch, or some more if the kill comes late.
EPOCHS_PER_LIFE = 2
SPARE_EPOCHS = 5
# Seconds until it is a failure, on a busy machine too.
TIMEOUT = 120


def run(folder, epochs, moment=None, count=1, delay=0.0):
    """Runs the training in a process of its own.

    It is killed `delay` seconds after the moment came for the `count`-th time.
    """
    # Its server has imported what the processes need, and computed nothing.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tensorflow", "keras"])
    here, there = context.Pipe()
    process = context.Process(
        target=killed_run.train, args=(folder, epochs, there)
    )
    process.start()
    there.close()
    try:
        while count:
            assert here.poll(TIMEOUT)
            told = here.recv()
            count -= told == (moment or "finished")
            assert told != "finished" or moment is None
        time.sleep(delay)
    finally:
        if moment is not None:
            process.kill()
        process.join(TIMEOUT)
        code = process.exitcode
        process.kill()
        here.close()
    assert code == (0 if moment is None else -9)


def read_backup(folder):
    """Arrays of the latest backup by name, and its logs; all are whole."""
    backups = sorted(folder.glob("epoch-*"))
    if not backups:
        return {}, []
    arrays = {}

    def read(name, entry):
        if isinstance(entry, h5py.Dataset):
            arrays[name] = np.asarray(entry)

    for backup in backups:
        arrays.clear()
        with h5py.File(backup / "latest.weights.h5") as file:
            file.visititems(read)
        logs = json.loads((backup / "logs.json").read_text())
        assert [row["epoch"] for row in logs] == list(range(len(logs)))
        assert backup.name == f"epoch-{len(logs):06d}"
    return arrays, logs


@pytest.mark.slow
def test_run_that_is_killed_again_and_again_ends_as_the_whole_one(tmp_path):
    num_kills = 20
    epochs = num_kills * (EPOCHS_PER_LIFE + SPARE_EPOCHS)
    run(tmp_path / "whole", epochs)
    arrays, logs = read_backup(tmp_path / "whole")
    assert len(logs) == epochs

    rng = random.Random(num_kills)
    folder = tmp_path / "killed"
    finished = 0
    for index in range(num_kills):
        moment = killed_run.MOMENTS[index % len(killed_run.MOMENTS)]
        most = {
            "trace": 2,
            "step": killed_run.STEPS_PER_EPOCH * EPOCHS_PER_LIFE,
            "checkpoint": EPOCHS_PER_LIFE,
        }
        # To trace, step and save take about 200, 5 and 30 milliseconds.
        longest = {"trace": 0.2, "step": 0.005, "checkpoint": 0.03}
        count = rng.randint(1, most[moment])
        run(folder, epochs, moment, count, rng.uniform(0, longest[moment]))
        _, rows = read_backup(folder)
        assert finished <= len(rows) < epochs
        assert rows == logs[: len(rows)]
        finished = len(rows)
    assert finished
    run(folder, epochs)
    resumed, rows = read_backup(folder)
    assert rows == logs
    assert resumed.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(resumed[name], array)
    names = {path.name for path in folder.iterdir()}
    assert names == {f"epoch-{epochs:06d}"}
