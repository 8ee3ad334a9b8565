"""`MirroredStrategy` on logical CPUs of another process."""

import functools

import numpy as np
import pytest

import keras_esam
from tests.backends import tensorflow_only
from tests.distribution import references
from tests.distribution.workers import finish
from tests.distribution.workers import start
from tests.networks import dense_network

pytestmark = tensorflow_only
RUN = "tests.distribution.mirrored_run"


# What the tests of a commit check; the others are slow.
CHECKED = [
    *(
        "one_step-2",
        "micro_batches-2",
        "global_sds-2",
        "esam",
        "few-global_sds",
    ),
    *("float8", "logs", "sam-overflow", "SGD", "SAM", "ESAM depth, global"),
]


def check_parts(tmp_path, parts):
    """One process for all parts: to start one takes long."""
    path = tmp_path / "results.npz"
    finish([start([RUN, path, *parts], tmp_path, "mirrored")], tmp_path)
    results = np.load(path)
    for part in parts:
        CHECKS[part](results)


def test_two_replicas(tmp_path):
    check_parts(tmp_path, CHECKED)


@pytest.mark.slow
def test_two_and_four_replicas(tmp_path):
    check_parts(tmp_path, [part for part in CHECKS if part not in CHECKED])


@pytest.mark.slow
@pytest.mark.parametrize(
    "part", ["one_step-2", "esam", "float8", "logs", "sam-overflow"]
)
def test_part_alone(part, tmp_path):
    """For those who look for a fault: each is one of the parts above."""
    check_parts(tmp_path, [part])


def test_network_of_another_strategy_is_refused():
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        mirrored = dense_network()
        keras_esam.ESAMModel(mirrored)
    message = "in the scope of the strategy in which its network was made"
    with pytest.raises(ValueError, match=message):
        keras_esam.ESAMModel(mirrored)
    plain = dense_network()
    with strategy.scope(), pytest.raises(ValueError, match=message):
        keras_esam.ESAMModel(plain)


def check_reference(results, name, num_replicas):
    before, after = (
        [results[f"{name}-{num_replicas}-{when}-{i}"] for i in range(4)]
        for when in ("before", "after")
    )
    expected = references.weights_after(name, num_replicas, before)
    for value, other, initial in zip(after, expected, before, strict=True):
        np.testing.assert_allclose(
            value, other, rtol=0, atol=1e-5, err_msg=f"{name}-{num_replicas}"
        )
        assert np.abs(value - initial).max() > 0.01


def check_copies_after_many_steps(results, name):
    assert results[f"{name}-steps"] == 12
    assert results[f"{name}-difference"] == 0


def check_last_batch_of_fewer_samples_than_replicas(results, name):
    for key in ("loss", "sharpness"):
        assert np.isfinite(results[f"few-{name}-{key}"]).all()


def check_float8_has_the_largest_values_of_all_replicas(results, name):
    assert results[f"{name}-difference"] == 0
    np.testing.assert_allclose(
        results[f"{name}-history"], results[f"{name}-largest"], rtol=1e-6
    )


def check_logs_are_those_of_the_whole_batch(results):
    for name in ("loss", "accuracy", "sharpness"):
        np.testing.assert_allclose(
            results[f"two-{name}"], results[f"one-{name}"], rtol=1e-5
        )


def check_overflow_on_one_replica_skips_the_step_on_all(results, name):
    np.testing.assert_array_equal(
        results[f"{name}-overflow-after"], results[f"{name}-overflow-before"]
    )
    assert results[f"{name}-overflow-scale"] == 0.5
    # The base optimizer alone trains as plain Keras, whose copies of
    # BatchNormalization's statistics differ.
    if name != "base":
        assert results[f"{name}-overflow-difference"] == 0


def check_reductions(results, name, num_bytes, number):
    assert results[f"{name}-bytes"] == num_bytes
    assert results[f"{name}-number"] == number


# Kernel, bias, scale, offset, kernel and bias, in float32.
VARIABLES = [4 * n for n in (5 * 8, 8, 8, 8, 8 * 3, 3)]
GRADIENT = sum(VARIABLES)
# The subsets have the last variable, or all.
SUBSET = (VARIABLES[-1] + GRADIENT) / 2
STATISTICS = 2 * 4 * 8
REDUCTIONS = {
    "SGD": (GRADIENT, 1),
    "SAM": (GRADIENT + STATISTICS, 2),
    "SAM, global": (2 * GRADIENT + STATISTICS, 3),
    "ESAM depth": (GRADIENT + STATISTICS, 2),
    "ESAM depth, global": (GRADIENT + SUBSET + STATISTICS, 3),
    # It reduces the gradient that it keeps too.
    "one-step": (2 * GRADIENT + STATISTICS, 3),
}

check = functools.partial
CHECKS = {
    **{
        name: check(
            check_reductions, name=name, num_bytes=num_bytes, number=number
        )
        for name, (num_bytes, number) in REDUCTIONS.items()
    },
    **{
        f"{name}-{number}": check(
            check_reference, name=name, num_replicas=number
        )
        for name, number in references.CASES
    },
    **{
        name: check(check_copies_after_many_steps, name=name)
        for name in ("esam", "interval", "one_step")
    },
    **{
        f"few-{name}": check(
            check_last_batch_of_fewer_samples_than_replicas, name=name
        )
        for name in ("global_sds", "micro_batches")
    },
    **{
        name: check(
            check_float8_has_the_largest_values_of_all_replicas, name=name
        )
        for name in ("float8", "float8-interval")
    },
    "logs": check_logs_are_those_of_the_whole_batch,
    **{
        f"{name}-overflow": check(
            check_overflow_on_one_replica_skips_the_step_on_all, name=name
        )
        for name in ("sam", "interval", "base")
    },
}


def test_global_ascent_is_that_of_one_device():
    """The reference of `global_sam` is one step on the whole batch."""
    params = [np.ones((4, 5)) / 8, np.ones(5), np.ones((5, 3)), np.ones(3)]
    whole = references.weights_after("global_sam", 1, params)
    for num_replicas in (2, 4):
        parts = references.weights_after("global_sam", num_replicas, params)
        for value, expected in zip(parts, whole, strict=True):
            np.testing.assert_allclose(value, expected, rtol=0, atol=1e-12)
