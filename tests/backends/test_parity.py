"""Backends, each in a process of its own, against each other.

The same network from the same weights, with the same masks, for twenty steps.
Masks of `"weight"` and random rankings are drawn by the backend, so these
methods are left out.
"""

import importlib.util
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests.methods import METHODS

ROOT = pathlib.Path(__file__).parents[2]
OTHERS = [b for b in ("jax", "torch") if importlib.util.find_spec(b)]
COMPARABLE = [
    name
    for name, kwargs in METHODS.items()
    if kwargs.get("granularity") != "weight"
    and kwargs.get("rank_by") != "random"
]
TOLERANCE = 1e-5


def train(backend, method, start, end, *checkpoint):
    environment = {**os.environ, "KERAS_BACKEND": backend}
    subprocess.run(
        [sys.executable, "-m", "tests.backends.parity_run", method]
        + [start, end, *checkpoint],
        cwd=ROOT,
        env=environment,
        check=True,
    )
    with np.load(end) as weights:
        return [weights[key] for key in weights.files]


def assert_close(first, second):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("backend", OTHERS)
@pytest.mark.parametrize("method", COMPARABLE)
def test_twenty_steps_equal_those_on_tensorflow(method, backend, tmp_path):
    start = tmp_path / "start.npz"
    expected = train("tensorflow", method, start, tmp_path / "tensorflow.npz")
    result = train(backend, method, start, tmp_path / "other.npz")
    assert_close(result, expected)
    with np.load(start) as weights:
        changes = [
            np.abs(weights[key] - value).max()
            for key, value in zip(weights.files, expected, strict=True)
        ]
    assert min(changes) > 1e-3


@pytest.mark.parametrize("method", ["esam_depth", "one_step"])
@pytest.mark.parametrize("backend", OTHERS)
@pytest.mark.parametrize("direction", ["to", "from"])
def test_a_checkpoint_of_another_backend_goes_on(
    direction, backend, method, tmp_path
):
    start = tmp_path / "start.npz"
    whole = train("tensorflow", method, start, tmp_path / "whole.npz")
    order = ["tensorflow", backend]
    checkpoint = tmp_path / "half.weights.h5"
    for name in order if direction == "to" else order[::-1]:
        result = train(name, method, start, tmp_path / "end.npz", checkpoint)
    assert_close(result, whole)
