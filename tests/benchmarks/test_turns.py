"""Processes that use one device in turn."""

import queue
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from benchmarks import turns
from benchmarks.turns import TakeTurns
from tests.benchmarks.test_throughput import ROOT


@pytest.fixture
def started(monkeypatch):
    """List of the processes that `run_together` starts."""
    processes = []
    popen = subprocess.Popen

    def start(*args, **kwargs):
        processes.append(popen(*args, **kwargs))
        return processes[-1]

    monkeypatch.setattr(turns.subprocess, "Popen", start)
    return processes


def test_processes_compile_together_and_train_in_turn(tmp_path):
    both = [TakeTurns(tmp_path / "turns") for _ in range(2)]
    for turn in both:
        turn.on_train_begin()
        turn.on_epoch_begin(0)
        logs = {"images_per_second": 3.0}
        turn.on_epoch_end(0, logs)
        assert np.isnan(logs["images_per_second"])
    alone = queue.SimpleQueue()

    def go_on(turn):
        turn.on_epoch_begin(1)
        alone.put(turn)

    threads = [threading.Thread(target=go_on, args=(t,)) for t in both]
    threads[0].start()
    time.sleep(0.1)
    assert alone.empty()  # while the second one compiles
    threads[1].start()
    for _ in both:
        turn = alone.get(timeout=60)
        time.sleep(0.1)
        assert alone.empty()
        logs = {"images_per_second": 3.0}
        turn.on_epoch_end(1, logs)
        assert logs == {"images_per_second": 3.0}
        turn.on_train_end()
    for thread in threads:
        thread.join()


def test_when_a_process_fails_the_others_go_on_to_their_ends(tmp_path, started):
    commands = {
        "bad": ["sh", "-c", "exit 3"],
        "killed": ["sh", "-c", "kill -KILL $$"],
        "good": ["sh", "-c", f"sleep 0.1; touch '{tmp_path}/done'"],
    }
    with pytest.raises(RuntimeError, match="'bad': 3, 'killed': -9}"):
        turns.run_together(commands)
    assert (tmp_path / "done").exists()
    assert [process.returncode for process in started] == [3, -9, 0]


def test_no_process_is_left_when_one_cannot_be_started(started):
    commands = {"first": ["sleep", "60"], "second": ["/no/such/command"]}
    with pytest.raises(FileNotFoundError):
        turns.run_together(commands)
    assert [process.returncode for process in started] == [-signal.SIGTERM]


@pytest.fixture
def interruptible():
    """In the background of a shell SIGINT is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_no_process_is_left_after_an_interruption(started, interruptible):
    main = threading.main_thread().ident
    timer = threading.Timer(0.1, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        turns.run_together(
            {"first": ["sleep", "60"], "second": ["sleep", "60"]}
        )
    codes = [process.returncode for process in started]
    assert codes == [-signal.SIGTERM] * 2


CHILD = """
import sys, time, types
callbacks = types.SimpleNamespace(Callback=object)
sys.modules["keras"] = types.SimpleNamespace(callbacks=callbacks)
from benchmarks import turns
turns.end_with_parent(int(sys.argv[1]), interval=0.01)
time.sleep(0.1)
print("lives", flush=True)
time.sleep(60)
"""
PARENT = """
import os, subprocess, sys
subprocess.run([sys.executable, "-c", sys.argv[1], str(os.getpid())])
"""


def test_processes_end_when_their_parent_is_killed():
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout.readline() == "lives\n"
    parent.kill()
    # The pipe ends when both have.
    assert parent.communicate(timeout=30) == ("", None)


def test_a_process_whose_parent_ended_before_it_looked_ends():
    result = subprocess.run(
        [sys.executable, "-c", CHILD, "0"],
        cwd=ROOT,
        capture_output=True,
        timeout=30,
    )
    assert (result.returncode, result.stdout) == (1, b"")
