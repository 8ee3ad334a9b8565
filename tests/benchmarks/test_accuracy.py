import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import accuracy_speeds
from benchmarks import accuracy_summary
from benchmarks import accuracy_tasks
from benchmarks import accuracy_training
from benchmarks.accuracy_tasks import TASKS
from tests.benchmarks.test_throughput import ROOT
from tests.networks import assert_identical


def run(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.accuracy", "digits"]
        + ["--methods", "SGD", "SAM", "--num-train", "100", "--long", "2"]
        + ["--budgets", "long", "--seeds", "2", "--out", folder, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_runs_are_kept_and_not_mixed_with_others(tmp_path):
    first = run(tmp_path)
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("test ") == 2 * 2 + 1
    (tmp_path / "SAM-long-1.json").unlink()
    again = run(tmp_path)
    assert again.stdout.count(" s\n") == 1
    assert "SAM-long-1: train" in again.stdout
    rows = json.loads((tmp_path / "summary.json").read_text())["rows"]
    assert [row["method"] for row in rows] == ["SGD", "SAM"]
    assert all(row["seeds"] == [0, 1] for row in rows)
    other = run(tmp_path, "--rho", "0.2")
    assert other.returncode != 0
    assert "run with other settings, {'rho': 0.4}" in other.stderr


def fake_run(method, seed, test_accuracy, budget="long"):
    return {
        "budget": budget,
        "method": method,
        "epochs": 3,
        "seed": seed,
        "test_accuracy": test_accuracy,
        "train_accuracy": 100.0,
    }


def test_mean_and_standard_error_by_hand():
    values = enumerate([90.0, 92.0, 97.0])
    runs = [fake_run("SAM", seed, value) for seed, value in values]
    (row,) = accuracy_summary.summarise(runs, ["long"], ["SAM"])
    assert row["test_accuracy"] == pytest.approx(93.0)
    # Deviations -3, -1 and 4: variance 26 / 2, over 3 runs.
    assert row["test_accuracy_sem"] == pytest.approx((13 / 3) ** 0.5)
    assert "93.00 +- 2.08" in accuracy_summary.markdown([row], {})
    assert np.isnan(accuracy_summary.standard_error([1.0]))


def test_table_says_whether_the_base_optimizer_fits_the_training_set():
    runs = [fake_run("SGD", 0, 90.0), fake_run("SGD", 2, 90.0)]
    for training, words in ((100.0, "fits"), (97.0, "DOES NOT FIT")):
        runs[0]["train_accuracy"] = training
        table = accuracy_summary.markdown(
            accuracy_summary.summarise(runs, ["long"], ["SGD"]), {}
        )
        assert f"the base optimizer {words} the training set" in table
    assert "| 2 (0, 2) |" in table
    assert accuracy_summary.ranges([0, 1, 2, 7]) == "0 to 2, 7"


def test_difference_to_sam_is_that_on_the_same_seeds():
    runs = [fake_run("SAM", seed, 90.0 + seed) for seed in range(3)]
    runs += [fake_run("SGD", 2, 91.5), fake_run("SGD", 1, 90.0)]
    runs += [fake_run("SAM", 1, 50.0, budget="short")]
    rows = accuracy_summary.summarise(runs, ["short", "long"], ["SGD", "SAM"])
    assert [(r["budget"], r["method"]) for r in rows] == [
        ("short", "SAM"),
        ("long", "SGD"),
        ("long", "SAM"),
    ]
    # 91.5 - 92 and 90 - 91.
    assert rows[1]["difference"] == pytest.approx(-0.75)
    assert rows[1]["difference_sem"] == pytest.approx(0.25)
    table = accuracy_summary.markdown(rows, {"SAM": 3.0, "SGD": 2.0})
    assert "| 90.75 +- 0.75 | -0.75 +- 0.25 | 100.00 +- 0.00 | 1.50 |" in table


def test_equal_time_gives_a_faster_method_more_epochs(tmp_path):
    seconds = {"SGD": [1.0, 1.1, 9.0], "SAM": [2.0, 2.2, 2.4]}
    (tmp_path / "speeds.json").write_text(json.dumps(seconds))
    result = run(tmp_path, "--budgets", "long_time", "--seeds", "1")
    assert result.returncode == 0, result.stderr
    rows = json.loads((tmp_path / "summary.json").read_text())["rows"]
    epochs = {row["method"]: row["epochs"] for row in rows}
    assert epochs == {"SGD": [4], "SAM": [2]}
    # SAM's run is that of the other budget, and not trained again.
    result = run(tmp_path, "--budgets", "long", "long_time", "--seeds", "2")
    assert "SAM-long-1: train" in result.stdout
    assert "SAM-long_time-1: train" not in result.stdout
    path = tmp_path / "SAM-long_time-1.json"
    assert json.loads(path.read_text())["budget"] == "long_time"
    other = run(
        *(tmp_path, "--budgets", "long_time"),
        *("--methods", "SAM", "one-step", "--seeds", "1"),
    )
    assert "a file without {'one-step'}" in other.stderr


def test_time_of_two_stages_is_the_mean_of_both(monkeypatch):
    times = {"ESAM depth": [3.0, 4.0, 6.0], "SWP depth": [1.0, 8.0, 2.0]}

    def fit(model, task, data, settings):
        # The first time is that of compilation.
        return None, times[settings["method"]].pop(0)

    monkeypatch.setattr(accuracy_training, "fit", fit)
    monkeypatch.setattr(accuracy_training, "make_model", lambda *args: None)
    methods = [accuracy_training.STAGES, "ESAM depth", "SWP depth"]
    task = TASKS["digits"]
    seconds = accuracy_speeds.measure(task, None, methods, rounds=2)
    assert seconds == {
        accuracy_training.STAGES: [6.0, 4.0],
        "ESAM depth": [4.0, 6.0],
        "SWP depth": [8.0, 2.0],
    }


@pytest.mark.parametrize("method", ["ESAM variable", "one-step"])
def test_model_that_has_trained_starts_as_a_new_one(method):
    task = dataclasses.replace(TASKS["digits"], num_train=100)
    data = task.load(task.num_train)
    settings = {"method": method, "num_train": 100, "epochs": 1, "rho": 0.1}

    def trained(model, seed):
        accuracy_training.start(model, task, {**settings, "seed": seed})
        accuracy_training.fit(model, task, data, {**settings, "seed": seed})
        return [
            v.numpy() for v in (*model.variables, *model.optimizer.variables)
        ]

    used = accuracy_training.make_model(task, settings)
    first = trained(used, 0)
    second = trained(used, 1)
    new = accuracy_training.make_model(task, settings)
    assert_identical(second, trained(new, 1))
    assert not np.array_equal(first[0], second[0])


def test_training_set_is_balanced_and_apart_from_the_test_set():
    (x, y), (x_test, y_test) = accuracy_tasks.load_digits(200)
    assert np.bincount(y).tolist() == [20] * 10
    assert len(x) + len(x_test) == 1797
    together = {image.tobytes() for image in x}
    assert not any(image.tobytes() in together for image in x_test)


@pytest.mark.parametrize("count", [0, 105, 1750])
def test_balanced_part_that_there_is_not(count):
    with pytest.raises(ValueError, match="multiple of 10 and at most 1740"):
        accuracy_tasks.load_digits(count)


def test_missing_cifar10_says_where_to_get_it(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(FileNotFoundError, match="Download it with"):
        accuracy_tasks.load_cifar10(10, str(tmp_path))


def test_full_batches_come_first_in_the_method_of_stages():
    arguments = accuracy_training.method_arguments(
        accuracy_training.STAGES, 100
    )
    gamma = arguments["gamma"]
    assert float(gamma(50)) == 1.0 and float(gamma(51)) == 0.5
    assert arguments["granularity"] == "depth"
