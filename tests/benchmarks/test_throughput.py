"""The benchmarks: counted operations by hand, and a run of each."""

import json
import pathlib
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest
from keras.src.utils import python_utils
from tf_keras.src.utils import tf_utils

import keras_esam
from benchmarks import measurement
from benchmarks import operations
from benchmarks import tf_keras_sam
from benchmarks import throughput
from benchmarks import throughput_report as report
from benchmarks.engines import tensorflow_engine
from benchmarks.networks import INPUT_SHAPE
from benchmarks.networks import NETWORKS
from benchmarks.networks import make_network

pytestmark = pytest.mark.usefixtures("all_subsets")

ROOT = pathlib.Path(__file__).parents[2]


def count(layers, x, **kwargs):
    keras.utils.set_random_seed(1)
    network = keras.Sequential([keras.Input(x.shape[1:]), *layers])
    model = keras_esam.ESAMModel(network, seed=1, **kwargs)
    model.compile("sgd", "mse")
    y = np.zeros((len(x), *network.output_shape[1:]), "float32")
    model.train_on_batch(x, y)
    counted, times = operations.operations_per_step(model, x, y, traces=2)
    assert all(len(traces) == 2 and min(traces) > 0 for traces in times)
    return counted


def dense_layers():
    return [keras.layers.Dense(n, use_bias=False) for n in (8, 8, 3)]


# Products of a batch of 4 with the kernels 5x8, 8x8 and 8x3.
FIRST, SECOND, THIRD = (2 * 4 * n for n in (5 * 8, 8 * 8, 8 * 3))
FORWARD = FIRST + SECOND + THIRD
BACKWARD = 2 * FORWARD - FIRST  # no gradient of the input


def test_operations_of_dense_layers_by_hand():
    x = np.ones((4, 5), "float32")
    base = FORWARD + BACKWARD
    assert count(dense_layers(), x, rho=0) == base
    assert count(dense_layers(), x, beta=1, gamma=1) == 2 * base
    ranked_half = FORWARD + BACKWARD + FORWARD + base / 2
    assert count(dense_layers(), x, beta=1, gamma=0.5) == ranked_half


def test_operations_of_steps_in_between_by_hand():
    x = np.ones((4, 5), "float32")
    base = FORWARD + BACKWARD
    counted = count(dense_layers(), x, beta=1, gamma=1, interval=3)
    assert counted == pytest.approx((2 * base + base + base) / 3)
    settings = {"beta": 0.6, "interval": 3, "granularity": "depth"}
    model = keras_esam.ESAMModel(keras.Sequential(dense_layers()), **settings)
    assert measurement.steps_per_round(model, 5) == 15
    assert measurement.steps_per_round(model, 16) == 30


def test_operations_of_depth_subsets_by_hand():
    """Subsets of the last 1, 1, 2, 2 and 3 of the three kernels."""
    x = np.ones((4, 5), "float32")
    counted = count(dense_layers(), x, granularity="depth", gamma=1)
    one = THIRD + THIRD  # its gradient, and it runs again in the second pass
    two = SECOND + 2 * THIRD + SECOND + THIRD
    three = BACKWARD + FORWARD
    # The second forward pass shares what is below the perturbed kernels.
    expected = FORWARD + BACKWARD + np.mean([one, one, two, two, three])
    assert counted == pytest.approx(expected)


def test_operations_of_a_convolution_by_hand():
    x = np.ones((2, 6, 6, 3), "float32")
    layer = keras.layers.Conv2D(4, 3, use_bias=False)
    forward = 2 * (2 * 4 * 4 * 4) * (3 * 3 * 3)
    assert count([layer], x, rho=0) == 2 * forward


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_scale_with_width_and_depth(name):
    width = {"mlp": 32, "transformer": 32}.get(name, 2)
    sizes = [
        make_network(name, width * w, d).count_params()
        for w, d in ((1, 1), (2, 1), (1, 2))
    ]
    network = make_network(name, width, 1)
    assert network.input_shape[1:] == INPUT_SHAPE
    assert network.output_shape[1:] == (10,)
    assert min(sizes[1:]) > sizes[0]


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_single_in_mixed_precision(name):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = make_network(name, 32 if name == "transformer" else 2, 1)
    finally:
        keras.config.set_dtype_policy("float32")
    assert network.output.dtype == "float32"
    assert network.layers[-2].compute_dtype == "bfloat16"


def test_width_64_is_the_resnet18_of_the_paper():
    assert make_network("resnet18", 64, 2).count_params() == 11_183_562


def test_scaling_keeps_every_sample(monkeypatch):
    monkeypatch.setattr(throughput, "BATCH_SIZES", (2, 4))
    monkeypatch.setattr(throughput, "DEPTHS", (1,))
    monkeypatch.setattr(throughput, "SCALED", ["SGD", "SAM"])
    setting = measurement.Setting("mlp", 4, 1, 4, 1, False, "float32")
    scaling = throughput.measure_scaling(setting, 2, "cpu")
    assert [entry["batch_size"] for entry in scaling] == [2, 4]
    for entry in scaling:
        samples = entry["seconds_per_step_cpu_wall"]
        assert np.shape([samples["SGD"], samples["SAM"]]) == (2, 2, 2)


def test_the_machine_has_the_commit_of_a_checkout(tmp_path, monkeypatch):
    command = ["git", "rev-parse", "--short", "HEAD"]
    if (ROOT / ".git").exists():
        head = subprocess.check_output(command, cwd=ROOT, text=True).strip()
        assert measurement.commit().removesuffix("-dirty") == head
    monkeypatch.setattr(keras_esam, "__file__", str(tmp_path / "a" / "b.py"))
    assert measurement.commit() is None


def test_speeds_are_ratios_within_a_round():
    samples = {"SAM": [[2.0, 1.0], [4.0, 2.0]], "SGD": [[1.0, 1.0]] * 2}
    rows = report.summarise(samples, {"SAM": 6, "SGD": 3}, images=8)
    assert rows["SGD"]["speed_relative_to_SAM"] == [2.5, 3.0, 3.5]
    assert rows["SGD"]["predicted"] == 2
    assert rows["SAM"]["images_per_second"] == pytest.approx([5, 6, 7])
    assert rows["SAM"]["cpu_ms"] == pytest.approx([2500, 3000, 3500])
    tracing = {"SAM": [[2.0] * 3], "SGD": [[0.5, 0.6, 0.7], [0.3, 0.4, 0.7]]}
    table = report.markdown(rows, tracing, {"SAM": 9.0, "SGD": 4.0}, {})
    assert "| 3.000 (2.500 to 3.500) | 2.000 | 1.500 |" in table
    assert "| 1.0 (0.9 to 1.2) | 0.5 | 4.0 |" in table
    assert "| 4.0 |" in report.markdown(rows, {}, {"SGD": 4.0}, {})


@pytest.mark.parametrize(
    "method, module, convert",
    [
        ("bare fit", python_utils, "pythonify_logs"),
        (tf_keras_sam.BARE, tf_utils, "sync_to_numpy_or_python_type"),
    ],
)
def test_timed_training_waits_for_no_logs_of_a_batch(
    method, module, convert, monkeypatch
):
    monkeypatch.setattr(keras.src.backend, "IS_THREAD_SAFE", True)  # as on JAX
    function = getattr(module, convert)
    waited = []

    def counted(logs):
        if logs and threading.current_thread() is threading.main_thread():
            waited.append(logs)
        return function(logs)

    monkeypatch.setattr(module, convert, counted)
    setting = measurement.Setting("mlp", 16, 2, 8, 2, False, "float32")
    model = throughput.make_model(method, setting)
    counts = []
    for steps in (2, 10):
        waited.clear()
        assert min(measurement.timed_epoch(model, setting, steps)) > 0
        counts.append(len(waited))
    assert counts[0] == counts[1] > 0  # at the end of the epoch


def test_peers_do_the_counted_work_of_their_keras_3_counterparts():
    setting = measurement.Setting("mlp", 16, 2, 8, 2, False, "float32")
    batch = measurement.make_batch(setting.batch_size)
    counts = []
    for method in ("bare fit", "SAM", *tf_keras_sam.NAMES):
        model = throughput.make_model(method, setting)
        cpu, wall = throughput.seconds_per_step(model, setting)
        assert cpu > 0 and wall > 0
        counts.append(operations.operations_per_step(model, *batch)[0])
    assert counts == [counts[0], counts[1]] * 3 + [counts[1]]
    assert counts[1] == 2 * counts[0]


def test_equal_work_peer_has_batch_statistics_in_both_passes():
    """`SquaredDifference` is of the batch's variance, once a layer and pass."""
    setting = measurement.Setting("resnet18", 2, 1, 4, 1, False, "float32")
    batch = measurement.make_batch(setting.batch_size)
    kinds = {}
    for method in tf_keras_sam.NAMES:
        model = tf_keras_sam.make_model(method, setting)
        graph = tensorflow_engine.trace(model, None, *batch)
        kinds[method] = [op.type for op in graph.get_operations()]
    bare = kinds[tf_keras_sam.BARE_COMPOSED].count("SquaredDifference")
    equal_work = kinds[tf_keras_sam.SAM_EQUAL_WORK].count("SquaredDifference")
    assert equal_work == 2 * bare > 0
    assert "FusedBatchNormV3" in kinds[tf_keras_sam.SAM]


def test_profile_adds_up_to_the_step(tmp_path):
    arguments = "--network mlp --width 512 --depth 2 --batch-size 32 --rounds 1"
    arguments += " --methods SAM --steps 20"
    output = subprocess.run(
        [sys.executable, "-m", "benchmarks.profiling", *arguments.split()]
        + ["--out", tmp_path],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert (tmp_path / "table.md").read_text() in output
    results = json.loads((tmp_path / "results.json").read_text())
    row = results["milliseconds_per_step"]["SAM"]
    products = [k for k in row["operations"] if "MatMul" in k]
    assert row["counted"] == pytest.approx(
        sum(row["operations"][kind] for kind in products)
    )
    operations_time = row["counted"] + row["rest"]
    assert 0.5 * row["wall"] < operations_time < 1.1 * row["wall"]


def test_quick_changes_some_defaults(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["throughput", "--quick", "--rounds", "2"])
    arguments = throughput.parse_arguments()
    assert arguments.methods == throughput.QUICK
    assert (arguments.rounds, arguments.clock) == (2, "cpu")


def test_throughput_benchmark_writes_its_results(tmp_path):
    arguments = "--network mlp --width 16 --depth 2 --batch-size 8 --rounds 2"
    arguments += " --no-scaling"
    output = subprocess.run(
        [sys.executable, "-m", "benchmarks.throughput", *arguments.split()]
        + ["--methods", "bare fit", "SGD", "ESAM depth", "--out", tmp_path],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    results = json.loads((tmp_path / "results.json").read_text())
    methods = ["bare fit", "SGD", "SAM", "ESAM depth"]
    assert set(results["summary"]) == set(methods)
    for method in methods:
        assert f"| {method} |" in output
        assert len(results["seconds_per_step_cpu_wall"][method]) == 2
        assert results["summary"][method]["predicted"] > 0
        assert len(results["tracing_cpu_seconds"][method][0]) == 3
    memory = results["memory_mib"]
    assert memory.keys() == {"bare fit", "SGD", "ESAM depth"}
    assert all(run["peak"] > run["growth"] > 0 for [run] in memory.values())
    assert results["machine"]["keras"] == keras.__version__
    assert (tmp_path / "table.md").read_text() in output
    assert (tmp_path / "throughput.png").read_bytes().startswith(b"\x89PNG")
