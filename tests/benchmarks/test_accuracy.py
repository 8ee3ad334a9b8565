import dataclasses
import json
import pathlib

import keras
import numpy as np
import pytest

import keras_esam
from benchmarks import accuracy
from benchmarks import accuracy_page
from benchmarks import accuracy_tasks
from benchmarks import accuracy_training
from benchmarks import report
from benchmarks.accuracy_tasks import TASKS
from benchmarks.batches import ShuffledBatches
from benchmarks.engines import engine
from tests.networks import assert_identical

SPLITS = ("train", "test")
ROOT = pathlib.Path(__file__).parents[2]


def small_network():
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Flatten(),
            layers.Dense(4),
            layers.BatchNormalization(),
            layers.Dense(10),
        ]
    )


@pytest.fixture
def run(monkeypatch, capsys):
    """Function that runs the benchmark and returns what it prints."""
    monkeypatch.setattr(engine, "set_threads", lambda number: None)
    task = dataclasses.replace(TASKS["digits"], make_network=small_network)
    monkeypatch.setitem(TASKS, "digits", task)

    def run(folder, *arguments):
        accuracy.main(
            ["digits", "--methods", "SGD", "SAM", "--num-train", "50"]
            + ["--epochs", "2", "--equal", "epochs", "--seeds", "2"]
            + ["--out", str(folder), *arguments]
        )
        return capsys.readouterr().out

    return run


@pytest.mark.slow
def test_runs_are_kept_shared_and_not_mixed_with_others(tmp_path, run):
    assert run(tmp_path).count(" s\n") == 2 * 2
    folder = tmp_path / "digits"
    (folder / "SAM-2-1.json").unlink()
    again = run(tmp_path)
    assert again.count(" s\n") == 1 and "SAM-2-1: train" in again
    with pytest.raises(ValueError, match="trained with rho=0.4. Received: rho"):
        run(tmp_path, "--rho", "0.2")
    # Equal time gives a faster method more epochs, and SAM those it has.
    times = {"SGD": [0.4, 0.5, 1.5], "SAM": [1.0, 1.0, 1.0]}
    (folder / "times.json").write_text(json.dumps(times))
    timed = run(tmp_path, "--equal", "time", "--seeds", "1")
    assert timed.count(" s\n") == 1 and "SGD-4-0: train" in timed
    results = json.loads((folder / "results.json").read_text())
    assert len(results["runs"]) == 5
    assert results["epochs"]["time of 2"] == {"SGD": 4, "SAM": 2}
    assert (folder / "accuracy.png").stat().st_size > 10_000
    table = timed.split("\n\n", 1)[1]
    assert "| time of 2 | SGD | 0 | 4 |" in table
    assert run(tmp_path, "--report", str(folder / "results.json")) == table
    # A new folder goes on from the result of the old one.
    options = ["--equal", "time", "--resume", str(folder / "results.json")]
    resumed = run(tmp_path / "new", *options, "--seeds", "1")
    assert resumed.split("\n\n", 1)[1] == table
    # Measured when it is needed.
    run(tmp_path, "--equal", "time", "--methods", "SGD half batch")
    found = json.loads((folder / "times.json").read_text())
    assert found["SGD"] == times["SGD"]
    assert len(found["SGD half batch"]) == accuracy_training.ROUNDS


def test_trainings_use_the_best_rho_of_a_search(tmp_path, run):
    methods = ["--methods", "SGD", "SAM", "SAM, last 50%", "--seeds", "1"]
    searched = run(tmp_path, *methods, "--search", "0.5", "1")
    assert searched.count(" s\n") == 2 and "SAM-rho0.2-100: train" in searched
    folder = tmp_path / "digits"
    file = folder / "search" / "SAM-rho0.2-100.json"
    values = json.loads(file.read_text())
    assert values["commit"] == report.commit()
    # Of another process.
    (file.parent / "unfinished.1.SAM-rho0.1-100.json").write_text("{")
    file.write_text(json.dumps({**values, "test_accuracy": 100.0}))
    table = run(tmp_path, *methods)
    assert "| SAM | 100.00 (1) | " in table
    found = {
        path.stem: json.loads(path.read_text())["rho"]
        for path in folder.glob("*-2-0.json")
    }
    assert found == {"SGD-2-0": 0.0, "SAM-2-0": 0.2, "SAM_last_50-2-0": 0.2}


def fake_run(method, seed, test_accuracy, epochs=3):
    return {
        **{"method": method, "epochs": epochs, "seed": seed, "rho": 0.025},
        **{"test_accuracy": test_accuracy, "train_accuracy": 100.0},
    }


def test_difference_to_sam_is_that_on_the_same_seeds():
    runs = [fake_run("SAM", seed, 90.0 + seed) for seed in range(3)]
    runs += [fake_run("SGD", 2, 91.5), fake_run("SGD", 1, 90.0)]
    runs += [fake_run("SAM", 1, 50.0, epochs=1)]
    results = {
        "runs": runs,
        "searched": [],
        "times": {"SAM": [1.0], "SGD": [2 / 3, 1.0, 0.5]},
        "epochs": {
            "1 epochs": {"SGD": 1, "SAM": 1},
            "3 epochs": {"SGD": 3, "SAM": 3},
            "time of 3": {"SAM": 3, "SGD": 5},
        },
    }
    ((sentence, rows),) = accuracy.tables(results).items()
    assert "fits the training set: 100.00%" in sentence
    table = report.markdown(rows).splitlines()[2:]
    assert [line.split(" | ")[:2] for line in table] == [
        ["| 1 epochs", "SAM"],
        ["| 3 epochs", "SGD"],
        ["| 3 epochs", "SAM"],
        ["| time of 3", "SAM"],
    ]
    # 91.5 - 92 and 90 - 91.
    assert table[1] == (
        "| 3 epochs | SGD | 0.025 | 3 | 90.75 +- 0.75 | -0.75 +- 0.25 "
        "| 100.00 +- 0.00 | 1.50 (1.25 to 1.75) | 2 |"
    )
    runs[3]["train_accuracy"] = 90.0
    (sentence,) = accuracy.tables(results)
    assert "DOES NOT FIT the training set: 95.00%" in sentence


def test_tables_of_the_page_are_those_of_the_committed_results():
    page = (ROOT / "docs/results/accuracy.md").read_text()
    for title, table in accuracy_page.tables().items():
        assert len(table) > 3 and report.markdown(table) in page, title


def test_time_of_two_stages_is_the_mean_of_both(monkeypatch):
    times = {"SGD": [4.0, 6.0], "SAM": [8.0, 2.0]}
    data = (np.zeros((200, 1)), np.zeros(200)), None

    def seconds(model, task, data, settings):
        return times[settings["method"]].pop(0)

    # The first training, which compiles, is not measured.
    monkeypatch.setattr(accuracy_training, "fit", lambda *args: None)
    monkeypatch.setattr(accuracy_training, "seconds", seconds)
    monkeypatch.setattr(accuracy_training, "make_model", lambda *args: None)
    measured = accuracy_training.measure_times(
        TASKS["digits"], data, ["SAM, last 70%", "SAM", "SGD"], rounds=2
    )
    assert measured == {
        "SAM, last 70%": pytest.approx([0.3 * 4 / 8 + 0.7, 0.3 * 6 / 2 + 0.7]),
        "SAM": [1.0, 1.0],
        "SGD": [4 / 8, 6 / 2],
    }


def test_training_on_augmented_images_resumes_where_it_was_killed(tmp_path):
    task = dataclasses.replace(
        TASKS["digits"],
        make_network=small_network,
        num_train=50,
        batch_size=10,
        augment=True,
    )
    data = task.load(task.num_train)
    settings = {"method": "SAM", "num_train": 50, "epochs": 3, "rho": 0.1}
    settings["seed"] = 1
    state = accuracy_training.initial_state(task, settings)

    def train(folder):
        model = accuracy_training.make_model(task, settings)
        accuracy_training.start(model, state)
        accuracy_training.train(model, task, data, settings, folder)
        return [np.array(v) for v in accuracy_training.all_variables(model)]

    def kill(epoch, logs):
        if epoch == 2:
            raise KeyboardInterrupt

    whole = train(tmp_path / "whole")
    model = accuracy_training.make_model(task, settings)
    accuracy_training.start(model, state)
    callbacks = [
        keras_esam.callbacks.AtomicBackup(tmp_path / "killed"),
        keras.callbacks.LambdaCallback(on_epoch_begin=kill),
    ]
    with pytest.raises(KeyboardInterrupt):
        accuracy_training.fit(model, task, data, settings, callbacks)
    assert_identical(train(tmp_path / "killed"), whole)


def test_model_that_has_trained_starts_as_a_new_one():
    sizes = {"num_train": 50, "batch_size": 10}
    task = dataclasses.replace(
        TASKS["digits"], make_network=small_network, **sizes
    )
    data = task.load(task.num_train)
    settings = {"method": "one-step", "num_train": 50, "epochs": 1, "rho": 0.1}

    def trained(model, seed, state):
        accuracy_training.start(model, state)
        accuracy_training.fit(model, task, data, {**settings, "seed": seed})
        return [np.array(v) for v in accuracy_training.all_variables(model)]

    states = [
        accuracy_training.initial_state(task, {**settings, "seed": seed})
        for seed in range(2)
    ]
    used = accuracy_training.make_model(task, settings)
    first = trained(used, 0, states[0])
    second = trained(used, 1, states[1])
    new = accuracy_training.make_model(task, settings)
    assert_identical(second, trained(new, 1, states[1]))
    assert not np.array_equal(first[1], second[1])


def test_arguments_of_a_method(monkeypatch):
    settings = {"method": "SAM, last 70%", "rho": 0.1}
    arguments = accuracy_training.model_arguments(settings, 100)
    assert arguments["start"] == 30 and arguments["rho"] == 0.1
    settings["method"] = "SGD half batch"
    assert accuracy_training.model_arguments(settings, 100) == {"rho": 0}
    assert accuracy_training.batch_size(TASKS["digits"], settings) == 25
    settings = {"method": "ESAM depth, pool of 5", "rho": 0.1, "epochs": 1}
    task = dataclasses.replace(TASKS["digits"], make_network=small_network)
    model = accuracy_training.make_model(task, {**settings, "num_train": 50})
    assert model.num_subsets == 5


def test_training_set_is_balanced_and_apart_from_the_test_set():
    (x, y), (x_test, y_test) = accuracy_tasks.load_digits(200)
    assert np.bincount(y).tolist() == [20] * 10
    assert len(x) + len(x_test) == 1797
    together = {image.tobytes() for image in x}
    assert not any(image.tobytes() in together for image in x_test)


def test_cifar10_comes_from_a_file_and_else_the_error_says_where_to_get_it(
    tmp_path,
):
    arrays = {f"x_{s}": np.full((20, 32, 32, 3), 121, "uint8") for s in SPLITS}
    arrays |= {f"y_{s}": np.arange(20)[:, None] % 10 for s in SPLITS}
    np.savez(tmp_path / "data.npz", **arrays)
    train, test = accuracy_tasks.load_cifar10(10, tmp_path / "data.npz")
    assert len(train[1]) == 10 and len(test[1]) == 20
    assert train[0][0, 0, 0, 0] == pytest.approx(0.00468, rel=1e-3)
    arrays["x_train"][0, :2, 2:4, 1] = [[121, 131], [141, 151]]
    np.savez(tmp_path / "data.npz", **arrays)
    train, _ = accuracy_tasks.load_cifar10(20, tmp_path / "data.npz", size=16)
    assert train[0].shape == (20, 16, 16, 3)
    assert train[0][0, 0, 1, 1] == pytest.approx((136 - 120.7) / 64.1)
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(FileNotFoundError, match="Download it once with"):
        accuracy_tasks.load_cifar10(10, str(tmp_path))


def test_batches_are_crops_and_flips_in_an_order_of_the_seed_and_epoch():
    x = np.random.default_rng(0).normal(size=(20, 8, 5, 3))
    padded = np.pad(
        x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=x.min()
    )
    crops = {
        crop.tobytes(): label
        for label, image in enumerate(padded)
        for row in range(3)
        for column in range(3)
        for part in [image[row : row + 8, column : column + 5]]
        for crop in (part, part[:, ::-1])
    }
    epochs = []
    batches = ShuffledBatches(x, np.arange(20), 6, seed=1, augment=True)
    assert len(batches) == 3
    for _ in range(2):
        images, labels = map(np.concatenate, zip(*batches, strict=True))
        assert [crops[image.tobytes()] for image in images] == labels.tolist()
        assert len(set(labels)) == 18
        epochs.append(labels.tolist())
        batches.on_epoch_end()
    assert epochs[0] != epochs[1]
    again = ShuffledBatches(x, np.arange(20), 6, seed=1)
    images, labels = map(np.concatenate, zip(*again, strict=True))
    assert labels.tolist() == epochs[0]
    np.testing.assert_array_equal(images, x[labels])
