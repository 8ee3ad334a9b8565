"""Counted operations by hand, peers of `tf_keras`, and a run."""

import json
import threading

import keras
import numpy as np
import pytest
from keras.src.utils import python_utils

from benchmarks import measurement
from benchmarks import operations
from benchmarks import speed
from benchmarks import tf_keras_sam
from benchmarks.networks import NETWORKS
from tests.backends import tensorflow_only
from tests.networks import esam

pytestmark = tensorflow_only
MLP = measurement.Setting("mlp", 16, 2, 8, 2, False, "float32")
# Products of a batch of 4 with the kernels 5x8, 8x8 and 8x3.
FIRST, SECOND, THIRD = (2 * 4 * n for n in (5 * 8, 8 * 8, 8 * 3))
FORWARD = FIRST + SECOND + THIRD
BACKWARD = 2 * FORWARD - FIRST  # no gradient of the input
BASE = FORWARD + BACKWARD


def dense_model(**kwargs):
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(n, use_bias=False) for n in (8, 8, 3)]
    network = keras.Sequential([keras.Input((5,)), *layers])
    model = esam(network, seed=1, **kwargs)
    model.compile("sgd", "mse")
    return model


def count(**kwargs):
    x, y = np.ones((4, 5), "float32"), np.zeros((4, 3), "float32")
    counted, times = operations.operations_per_step(
        dense_model(**kwargs), x, y, traces=2
    )
    assert all(len(traces) == 2 and min(traces) > 0 for traces in times)
    return counted


@pytest.mark.parametrize(
    "kwargs, expected",
    [
        ({"rho": 0}, BASE),
        ({"beta": 1, "gamma": 1}, 2 * BASE),
        ({"beta": 1, "gamma": 0.5}, 2 * FORWARD + BACKWARD + BASE / 2),
    ],
)
def test_operations_of_dense_layers_by_hand(kwargs, expected):
    assert count(**kwargs) == pytest.approx(expected)


def test_operations_of_depth_subsets_by_hand():
    arguments = {"granularity": "depth", "gamma": 1, "beta": 0.6}
    # The second forward pass shares what is below the perturbed kernels.
    shared = {
        1: THIRD + THIRD,  # its gradient, and it runs again
        2: SECOND + 2 * THIRD + SECOND + THIRD,
        3: BACKWARD + FORWARD,
    }
    pool = dense_model(**arguments).subset_pool.subsets
    expected = BASE + np.mean([shared[len(subset)] for subset in pool])
    assert count(**arguments) == pytest.approx(expected)


def test_a_round_has_every_plan_as_often_as_training():
    model = dense_model(beta=0.6, granularity="depth")
    period = model.num_subsets
    assert operations.steps_per_round(model, period + 1) == 2 * period
    data = np.ones((4, 5), "float32"), np.zeros((4, 3), "float32")
    plans = operations.plans_of_a_round(model, *data)
    assert plans.total() == period


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_tf_keras_are_the_same_and_logits_single(name):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = NETWORKS[name](32 if name == "transformer" else 2, 1)
    finally:
        keras.config.set_dtype_policy("float32")
    peer = tf_keras_sam.convert(network)
    assert network.output.dtype == peer.output.dtype == "float32"
    assert peer.layers[-2].compute_dtype == "bfloat16"
    weights = network.trainable_weights, peer.trainable_weights
    shapes = [sorted(tuple(w.shape) for w in own) for own in weights]
    assert shapes[0] == shapes[1]


@pytest.mark.slow
def test_peers_do_the_counted_work_of_their_keras_3_counterparts():
    batch = measurement.make_batch(MLP.batch_size)
    counts = []
    for method in ("bare fit", "SAM", *tf_keras_sam.NAMES):
        model = measurement.make_model(method, MLP)
        counts.append(operations.operations_per_step(model, *batch)[0])
    assert counts == [counts[0], counts[1]] * 3 + [counts[1]]
    assert counts[1] == 2 * counts[0]


def test_timed_training_waits_for_no_logs_of_a_batch(monkeypatch):
    monkeypatch.setattr(keras.src.backend, "IS_THREAD_SAFE", True)  # as on JAX
    convert, waited = python_utils.pythonify_logs, []

    def counted(logs):
        if logs and threading.current_thread() is threading.main_thread():
            waited.append(logs)
        return convert(logs)

    monkeypatch.setattr(python_utils, "pythonify_logs", counted)
    model = measurement.make_model("bare fit", MLP)
    counts = []
    for steps in (2, 10):
        waited.clear()
        measurement.timed_steps(model, MLP, steps)
        counts.append(len(waited))
    assert counts[0] == counts[1] > 0  # at the end of the epoch


def results(**kwargs):
    values = {
        "clock": "cpu",
        "setting": {"batch_size": 8},
        "seconds_per_step_cpu_wall": {
            "SAM": [[2.0, 1.0], [4.0, 2.0]],
            "SGD": [[1.0, 1.0]] * 2,
        },
        "operations_per_step": {"SAM": 6, "SGD": 3},
        "tracing_cpu_seconds": {
            "SAM": [[2.0] * 3],
            "SGD": [[0.5, 0.6, 0.7], [0.3, 0.4, 0.7]],
        },
        "first_use_seconds": {"SAM": 9.0, "SGD": 4.0},
        "memory_mib": {"SGD": [{"peak": 10, "growth": 3}], "SAM": []},
    }
    return speed.table({**values, **kwargs}).fillna("").to_dict("index")


def test_speeds_are_ratios_within_a_round():
    rows = results()
    assert rows["SGD"]["speed / SAM"] == "3.000 (2.500 to 3.500)"
    assert rows["SAM"]["speed / SGD"].startswith("0.375 (")
    assert rows["SGD"]["by count"] == 2
    assert rows["SGD"]["measured / count"] == 1.5
    assert rows["SAM"]["images/s"] == "6 (5 to 7)"
    assert rows["SAM"]["CPU ms/step"] == "3000 (2500 to 3500)"
    assert rows["SGD"]["tracing, s"] == 1  # of both steps
    assert rows["SGD"]["tracing / SAM's"] == 0.5
    assert rows["SGD"]["peak memory, MiB"] == "10"
    assert "speed / bare fit" not in rows["SAM"]


def test_table_without_operations_and_by_wall_time():
    rows = results(operations_per_step={}, tracing_cpu_seconds={}, clock="wall")
    assert rows["SGD"]["speed / SAM"].startswith("1.500 (")
    assert "by count" not in rows["SGD"]
    assert rows["SGD"]["first use, s"] == 4


def test_quick_run_writes_what_its_report_reads(tmp_path, capsys):
    options = "--quick --network mlp --width 16 --depth 2 --batch-size 8"
    methods = ["--methods", "SGD", tf_keras_sam.BARE]
    speed.main([*options.split(), *methods, "--out", str(tmp_path)])
    table = capsys.readouterr().out.split("\n\n", 1)[1]
    written = json.loads((tmp_path / "results.json").read_text())
    for method in ("SGD", "SAM", tf_keras_sam.BARE):
        assert f"| {method} |" in table
        seconds = written["seconds_per_step_cpu_wall"][method]
        assert np.shape(seconds) == (3, 2) and np.min(seconds) > 0
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")
    speed.main(["--report", str(tmp_path / "results.json")])
    assert capsys.readouterr().out == table


@pytest.mark.slow
def test_memory_is_that_of_a_process_of_its_own():
    assert measurement.peak_memory("SGD", MLP) > 100
