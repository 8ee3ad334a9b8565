"""`MirroredStrategy` on logical CPUs of another process."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests.backends import tensorflow_only
from tests.distribution import references

pytestmark = tensorflow_only
ROOT = pathlib.Path(__file__).parents[2]
TIMEOUT = 600  # Seconds until it is a failure.


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    path = tmp_path_factory.mktemp("mirrored") / "results.npz"
    run = subprocess.run(
        [sys.executable, "-m", "tests.distribution.mirrored_run", path],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        timeout=TIMEOUT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    return np.load(path)


def weights_of(results, name, num_replicas, when):
    return [
        results[f"{name}-{num_replicas}-{when}-{index}"] for index in range(4)
    ]


@pytest.mark.parametrize(("name", "num_replicas"), references.CASES)
def test_weights_equal_the_reference(results, name, num_replicas):
    before = weights_of(results, name, num_replicas, "before")
    after = weights_of(results, name, num_replicas, "after")
    expected = references.weights_after(name, num_replicas, before)
    for value, other, start in zip(after, expected, before, strict=True):
        np.testing.assert_allclose(value, other, rtol=0, atol=1e-5)
        assert np.abs(value - start).max() > 0.01


def test_global_ascent_is_that_of_one_device():
    """The reference of `global_sam` is one step on the whole batch."""
    params = [np.ones((4, 5)) / 8, np.ones(5), np.ones((5, 3)), np.ones(3)]
    whole = references.weights_after("global_sam", 1, params)
    for num_replicas in (2, 4):
        parts = references.weights_after("global_sam", num_replicas, params)
        for value, expected in zip(parts, whole, strict=True):
            np.testing.assert_allclose(value, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["esam", "interval", "one_step"])
def test_copies_are_bit_identical_after_300_steps(results, name):
    assert results[f"{name}-steps"] == 300
    assert results[f"{name}-difference"] == 0


def test_last_batch_may_be_smaller_than_the_number_of_replicas(results):
    for name in ("loss", "sharpness"):
        assert np.isfinite(results[f"few-{name}"]).all()


def test_logs_are_those_of_the_whole_batch(results):
    for name in ("loss", "accuracy", "sharpness"):
        np.testing.assert_allclose(
            results[f"two-{name}"], results[f"one-{name}"], rtol=1e-5
        )


def test_overflow_on_one_replica_skips_the_step_on_all(results):
    np.testing.assert_array_equal(
        results["overflow-after"], results["overflow-before"]
    )
    assert results["overflow-scale"] == 2**14
    assert results["overflow-difference"] == 0
