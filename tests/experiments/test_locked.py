"""Folders that one process at a time writes to."""

import subprocess
import sys

import pytest

from keras_esam.experiments import locked as module
from keras_esam.experiments.locked import locked


def test_folder_is_locked_until_the_context_ends(tmp_path):
    folder = tmp_path / "new" / "folder"
    with locked(folder):
        with pytest.raises(RuntimeError, match="Another process .*new/folder"):
            with locked(folder):
                raise AssertionError
        with locked(tmp_path / "other"):
            pass
    with pytest.raises(KeyboardInterrupt), locked(folder):
        raise KeyboardInterrupt
    with locked(folder):
        pass


def test_lock_ends_with_its_process(tmp_path):
    code = (
        "import pathlib, sys, time\n"
        "from keras_esam.experiments.locked import locked\n"
        "with locked(pathlib.Path(sys.argv[1])):\n"
        "    print('locked', flush=True)\n"
        "    time.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"locked\n"
    with pytest.raises(RuntimeError), locked(tmp_path):
        pass
    process.kill()
    process.communicate()
    with locked(tmp_path):
        pass


def test_nothing_is_locked_where_there_is_no_fcntl(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "fcntl", None)
    with locked(tmp_path), locked(tmp_path):
        pass
