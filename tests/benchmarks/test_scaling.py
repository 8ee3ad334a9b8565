"""What replicas send, counted, and the model of many devices, by hand."""

import json
import subprocess
import sys

import pytest

from benchmarks import scaling_model
from tests.backends import tensorflow_only
from tests.distribution.workers import ROOT
from tests.distribution.workers import finish
from tests.distribution.workers import start

pytestmark = tensorflow_only

# Kernel, bias, scale, offset, kernel and bias, in float32.
VARIABLES = [4 * n for n in (5 * 8, 8, 8, 8, 8 * 3, 3)]
GRADIENT = sum(VARIABLES)
# Subsets of the last 1, 2, 4, 5 and 6 of the variables.
SUBSET = sum(sum(VARIABLES[-n:]) for n in (1, 2, 4, 5, 6)) / 5
UPDATE = {"bytes": GRADIENT, "reductions": 1}
# Moving mean and variance.
STATISTICS = {"bytes": 2 * 4 * 8, "reductions": 1}


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """One process for all that it counts: to start one takes long."""
    folder = tmp_path_factory.mktemp("counted")
    path = folder / "counted.json"
    run = start(["tests.distribution.communication_run", path], folder, "run")
    finish([run], folder)
    return json.loads(path.read_text())


def test_base_optimizer_reduces_its_gradient_alone(counted):
    assert counted["SGD"] == {"update": UPDATE}


@pytest.mark.parametrize("method", ["SAM", "ESAM depth"])
def test_ascent_of_replicas_reduces_no_more_gradients_than_sgd(counted, method):
    expected = {"update": UPDATE, "statistics": STATISTICS}
    assert counted[method] == {k: approx(v) for k, v in expected.items()}


def test_global_ascent_of_sam_reduces_the_gradient_twice(counted):
    assert counted["SAM, global"] == {
        "ascent": UPDATE,
        "update": UPDATE,
        "statistics": STATISTICS,
    }


def test_global_ascent_of_esam_reduces_that_of_the_subset_too(counted):
    expected = {
        "ascent": {"bytes": SUBSET, "reductions": 1},
        "update": UPDATE,
        "statistics": STATISTICS,
    }
    assert counted["ESAM depth, global"] == {
        k: approx(v) for k, v in expected.items()
    }


def test_one_step_reduces_the_gradient_that_it_keeps_too(counted):
    assert counted["one-step"] == {
        "kept": UPDATE,
        "update": UPDATE,
        "statistics": STATISTICS,
    }


def approx(values):
    # Means over five subsets.
    return pytest.approx(values, rel=1e-9)


def make_cluster(**kwargs):
    values = {"step_seconds": 3, "bandwidth": 100, "latency": 0}
    return scaling_model.Cluster(**{**values, "overlap": False, **kwargs})


def test_ring_all_reduce_by_hand():
    exchange = scaling_model.Exchange(400, 3, hiding_units=2)
    cluster = make_cluster(latency=0.5)
    # 3/4 of the bytes twice; 3 all-reduces of 6 messages.
    seconds = scaling_model.all_reduce_seconds(exchange, 4, cluster)
    assert seconds == 6 + 9
    assert scaling_model.all_reduce_seconds(exchange, 1, cluster) == 0


def test_overlap_hides_what_the_backward_pass_covers():
    exchange = scaling_model.Exchange(400, 1, hiding_units=2)
    work = scaling_model.Work(3, (exchange,))
    seconds = [
        scaling_model.modelled_seconds(work, 4, make_cluster(overlap=overlap))
        for overlap in (False, True)
    ]
    assert seconds == [3 + 6, 3 + 6 - 2]
    fast = make_cluster(overlap=True, bandwidth=1e9)
    assert scaling_model.modelled_seconds(work, 4, fast) == 3


def test_model_has_the_counted_bytes_and_the_units_of_the_cost_model(counted):
    works = scaling_model.works(GRADIENT, SUBSET, STATISTICS["bytes"])
    for method, parts in counted.items():
        exchanges = works[method].exchanges
        for key, values in (
            ("bytes", [e.num_bytes for e in exchanges]),
            ("reductions", [e.reductions for e in exchanges]),
        ):
            of_all = sum(part[key] for part in parts.values())
            assert sum(values) == pytest.approx(of_all), method
    units = {method: work.units for method, work in works.items()}
    assert units["SAM"] == 2 * units["SGD"] == 2 * units["one-step"] == 6
    assert units["ESAM depth"] == pytest.approx(4.3)


def test_resnet50_has_25_6_million_parameters():
    works = scaling_model.resnet50_works()
    (update,) = works["SGD"].exchanges
    assert update.num_bytes == pytest.approx(4 * 25.6e6, rel=0.003)
    ascent, _, other = works["ESAM depth, global"].exchanges
    assert other.num_bytes == update.num_bytes
    assert 0.6 < ascent.num_bytes / update.num_bytes < 1


@pytest.mark.slow
def test_quick_run_writes_its_results(tmp_path):
    command = [sys.executable, "-m", "benchmarks.scaling", "--quick"]
    command += ["--width", "8", "--rounds", "1", "--out", tmp_path]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    results = json.loads((tmp_path / "results.json").read_text())
    assert [entry["replicas"] for entry in results["measured"]] == [1, 2]
    for entry in results["measured"]:
        for samples in entry["samples"].values():
            assert all(seconds > 0 for pair in samples for seconds in pair)
    counted = results["counted_per_step"]["mlp"]
    assert counted["SAM, global"]["ascent"] == counted["SGD"]["update"]
    table = (tmp_path / "table.md").read_text()
    assert "| mlp | SAM, global |" in table
    assert "**A model and not a measurement**" in table
