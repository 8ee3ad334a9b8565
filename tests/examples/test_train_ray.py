"""Two workers of Ray Train, one of which is killed."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from tests.backends import tensorflow_only
from tests.networks import assert_identical

ROOT = pathlib.Path(__file__).parents[2]
EPOCHS = 4


def run(out):
    command = [sys.executable, "-m", "examples.train_ray", "--out", str(out)]
    command += ["--epochs", str(EPOCHS)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def workers():
    """Process numbers of Ray's workers that train."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if b"ray::RayTrainWorker" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            pass  # It has ended.
    return found


def weights(out):
    import keras

    return keras.saving.load_model(out / "network.keras").get_weights()


@tensorflow_only
@pytest.mark.slow
def test_run_whose_worker_is_killed_ends_as_an_uninterrupted_one(tmp_path):
    pytest.importorskip("ray")
    assert run(tmp_path / "whole").wait(300) == 0
    process = run(tmp_path / "killed")
    deadline = time.monotonic() + 200
    while not list((tmp_path / "killed").glob("backup/epoch-*")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    assert len(workers()) == 2
    os.kill(workers()[-1], signal.SIGKILL)
    assert process.wait(300) == 0
    assert_identical(weights(tmp_path / "killed"), weights(tmp_path / "whole"))
