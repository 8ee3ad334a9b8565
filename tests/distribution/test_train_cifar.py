"""The example fit on CIFAR by two workers, on a few made-up images."""

import json

import pytest

from tests.backends import tensorflow_only
from tests.data.files import write_cifar
from tests.distribution import workers

pytestmark = tensorflow_only


@pytest.mark.slow
def test_workers_train_and_only_the_chief_writes(tmp_path):
    data_dir, out = tmp_path / "data", tmp_path / "out"
    write_cifar(data_dir, num_train=40, num_test=20)
    options = "--recipe cifar10/resnet18/sam --width 2 --depth 1 "
    options += "--batch-size 10 --learning-rate 0.01 --strategy multiworker"
    command = ["examples.train_cifar", *options.split()]
    command += ["--data-dir", data_dir, "--out", out]
    # The second time it goes on.
    for epochs in (1, 2):
        started = workers.start_workers(
            [*command, "--epochs", epochs], tmp_path
        )
        workers.finish(started, tmp_path)
        result = json.loads((out / "result.json").read_text())
        assert [row["epoch"] for row in result["history"]] == [*range(epochs)]
    assert {path.name for path in out.iterdir()} == {
        *("backup", "best.weights.h5", "last.keras"),
        *("result.json", "tensorboard"),
    }
    outputs = [(tmp_path / f"worker-{i}.txt").read_text() for i in range(2)]
    assert "Results:" in outputs[0] and "Results:" not in outputs[1]
