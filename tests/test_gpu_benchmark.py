"""The benchmarks for a GPU, as far as they need none."""

import json
import os
import pathlib
import queue
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import pytest

from benchmarks import gpu
from benchmarks import table1
from benchmarks.measurement import describe_machine
from benchmarks.table1_runs import summary
from benchmarks.turns import TakeTurns
from keras_esam.callbacks import AtomicBackup
from tests.test_benchmarks import ROOT

SIZES = "--width 2 --depth 1 --num-train 20 --num-test 10 --precision float32"


@pytest.fixture
def train(tmp_path):
    """Function that trains SGD as in Table 1 and returns its history."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 20), ("test", 10)):
        images = rng.integers(0, 256, (count, 32, 32, 3))
        arrays[f"x_{split}"] = images.astype("uint8")
        arrays[f"y_{split}"] = np.arange(count)[:, None] % 10
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)

    def train(folder, *options, epochs=2):
        folder = tmp_path / folder
        arguments = [path, *SIZES.split(), "--epochs", epochs, *options]
        arguments += ["--methods", "SGD", "--out", folder]
        table1.main([str(argument) for argument in arguments])
        return AtomicBackup(folder / "SGD-0").history

    return train


def losses(history):
    return [[epoch["loss"], epoch["val_loss"]] for epoch in history]


def test_table1_goes_on_after_a_kill_as_if_there_was_none(train, monkeypatch):
    expected = losses(train("whole"))
    assert len(train("cut", "--minutes", "0")) == 1
    save = keras.Model.save_weights

    def killed(self, path, *args, **kwargs):
        save(self, path, *args, **kwargs)
        with open(path, "r+b") as file:
            file.truncate(100)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "save_weights", killed)
        with pytest.raises(KeyboardInterrupt):
            train("cut")
    np.testing.assert_allclose(losses(train("cut")), expected, rtol=1e-4)


def test_table1_refuses_other_settings(train, tmp_path):
    train("runs", "--minutes", "0")
    before = (tmp_path / "runs" / "settings.json").read_text()
    with pytest.raises(ValueError, match=r"epochs=2. Received: epochs=3"):
        train("runs", epochs=3)
    assert (tmp_path / "runs" / "settings.json").read_text() == before
    assert len(train("runs", "--seeds", "1")) == 2
    table = (tmp_path / "runs" / "summary.md").read_text()
    backend = keras.backend.backend()
    assert f"2 epochs, float32 with float32 logits, {backend}, " in table
    [row] = [line for line in table.splitlines() if "| SGD |" in line]
    assert row.endswith("| 2 |")


def test_processes_compile_together_and_train_in_turn(tmp_path):
    turns = [TakeTurns(tmp_path / "turns") for _ in range(2)]
    for turn in turns:
        turn.on_train_begin()
        turn.on_epoch_begin(0)
        logs = {"images_per_second": 3.0}
        turn.on_epoch_end(0, logs)
        assert np.isnan(logs["images_per_second"])
    alone = queue.SimpleQueue()

    def go_on(turn):
        turn.on_epoch_begin(1)
        alone.put(turn)

    threads = [threading.Thread(target=go_on, args=(t,)) for t in turns]
    threads[0].start()
    time.sleep(0.1)
    assert alone.empty()  # while the second one compiles
    threads[1].start()
    for _ in turns:
        turn = alone.get(timeout=60)
        time.sleep(0.1)
        assert alone.empty()
        logs = {"images_per_second": 3.0}
        turn.on_epoch_end(1, logs)
        assert logs == {"images_per_second": 3.0}
        turn.on_train_end()
    for thread in threads:
        thread.join()


def test_table1_has_a_process_for_each_method(train, tmp_path):
    assert len(train("together", "--together")) == 2
    assert (tmp_path / "together" / "turns").exists()
    table = (tmp_path / "together" / "summary.md").read_text()
    assert "| SGD | " in table


def test_runs_that_are_not_finished_have_no_accuracy(tmp_path):
    backup = AtomicBackup(tmp_path / "ESAM_depth-0")
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    backup.set_model(network)
    logs = {"accuracy": 0.5, "val_accuracy": 0.25}
    backup.on_epoch_end(0, {**logs, "images_per_second": float("nan")})
    settings = dict.fromkeys(("width", "depth", "num_train"), 1)
    settings |= {"epochs": 2, "precision": "float32", "backend": "jax"}
    known = {"settings": settings, "machines": [describe_machine()]}
    assert "| ESAM depth |  |  |  |  | 1 |" in summary(tmp_path, known)
    settings["epochs"] = 1
    assert "| ESAM depth | 25.00 |" in summary(tmp_path, known)


def test_gpu_measures_every_mode_in_every_setting(tmp_path):
    arguments = gpu.parse_arguments(["data.npz", "--out", str(tmp_path)])
    commands = gpu.throughput_commands(arguments)
    assert len(commands) == 8 * len(gpu.MEASURED)
    folder = tmp_path / "wider_128_mixed_bfloat16" / "SDS"
    line = " ".join(commands[folder])
    assert "--network wide_resnet --width 10 --depth 4" in line
    assert "--precision mixed_bfloat16 --steps 50" in line
    assert line.endswith(f"--no-count --methods SDS --out {folder}")
    line = " ".join(commands[tmp_path / "resnet18_128_float32" / "SAM"])
    assert "--no-count" not in line
    line = " ".join(gpu.table1_command(arguments))
    assert "data.npz --seeds 1 --minutes 25" in line


def test_a_call_of_gpu_can_do_a_part():
    options = "data.npz --seeds 3 --settings table1 resnet18_128_float32"
    arguments = gpu.parse_arguments(
        [*options.split(), "--methods", "bare fit", "SAM"]
    )
    commands = gpu.throughput_commands(arguments)
    assert [folder.name for folder in commands] == ["bare_fit", "SAM"]
    command = gpu.table1_command(arguments)
    assert command[-2:] == ["--methods", "SAM"]
    assert "--seeds 3" in " ".join(command)
    with pytest.raises(SystemExit):
        gpu.parse_arguments(["data.npz", "--settings", "resnet18"])


def test_gpu_goes_on_after_the_last_method_that_was_measured(
    tmp_path, monkeypatch, capsys
):
    calls = []

    def measure(command, folder):
        method, out = command[-3], pathlib.Path(command[-1])
        calls.append(method)
        if calls == ["SGD", "SAM"]:
            raise KeyboardInterrupt
        row = {"wall_ms": [1, 2, 3], "images_per_second": [4, 5, 6]}
        row |= {"speed_relative_to_SAM": [1, 1.5, 2], "predicted": 1.25}
        results = {
            "machine": describe_machine(),
            "clock": "wall",
            "summary": {method: row},
            "first_use_seconds": {method: 7.0},
            "memory_mib": {method: [{"peak": 8.0, "compiled": None}]},
        }
        out.mkdir(parents=True)
        (out / "results.json").write_text(json.dumps(results))

    monkeypatch.setattr(gpu, "run", measure)
    arguments = ["data.npz", "--small", "--settings", "small_float32"]
    arguments += ["--out", str(tmp_path)]
    with pytest.raises(KeyboardInterrupt):
        gpu.main(arguments)
    gpu.main(arguments)
    assert calls == ["SGD", "SAM", "SAM", "ESAM depth"]
    table = (tmp_path / "summary.md").read_text()
    assert table in capsys.readouterr().out
    assert table.count("| 1.500 (1.000 to 2.000) | 1.250 | 7.0 | 8 |  |") == 3


def test_gpu_needs_no_tensorflow():
    """Nor `tf_keras`, on JAX: their import fails here."""
    code = (
        "import sys\n"
        "for name in ('tensorflow', 'tf_keras', 'tensorflow_datasets'):\n"
        "    sys.modules[name] = None\n"
        "from benchmarks import gpu, table1, throughput\n"
        "gpu.main(['data.npz', '--dry-run'])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"KERAS_BACKEND": "jax"},
        check=True,
        capture_output=True,
        text=True,
    )
    lines = result.stdout.splitlines()
    assert len(lines) == 8 * len(gpu.MEASURED) + 1
    assert "benchmarks.table1 data.npz" in lines[-1]
