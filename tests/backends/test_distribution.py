"""`keras.distribution.DataParallel` on JAX equals one device.

On simulated devices, and in processes of their own that talk to one another.
"""

import os
import pathlib
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest

if keras.backend.backend() != "jax":
    pytest.skip("for the JAX backend", allow_module_level=True)

ROOT = pathlib.Path(__file__).parents[2]
METHODS = ["esam_depth"]
TIMEOUT = 300  # Seconds until it is a failure.
TOLERANCE = 1e-5


def start(path, num_devices=1, **environment):
    flags = f"--xla_force_host_platform_device_count={num_devices}"
    environment = {
        "XLA_FLAGS": flags,
        "JAX_PLATFORMS": "cpu",
        **environment,
    }
    return subprocess.Popen(
        [sys.executable, "-m", "tests.backends.distribution_run", path]
        + METHODS,
        cwd=ROOT,
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(processes):
    try:
        for process in processes:
            _, errors = process.communicate(timeout=TIMEOUT)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    path = tmp_path_factory.mktemp("one") / "one.npz"
    finish([start(path)])
    return path


def assert_equal(path, expected_path):
    with np.load(path) as results, np.load(expected_path) as expected:
        assert results.files == expected.files
        for key in expected.files:
            np.testing.assert_allclose(
                results[key],
                expected[key],
                rtol=TOLERANCE,
                atol=TOLERANCE,
                err_msg=key,
            )


def test_eight_devices_equal_one(one_device, tmp_path):
    path = tmp_path / "eight.npz"
    finish([start(path, num_devices=8, DISTRIBUTED="1")])
    assert_equal(path, one_device)


@pytest.mark.slow
def test_two_processes_equal_one_device(one_device, tmp_path):
    """One of their trainings goes on from the backup that they share."""
    paths = [tmp_path / f"{index}.npz" for index in range(2)]
    address = f"127.0.0.1:{free_port()}"
    finish(
        [
            start(
                path,
                DISTRIBUTED="1",
                NUM_PROCESSES="2",
                PROCESS_ID=str(index),
                ADDRESS=address,
                BACKUP=str(tmp_path / "backup"),
            )
            for index, path in enumerate(paths)
        ]
    )
    for path in paths:
        assert_equal(path, one_device)
    names = {path.name for path in (tmp_path / "backup").iterdir()}
    assert names == {"epoch-000002"}
