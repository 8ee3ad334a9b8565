"""The example fits on JAX, as Keras allows one backend in each process."""

import os
import pathlib
import subprocess
import sys

from tests.backends import tensorflow_only

pytestmark = tensorflow_only
ROOT = pathlib.Path(__file__).parents[2]


def test_example_fits_run_on_jax_and_refuse_strategies_there(tmp_path):
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        # To compile takes most of the time.
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    result = subprocess.run(
        [sys.executable, "-m", "tests.examples.backend_run", tmp_path],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    for strategy in ("mirrored", "multiworker"):
        refusal = f"Received: {strategy} with KERAS_BACKEND=jax"
        assert result.stderr.count(refusal) == 2
