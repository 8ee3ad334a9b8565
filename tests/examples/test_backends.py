"""The training scripts on JAX, as Keras allows one backend in each process.

Command:   KERAS_BACKEND=jax python -m tests.examples.test_backends FOLDER
"""

import os
import pathlib
import subprocess
import sys

import pytest

from tests.backends import tensorflow_only
from tests.data.files import write_cifar
from tests.examples import runs

pytestmark = tensorflow_only
ROOT = pathlib.Path(__file__).parents[2]


def test_training_runs_on_jax_and_refuses_strategies_there(tmp_path):
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        # To compile takes most of the time.
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    result = subprocess.run(
        [sys.executable, "-m", "tests.examples.test_backends", tmp_path],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    for strategy in ("mirrored", "multiworker"):
        refusal = f"Received: {strategy} with KERAS_BACKEND=jax"
        assert result.stderr.count(refusal) == 1


def train_on_jax(folder):
    from examples import train_cifar

    patch = pytest.MonkeyPatch()
    for strategy in ("mirrored", "multiworker"):
        with pytest.raises(SystemExit):
            runs.run(train_cifar, f"--strategy {strategy}", folder, patch)
    write_cifar(folder / "tfds", num_train=20, num_test=20)
    options = f"--batch-size 10 --epochs 3 --data-dir {folder / 'tfds'}"
    runs.assert_resumed_run_ends_as_the_whole_one(
        train_cifar, options, folder, patch
    )


if __name__ == "__main__":
    train_on_jax(pathlib.Path(sys.argv[1]))
