"""Processes of a cluster on this machine, none of which outlives its test."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[2]
NUM_WORKERS = 2
# Seconds until it is a failure, on a busy machine too.
TIMEOUT = 900


def free_addresses(count):
    listeners = [socket.socket() for _ in range(count)]
    for listener in listeners:
        listener.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{s.getsockname()[1]}" for s in listeners]
    for listener in listeners:
        listener.close()
    return addresses


def start(command, folder, name, **environment):
    """Starts a module of the project, whose output goes to a file."""
    with (folder / f"{name}.txt").open("w") as output:
        return subprocess.Popen(
            [sys.executable, "-m", *map(str, command)],
            cwd=ROOT,
            env={
                **os.environ,
                "KERAS_BACKEND": "tensorflow",
                "CUDA_VISIBLE_DEVICES": "-1",
                **environment,
            },
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def start_workers(command, folder, **environment):
    cluster = {"worker": free_addresses(NUM_WORKERS)}
    return [
        start(
            command,
            folder,
            f"worker-{index}",
            TF_CONFIG=json.dumps(
                {
                    "cluster": cluster,
                    "task": {"type": "worker", "index": index},
                }
            ),
            **environment,
        )
        for index in range(NUM_WORKERS)
    ]


def return_codes(processes):
    """Waits for the processes and ends those that take too long."""
    deadline = time.monotonic() + TIMEOUT
    try:
        return [
            process.wait(max(0, deadline - time.monotonic()))
            for process in processes
        ]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def finish(processes, folder):
    """Waits for the processes, all of which must succeed."""
    codes = return_codes(processes)
    outputs = [path.read_text() for path in sorted(folder.glob("*.txt"))]
    assert not any(codes), "\n".join(outputs)
