"""Processes in which packages are as if they were not installed."""

import os
import subprocess
import sys

import keras

# Neither imported nor found.
HIDE = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *args, **kwargs):
        if name.split(".")[0] in {packages}:
            return None
        return self.finder.find_spec(name, *args, **kwargs)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
for name in {packages}:
    try:
        __import__(name)
        raise SystemExit(name + " is found.")
    except ModuleNotFoundError:
        pass
"""


def run_without(packages, code, **kwargs):
    """Standard output of a process that runs `code` without the `packages`."""
    return subprocess.run(
        [sys.executable, "-c", HIDE.format(packages=packages) + code],
        env={**os.environ, "KERAS_BACKEND": keras.backend.backend()},
        check=True,
        capture_output=True,
        text=True,
        **kwargs,
    ).stdout
