import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import accuracy
from benchmarks import accuracy_summary
from benchmarks import accuracy_tasks
from tests.test_benchmarks import ROOT


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
    rows = json.loads((tmp_path / "summary.json").read_text())
    assert [row["method"] for row in rows] == ["SAM", "SGD"]
    assert all(row["seeds"] == [0, 1] for row in rows)
    other = run(tmp_path, "--rho", "0.2")
    assert other.returncode != 0
    assert "run with other settings, {'rho': 0.1}" in other.stderr


def test_mean_and_standard_error_by_hand():
    runs = [
        {
            "budget": "long",
            "method": "SAM",
            "epochs": 3,
            "seed": seed,
            "cpu_seconds_per_epoch": 1.0,
            "test_accuracy": value,
            "train_accuracy": 100.0,
        }
        for seed, value in enumerate([90.0, 92.0, 97.0])
    ]
    (row,) = accuracy_summary.summarise(runs)
    assert row["test_accuracy"] == pytest.approx(93.0)
    # Deviations -3, -1 and 4: variance 26 / 2, over 3 runs.
    assert row["test_accuracy_sem"] == pytest.approx((13 / 3) ** 0.5)
    assert "93.00 +- 2.08" in accuracy_summary.markdown([row])
    assert np.isnan(accuracy_summary.standard_error([1.0]))


def test_equal_time_gives_a_faster_method_more_epochs(tmp_path):
    for name, seconds in (("SAM", 2.0), ("ESAM_depth", 1.4)):
        path = tmp_path / f"{name}-long-0.json"
        path.write_text(json.dumps({"cpu_seconds_per_epoch": seconds}))
    equal = accuracy.epochs_in_equal_time
    assert equal(tmp_path, "ESAM depth", 40) == 57
    assert equal(tmp_path, "SAM", 40) == 40
    with pytest.raises(ValueError, match="SGD-long-0.json"):
        equal(tmp_path, "SGD", 40)


def test_training_set_is_balanced_and_apart_from_the_test_set():
    (x, y), (x_test, y_test) = accuracy_tasks.load_digits(200)
    assert np.bincount(y).tolist() == [20] * 10
    assert len(x) + len(x_test) == 1797
    together = {image.tobytes() for image in x}
    assert not any(image.tobytes() in together for image in x_test)


def test_missing_cifar10_says_where_to_get_it(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(FileNotFoundError, match="Download it with"):
        accuracy_tasks.load_cifar10(10, str(tmp_path))


def test_full_batches_come_first_in_the_method_of_stages():
    arguments = accuracy.method_arguments(accuracy.STAGES, 100)
    gamma = arguments["gamma"]
    assert float(gamma(50)) == 1.0 and float(gamma(51)) == 0.5
    assert arguments["granularity"] == "depth"
