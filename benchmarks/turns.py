"""Trainings in several processes that use one device.

They compile beside one another, which takes a large part of a short training,
and then train one after the other, each as fast as if it were alone.
"""

import fcntl
import math
import os
import subprocess
import threading
import time

import keras


class StopAfter(keras.callbacks.Callback):
    """Stops at the end of the epoch in which the time is up."""

    def __init__(self, seconds):
        super().__init__()
        self._left = seconds

    def on_epoch_begin(self, epoch, logs=None):
        self._begin = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        self._left -= time.monotonic() - self._begin
        if self._left < 0:
            self._model.stop_training = True


class TakeTurns(keras.callbacks.Callback):
    """Trains the first epoch beside other processes, and the others alone.

    The speed of the first epoch says nothing, and is replaced by NaN. In the
    list of callbacks it comes after `ThroughputLogger`.

    Args:
        path: Path of a file, the same one for all processes.
    """

    def __init__(self, path):
        super().__init__()
        self._path = path

    def on_train_begin(self, logs=None):
        self._is_alone = False
        self._trained = False
        self._file = open(self._path, "a")
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def on_epoch_begin(self, epoch, logs=None):
        if self._trained and not self._is_alone:
            # Who waits for a turn would keep the others from theirs.
            fcntl.flock(self._file, fcntl.LOCK_UN)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self._is_alone = True

    def on_epoch_end(self, epoch, logs=None):
        self._trained = True
        if not self._is_alone and "images_per_second" in (logs or {}):
            logs["images_per_second"] = math.nan

    def on_train_end(self, logs=None):
        self._file.close()


def run_together(commands):
    """Runs commands at once, and waits for all of them.

    If one fails the others still run to their ends. If this process is
    interrupted they are ended first; if it is killed, `end_with_parent` does.

    Args:
        commands: Dict of a name to the list of a command's words.

    Raises:
        RuntimeError: If some fail.
    """
    processes = {}
    try:
        for name, command in commands.items():
            processes[name] = subprocess.Popen(command)
        codes = {name: process.wait() for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.wait()
    failed = {name: code for name, code in codes.items() if code}
    if failed:
        raise RuntimeError(
            "The others are done, but these failed, with the exit status "
            f"(that of a signal is negative): {failed}"
        )


def end_with_parent(parent, interval=1.0):
    """Ends this process when the one that started it has ended, however.

    Args:
        parent: Integer, the other one's process id. Asking for it here would
            be too late if it has ended already.
        interval: Float, seconds between two looks.
    """

    def watch():
        while os.getppid() == parent:
            time.sleep(interval)
        os._exit(1)  # The main thread may be in the middle of a long step.

    threading.Thread(target=watch, daemon=True).start()
