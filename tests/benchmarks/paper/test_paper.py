"""Tables and figures, on a few small images."""

import json
import pathlib
import re

import numpy as np
import pytest

from benchmarks.paper import __main__ as command
from benchmarks.paper import figures
from benchmarks.paper import pictures
from benchmarks.paper import tables
from benchmarks.paper.runs import PROBED
from benchmarks.paper.runs import Run
from benchmarks.paper.runs import Runner
from benchmarks.paper.scales import PAPER
from benchmarks.paper.scales import SCALES
from benchmarks.paper.scales import SMALL
from examples.run_folder import locked
from tests.backends import tensorflow_only
from tests.benchmarks.paper.runners import TINY
from tests.benchmarks.paper.runners import make_runner

pytestmark = tensorflow_only
RESNET18 = "cifar10/resnet18"
RESULTS = pathlib.Path(__file__).parents[3] / "docs/results"


def call_main(monkeypatch, *options):
    monkeypatch.setattr("sys.argv", ["paper", *map(str, options)])
    command.main()


def read(path):
    return json.loads(path.read_text())


def assert_drawn(path):
    picture = path.read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 5000


@pytest.mark.slow
def test_command_makes_all_tables_and_figures_and_trains_once(
    monkeypatch, data_dir, tmp_path, capsys
):
    monkeypatch.setitem(SCALES, "small", TINY)
    few = {
        label: tables.METHODS[label] for label in ("SGD", "SAM", "SAM, quarter")
    }
    # Which Figure 3 has too, and which has few steps to compile.
    few["ESAM"] = ("esam", (("beta", 0.5),))
    monkeypatch.setattr(tables, "METHODS", few)
    monkeypatch.setattr(tables, "ABLATION", few)
    options = ["--only", RESNET18, "--seeds", 0]
    options += ["--data-dir", data_dir, "--out", tmp_path]
    call_main(monkeypatch, "all", *options)
    printed = capsys.readouterr().out
    folder = tmp_path / "tiny"
    assert {path.stem for path in folder.glob("*.json")} == {
        *("table1", "table3", *command.FIGURES, "cifar10-resnet18-speeds")
    }
    for name in command.FIGURES:
        assert_drawn(folder / f"{name}.png")
    text = (folder / "table3.md").read_text()
    assert text in printed and "| 96.56 |" in text and "| 1.40 |" in text
    assert re.findall(r"^\| cifar10/resnet18 \| (.*?) \|", text, re.M) == list(
        tables.ABLATION
    )
    network = "make_small_network(num_classes=10), 20 images of cifar10"
    assert text.endswith(f"\n- cifar10/resnet18: {network}; seeds 0\n")
    made = read(folder / "table3.json")
    assert made["machine"]["backend"] == "tensorflow"
    sam = made["values"][RESNET18]["SAM"]
    assert (len(sam["images_per_second"]), sam["seeds"]) == (2, [0])
    assert set(read(folder / "figure3.json")["values"]) == {
        *("SAM", "beta 0.5, gamma 1.0", "beta 1.0, gamma 0.5"),
        "beta 0.5, gamma 0.5",
    }
    assert (folder / "cifar10-resnet18-esam-beta=0.5-0").exists()
    values = read(folder / "figure5.json")["values"]
    assert len(values["losses"]["SAM"]["loss_plus"]) == 2
    shares = figures.verdict(values["losses"])
    assert values["verdict"] == shares.to_dict("index")
    expected = figures.markdown(shares, "tiny")
    assert (folder / "figure5.md").read_text() == expected
    cosines = read(folder / "figure6.json")["values"]
    assert {key: list(own) for key, own in cosines.items()} == {
        key: ["plus", "minus"] for key in PROBED
    }
    # All is there now.
    monkeypatch.setattr(Runner, "train", None)
    monkeypatch.setattr(tables, "_measure", None)
    monkeypatch.setattr("keras_esam.analysis.loss_landscape", None)
    call_main(monkeypatch, "figures", *options)
    call_main(monkeypatch, "table3", *options)
    assert (folder / "table3.md").read_text() == text


def test_landscape_is_computed_again_for_other_settings(data_dir, tmp_path):
    runner = make_runner(tmp_path, data_dir)
    run = Run("cifar10/resnet18/sgd", 0)
    runner.results([run])
    first = figures.landscape(runner, run)
    finer = make_runner(tmp_path, data_dir, num_points=5)
    again = figures.landscape(finer, run)
    assert (len(first["coordinates"]), len(again["coordinates"])) == (3, 5)
    assert np.shape(again["mean_losses"]) == (5, 5)


def test_landscape_with_losses_that_are_not_finite_is_drawn(
    tmp_path, monkeypatch
):
    kept = {"coordinates": [-1.0, 0.0, 1.0], "mean_losses": [[1.0] * 3] * 3}
    kept["mean_losses"] = [[None, 2.0, 1.0], *kept["mean_losses"][1:]]
    monkeypatch.setattr(figures, "landscape", lambda *_: kept)
    monkeypatch.setattr(Runner, "results", lambda *_: None)
    figures.figure4(make_runner(tmp_path), [RESNET18], tmp_path / "figure4")
    assert_drawn(tmp_path / "figure4.png")


@pytest.mark.parametrize("name", ["table1", "table3"])
def test_committed_tables_are_those_of_their_values(name):
    values = read(RESULTS / f"{name}.json")["values"]
    text = tables.markdown(values, "small")
    lines = [line for line in text.splitlines() if "---" not in line]
    page = (RESULTS / "paper.md").read_text().splitlines()
    assert len(lines) > 7 and set(lines) <= set(page)
    labels = tables.ABLATION if name == "table3" else tables.METHODS
    assert all(list(labels) == list(rows) for rows in values.values())


def test_committed_figures_are_drawn_of_their_values(tmp_path):
    values = read(RESULTS / "figure1.json")["values"]
    pictures.speed_against_accuracy(values, tmp_path / "figure1.png")
    values = read(RESULTS / "figure3.json")["values"]
    pictures.grid(values, SMALL.grid, "title", tmp_path / "figure3.png")
    for name in ("figure1", "figure3"):
        assert_drawn(tmp_path / f"{name}.png")
    values = read(RESULTS / "figure5.json")["values"]
    shares = figures.verdict(values["losses"])
    assert shares.to_dict("index") == values["verdict"]
    header, _, *rows = figures.markdown(shares, "small").splitlines()
    page = (RESULTS / "paper.md").read_text().splitlines()
    assert {header, *rows} <= set(page) and len(rows) == 3


def test_unknown_speeds_are_no_error():
    row = {"test_accuracy": [50.0, 54.0], "train_accuracy": [90.0, 92.0]}
    sam = row | {"images_per_second": [50.0, 61.7]}
    row = row | {"images_per_second": [None, 123.4]}
    text = tables.markdown({RESNET18: {"SAM": sam, "SDS alone": row}}, "small")
    assert text.endswith(
        "| cifar10/resnet18 | SDS alone | 52.00 +- 2.83 | 96.45 | 91.0 | 123 "
        "| 2.00 (2.00 to 2.00) | 1.23 |\n"
    )


# All hold; 10 does not; 8 and 10 do not; an epoch that is not counted.
LOSSES = {
    "loss": [1.5, 1.5, 2.0, None],
    "loss_plus": [2.0, 1.0, 1.0, None],
    "loss_minus": [1.0, 2.0, 3.0, 1.0],
    "perturbed_loss": [2.0, 2.5, 2.5, 1.5],
    "perturbed_loss_plus": [3.0, 3.0, 2.0, 2.0],
    "perturbed_loss_minus": [1.0, 2.0, 3.0, 3.0],
}


def test_verdict_counts_the_epochs_in_which_the_equations_hold():
    shares = figures.verdict({"SAM": LOSSES})
    assert list(shares.loc["SAM"]) == [2 / 3, 1, 1 / 3]
    header, _, row = figures.markdown(shares, "small").splitlines()
    assert header.startswith("| epochs, small scale | 8: perturbed loss on B+")
    assert row == "| SAM | 67% | 100% | 33% |"
    none = figures.verdict({"SAM": {key: [None] for key in LOSSES}})
    assert np.isnan(none).all(axis=None)


def test_paper_scale_is_that_of_the_recipes():
    recipe = PAPER.recipe("cifar100/wrn-28-10/esam")
    assert (recipe.epochs, recipe.esam["rho"]) == (200, 0.1)
    small = SMALL.recipe("cifar10/resnet18/esam")
    assert small.esam["rho"] == SMALL.rho
    assert SMALL.recipe("cifar10/resnet18/sgd").esam["rho"] == 0
    esam = PAPER.recipe("imagenet/resnet50/esam").esam
    assert esam["micro_batch_size"] == 128
    # Its batches are smaller.
    esam = SMALL.recipe("imagenet/resnet50/esam").esam
    assert "micro_batch_size" not in esam
    names = ("table1", "table2")
    tasks = sum([command.tasks_of(name, PAPER) for name in names], [])
    assert set(tables.PRINTED) == set(tasks)


def test_command_does_a_part_only(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(tables, "table1", lambda *values: calls.append(values))
    monkeypatch.setattr("benchmarks.paper.runs.Images.test", lambda *_: None)
    options = ["--only", "cifar100/resnet18", RESNET18, "--seeds", 3, 4]
    options += ["--precision", "mixed_bfloat16", "--out", tmp_path]
    call_main(monkeypatch, "table1", "--scale", "paper", *options)
    ((runner, tasks, path),) = calls
    assert tasks == [RESNET18, "cifar100/resnet18"]
    assert path == tmp_path / "paper" / "table1"
    assert runner.scale.seeds == (3, 4)
    assert runner.precision == "mixed_bfloat16"
    with locked(tmp_path / "paper"):
        with pytest.raises(RuntimeError, match="Another process"):
            call_main(monkeypatch, "table1", "--scale", "paper", *options)


def test_missing_data_set_is_an_error_before_any_training(
    data_dir, tmp_path, monkeypatch
):
    monkeypatch.setattr(Runner, "train", None)
    options = ["--data-dir", data_dir, "--out", tmp_path]
    with pytest.raises(FileNotFoundError, match="cifar100"):
        call_main(monkeypatch, "table1", "--scale", "paper", *options)


@pytest.mark.parametrize(
    "options, message",
    [
        ("table2 --only cifar10/resnet18", "--only must be of imagenet"),
        ("figure4 --only cifar10/wrn-28-10", "for figure4. Received"),
        ("table1 --precision half", "invalid choice: 'half'"),
        ("table1 --seeds -1", "seed=-1"),
        ("table1 --jobs 0", "--jobs must be positive"),
    ],
)
def test_command_refuses_wrong_options(
    options, message, monkeypatch, tmp_path, capsys
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        call_main(monkeypatch, *options.split())
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
