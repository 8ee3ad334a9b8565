"""The example fit on CIFAR by two workers, on a few made-up images."""

import json
import time

import pytest

from tests.backends import tensorflow_only
from tests.data.files import write_cifar
from tests.distribution import workers
from tests.examples.runs import FILES

pytestmark = tensorflow_only


EPOCHS = 20


@pytest.mark.slow
def test_workers_train_and_only_the_chief_writes(tmp_path):
    data_dir, out = tmp_path / "data", tmp_path / "out"
    write_cifar(data_dir, num_train=40, num_test=20)
    options = "--recipe cifar10/resnet18/sam --width 2 --depth 1 "
    options += "--batch-size 10 --learning-rate 0.01 --strategy multiworker"
    command = ["examples.train_cifar", *options.split(), "--epochs", EPOCHS]
    command += ["--data-dir", data_dir, "--out", out]
    kill_after_an_epoch(workers.start_workers(command, tmp_path), out)
    workers.finish(workers.start_workers(command, tmp_path), tmp_path)
    result = json.loads((out / "result.json").read_text())
    assert [row["epoch"] for row in result["history"]] == [*range(EPOCHS)]
    assert {path.name for path in out.iterdir()} == FILES
    outputs = read_outputs(tmp_path)
    assert "Results:" in outputs[0] and "Results:" not in outputs[1]
    assert "Epoch 1/" not in outputs[0] and f"Epoch {EPOCHS}/" in outputs[0]

    other = workers.start_workers([*command, "--seed", 7], tmp_path)
    assert workers.return_codes(other) == [1, 1]
    for output in read_outputs(tmp_path):
        assert "seed=0. Received: seed=7" in output


def kill_after_an_epoch(processes, out):
    deadline = time.monotonic() + workers.TIMEOUT
    while not list(out.glob("backup/epoch-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    running = [process.poll() is None for process in processes]
    for process in processes:
        process.kill()
        process.wait()
    assert all(running) and not (out / "result.json").exists()


def read_outputs(folder):
    return [
        (folder / f"worker-{rank}.txt").read_text()
        for rank in range(workers.NUM_WORKERS)
    ]
