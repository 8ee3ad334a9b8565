"""The benchmarks for a GPU, as far as they need none."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from benchmarks import gpu
from benchmarks import table1
from benchmarks import table1_runs
from benchmarks.measurement import describe_machine
from benchmarks.table1_runs import summary
from examples.run_folder import locked
from keras_esam import recipes
from keras_esam.callbacks import AtomicBackup
from tests.benchmarks.test_throughput import ROOT

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


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("SGD", "sgd"),
        ("SAM", "sam"),
        ("ESAM variable", "esam"),
        ("SWP variable", "esam-swp"),
        ("SDS", "esam-sds"),
        ("SWP depth, beta 0.3", "fast-sam"),
    ],
)
def test_methods_of_table1_are_trained_by_their_recipes(method, name):
    recipe = recipes.get(f"cifar10/resnet18/{name}")
    images = np.zeros((1, 32, 32, 3), "uint8")
    model = table1.make_model(method, images, seed=3, steps=7, width=2, depth=1)
    for key, value in recipe.esam.items():
        if key != "granularity" or recipe.esam["beta"] < 1:
            assert getattr(model, key) == value, key
    optimizers = model.optimizer, recipe.make_optimizer(7)
    own, expected = (o.get_config() | {"name": "sgd"} for o in optimizers)
    assert own == expected
    used = table1_runs.recipe_of(method)
    assert (used.epochs, used.batch_size) == (recipe.epochs, recipe.batch_size)


def test_network_of_table1_is_that_of_its_recipe():
    images = np.zeros((1, 32, 32, 3), "uint8")
    model = table1.make_model("SAM", images, seed=3, steps=7, width=2, depth=1)
    keras.utils.set_random_seed(3)
    recipe = recipes.get("cifar10/resnet18/sam")
    expected = recipe.make_network(width=2, depth=1)
    weights = model.trainable_variables, expected.trainable_variables
    for own, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(np.asarray(own), np.asarray(other))
    norms = [
        {
            (layer.momentum, layer.epsilon)
            for layer in network._flatten_layers()
            if isinstance(layer, keras.layers.BatchNormalization)
        }
        for network in (model.model, expected)
    ]
    assert norms[0] == norms[1] == {(0.9, 1e-5)}


@pytest.mark.usefixtures("bfloat16")
def test_logits_of_table1_are_float32_in_bfloat16():
    images = np.zeros((1, 32, 32, 3), "uint8")
    model = table1.make_model("SAM", images, seed=0, steps=1, width=2, depth=1)
    layers = model.model.layers
    assert [layer.compute_dtype for layer in layers[1:]] == ["bfloat16"] * 2
    assert model.model.output.dtype == "float32"
    assert {v.dtype for v in model.trainable_variables} == {"float32"}


def test_constants_of_table1_are_those_of_the_library():
    # Here, as they need TensorFlow.
    from benchmarks.paper import tables
    from keras_esam.data.cifar import STATISTICS

    assert (table1.MEAN, table1.DEVIATION) == STATISTICS["cifar10"]
    labels = {
        "ESAM": "ESAM variable",
        "SWP alone": "SWP variable",
        "SDS alone": "SDS",
    }
    printed = tables.PRINTED["cifar10/resnet18"]
    expected = {labels.get(k, k): value for k, (value, _) in printed.items()}
    assert table1_runs.PAPER == expected


def test_table1_refuses_runs_of_another_recipe(train, tmp_path, monkeypatch):
    monkeypatch.setattr(table1, "train", lambda *args: None)
    train("runs")
    path = tmp_path / "runs" / "settings.json"
    known = json.loads(path.read_text())
    assert known["settings"]["weight_decay"] == [5e-4, 1e-3]
    assert known["settings"]["rho"] == [0, 0.05]
    del known["settings"]["recipes"]
    path.write_text(json.dumps(known))
    with pytest.raises(ValueError, match="recipes=None. Received: recipes="):
        train("runs")


def test_table1_has_a_process_for_each_method(train, tmp_path):
    assert len(train("together", "--together")) == 2
    assert (tmp_path / "together" / "turns").exists()
    table = (tmp_path / "together" / "summary.md").read_text()
    assert "| SGD | " in table


@pytest.mark.parametrize(
    "options",
    [
        "data.npz --together --minutes 0 --methods SGD SAM",
        "--together --methods SAM SGD SAM --seeds 3 -- --data.npz",
    ],
)
def test_a_process_of_table1_trains_one_method_and_starts_none(options):
    arguments = table1.parse_arguments(options.split())
    assert sorted(arguments.methods) == ["SAM", "SGD"]
    command = table1.child_command(arguments, "one-step, beta 0.6")
    assert command[1:3] == ["-m", "benchmarks.table1"]
    expected = vars(arguments) | {
        "together": False,
        "methods": ["one-step, beta 0.6"],
        "turns": arguments.out / "turns",
        "parent": os.getpid(),
    }
    assert vars(table1.parse_arguments(command[3:])) == expected


@pytest.mark.parametrize("options", ["--to", "--together --turns turns"])
def test_table1_refuses_what_could_start_processes_without_end(options):
    with pytest.raises(SystemExit):
        table1.parse_arguments(["data.npz", *options.split()])


def test_a_process_of_table1_watches_its_parent(train, monkeypatch):
    parents = []
    monkeypatch.setattr(table1, "end_with_parent", parents.append)
    monkeypatch.setattr(table1, "train", lambda *args: None)
    train("runs", "--parent", "1234")
    assert parents == [1234]


def test_two_processes_never_train_the_same_run(train, tmp_path):
    with locked(tmp_path / "runs" / "SGD-0"):
        with pytest.raises(RuntimeError, match="Another process .*SGD-0"):
            train("runs")


def test_a_run_is_locked_while_it_trains(train, tmp_path, monkeypatch):
    refused = []

    def fit(*args):
        with pytest.raises(RuntimeError, match="Another process"):
            with locked(tmp_path / "runs" / "SGD-0"):
                pass
        refused.append(args[0])

    monkeypatch.setattr(table1, "_fit", fit)
    train("runs")
    assert refused == ["SGD"]


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
        "import numpy as np\n"
        "images = np.zeros((1, 32, 32, 3), 'uint8')\n"
        "table1.make_model('SAM', images, 0, steps=1, width=1, depth=1)\n"
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
