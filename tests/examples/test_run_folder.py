"""The folder of a training."""

import json
import subprocess
import sys

import pytest

from examples.run_folder import check_settings
from examples.run_folder import locked
from examples.run_folder import write_json


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
        "import pathlib, sys, time, filelock\n"
        "with filelock.FileLock(sys.argv[1] + '/lock'):\n"
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


def test_other_settings_are_named(tmp_path):
    check_settings({"a": 1, "b": [2]}, {"b": [2], "a": 1}, tmp_path)
    with pytest.raises(
        ValueError, match="trained with a=1, c=None. Received: "
    ):
        check_settings({"a": 2, "c": 3}, {"a": 1}, tmp_path)


def test_numbers_that_are_not_finite_are_null(tmp_path):
    write_json({"a": [1.5, float("nan"), -float("inf")]}, tmp_path / "a.json")
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == {"a": [1.5, None, None]} and "N" not in text
