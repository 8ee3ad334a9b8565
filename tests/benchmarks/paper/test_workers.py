"""Processes beside each other, when something goes wrong."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from benchmarks.paper import workers
from tests.backends import tensorflow_only

pytestmark = tensorflow_only
ROOT = pathlib.Path(__file__).parents[3]


def call(path):
    """Leaves its process id in a file, and fails or takes long."""
    path.write_text(str(os.getpid()))
    if path.name == "wrong":
        raise ValueError(path.name)
    time.sleep(600)


def is_running(path):
    """Whether the process that left its id in a file still runs."""
    # It is empty if the process ended while it wrote.
    process_id = path.exists() and path.read_text()
    if not process_id:
        return False
    try:
        status = pathlib.Path(f"/proc/{process_id}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
def test_error_ends_all_calls(tmp_path):
    names = ("long", "wrong", "next", "never", "never", "never")
    paths = [tmp_path / name for name in names]
    with pytest.raises(ValueError, match="wrong"):
        for _ in workers.call_beside(call, paths, num_workers=2):
            pass
    assert (tmp_path / "wrong").exists() and not (tmp_path / "never").exists()
    assert not any(map(is_running, paths))


@pytest.mark.parametrize(
    "number",
    [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)],
)
def test_workers_end_with_their_parent(number, tmp_path):
    code = (
        "import pathlib, signal, sys\n"
        # In the background of a shell it would be ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from benchmarks.paper import workers\n"
        "from tests.benchmarks.paper.test_workers import call\n"
        "if __name__ == '__main__':\n"
        "    paths = [pathlib.Path(path) for path in sys.argv[1:]]\n"
        "    list(workers.call_beside(call, paths, 1))\n"
    )
    script, path = tmp_path / "script.py", tmp_path / "call"
    script.write_text(code)
    process = subprocess.Popen(
        [sys.executable, script, path, tmp_path / "never"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: path.exists() and path.read_text())
    process.send_signal(number)
    process.wait()
    wait_for(lambda: not is_running(path))
    assert not (tmp_path / "never").exists()


def wait_for(condition):
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_number_of_trainings_at_a_time(monkeypatch):
    monkeypatch.setattr(workers, "num_cpus", lambda: 8)
    assert workers.number_of_jobs(None, 2) == 2
    assert workers.number_of_jobs(None, 100) == 8
    assert workers.number_of_jobs(6, 1) == 6
    with pytest.raises(ValueError, match="--jobs must be positive"):
        workers.number_of_jobs(0, 2)
    devices = ["GPU:0"]
    monkeypatch.setattr(
        "tensorflow.config.list_physical_devices", lambda kind: devices
    )
    assert workers.number_of_jobs(None, 2) == 1
    with pytest.raises(ValueError, match="On a GPU .*Received: --jobs 2"):
        workers.number_of_jobs(2, 2)
