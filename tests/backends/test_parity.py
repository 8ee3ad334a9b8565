"""Backends, each in a process of its own, against each other.

The same network from the same weights, with the same masks, for twenty steps.
Masks of `"weight"` and random rankings, which a backend draws by its own
generator, are those of NumPy here.
"""

import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests.backends import tensorflow_only

pytestmark = tensorflow_only
ROOT = pathlib.Path(__file__).parents[2]
OTHERS = [name for name in ("jax", "torch") if importlib.util.find_spec(name)]
RESUMED = ["esam_depth", "one_step"]
OTHER_METHODS = [
    *("sgd", "sam", "asam", "swp_variable", "swp_weight"),
    *("esam_depth_random", "one_step_loss"),
]
TOLERANCE = 1e-5


def train(backend, folder, methods):
    subprocess.run(
        [sys.executable, "-m", "tests.backends.parity_run", folder, *methods],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": backend},
        check=True,
    )


def load(path):
    with np.load(path) as weights:
        return [weights[key] for key in weights.files]


@pytest.mark.slow
@pytest.mark.parametrize("backend", OTHERS)
@pytest.mark.parametrize("methods", [RESUMED, OTHER_METHODS])
def test_twenty_steps_and_checkpoints_equal_those_of_tensorflow(
    backend, methods, tmp_path
):
    """Also where the second half goes on from the other one's checkpoint."""
    train("tensorflow", tmp_path, methods)
    train(backend, tmp_path, methods)
    runs = [backend]
    if methods == RESUMED:
        train("tensorflow", tmp_path, RESUMED)
        runs += [f"tensorflow-{backend}", f"{backend}-tensorflow"]
    start = load(tmp_path / "start.npz")
    for method in methods:
        expected = load(tmp_path / f"tensorflow-{method}.npz")
        changes = [
            np.abs(a - b).max() for a, b in zip(start, expected, strict=True)
        ]
        assert min(changes) > 10 * TOLERANCE
        for run in runs:
            result = load(tmp_path / f"{run}-{method}.npz")
            for a, b in zip(result, expected, strict=True):
                np.testing.assert_allclose(
                    a, b, rtol=0, atol=TOLERANCE, err_msg=f"{run}, {method}"
                )
