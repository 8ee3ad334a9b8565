"""Tables and figures, on a few small images."""

import dataclasses
import functools
import json

import numpy as np
import pytest

from keras_esam.experiments import __main__ as command
from keras_esam.experiments import figures
from keras_esam.experiments import landscapes
from keras_esam.experiments import speeds
from keras_esam.experiments import tables
from keras_esam.experiments.locked import locked
from keras_esam.experiments.runs import Run
from keras_esam.experiments.scales import PAPER
from keras_esam.experiments.scales import SMALL
from tests.backends import tensorflow_only
from tests.experiments.tiny import make_runner

pytestmark = tensorflow_only


RESNET18 = ["cifar10/resnet18"]


@pytest.fixture(scope="module")
def runner(data_dir, tmp_path_factory):
    """One for all tests, which share trainings as the experiments do."""
    return make_runner(data_dir, tmp_path_factory.mktemp("runs"), seeds=(0,))


def test_table3_has_all_methods_beside_the_paper(
    runner, tmp_path, capsys, monkeypatch
):
    for measured in runner.folder.glob("*-speeds.json"):
        measured.unlink()
    tables.table3(runner, RESNET18, tmp_path / "table3")
    text = (tmp_path / "table3.md").read_text()
    printed = capsys.readouterr().out
    assert text in printed
    assert "first steps of cifar10-resnet18-sgd-0 (1 of 7)" in printed
    assert "14/14" in printed
    for label in tables.ABLATION:
        assert f"| cifar10/resnet18 | {label} |" in text
    assert "| 96.56 |" in text and "| 1.40 |" in text
    network = "resnet18(width=2, depth=1), 40 images of cifar10"
    assert text.endswith(f"\n- cifar10/resnet18: {network}; seeds 0\n")
    summary = json.loads((tmp_path / "table3.json").read_text())
    sam = summary["cifar10/resnet18"]["SAM"]
    assert (sam["speed_relative_to_sam"], sam["seeds"]) == (1, [0])
    assert len(sam["images_per_second"]) == 2
    # A table of some of the methods needs no other measurement.
    monkeypatch.setattr(speeds, "_measure", None)
    runs = tables.runs_of_all(runner, RESNET18, tables.METHODS)
    summary = tables.summarise(runner, runs)
    assert summary["cifar10/resnet18"]["SAM"] == sam


def test_markdown_of_a_summary_by_hand():
    row = {
        "test_accuracy": [50.0, 54.0],
        "train_accuracy": [90.0, 92.0],
        "images_per_second": [120.0, 123.4, 130.0],
        "speed_relative_to_sam": 1.25,
    }
    text = tables.markdown({"cifar10/resnet18": {"SDS alone": row}}, "small")
    assert text.startswith("| small scale | method |")
    assert text.endswith(
        "| cifar10/resnet18 | SDS alone | 52.00 +- 2.83 | 96.45 | 91.0 | 123 "
        "| 1.25 | 1.23 |\n"
    )


def assert_drawn(path):
    picture = path.with_suffix(".png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 5000


@pytest.mark.parametrize("name", ["figure1", "figure4", "figure6"])
def test_figures_are_drawn(name, runner, tmp_path):
    command.EXPERIMENTS[name](runner, RESNET18, tmp_path / name)
    assert json.loads((tmp_path / f"{name}.json").read_text())
    assert_drawn(tmp_path / name)


def test_figure3_has_beta_and_gamma_alone_and_in_pairs(runner, tmp_path):
    figures.figure3(runner, RESNET18, tmp_path / "figure3")
    assert_drawn(tmp_path / "figure3")
    summary = json.loads((tmp_path / "figure3.json").read_text())
    assert set(summary) == {
        "SAM",
        "beta 0.5, gamma 1.0",
        "beta 1.0, gamma 0.5",
        "beta 0.5, gamma 0.5",
    }
    assert runner.folder_of(
        Run("pair", "cifar10/resnet18/esam", 0, (("beta", 0.5),))
    ).exists()


def test_figure5_is_drawn_with_its_verdict(runner, tmp_path):
    figures.figure5(runner, RESNET18, tmp_path / "figure5")
    assert_drawn(tmp_path / "figure5")
    values = json.loads((tmp_path / "figure5.json").read_text())
    assert len(values["losses"]["SAM"]["loss_plus"]) == 2
    assert values["verdict"] == figures.verdict(values["losses"])
    text = (tmp_path / "figure5.md").read_text()
    assert text == figures.markdown(values["verdict"], "tiny")


def test_landscapes_are_kept_with_their_settings(data_dir, tmp_path, capsys):
    runner = make_runner(data_dir, tmp_path)
    runs = [Run("SGD", "cifar10/resnet18/sgd", s) for s in runner.scale.seeds]
    runs[1] = dataclasses.replace(runs[1], label="other seed")
    runner.results(runs)
    first = landscapes.landscapes_of(runner, runs[:1])
    capsys.readouterr()
    both = landscapes.landscapes_of(runner, runs)
    assert both["SGD"] == first["SGD"] != both["other seed"]
    assert "landscape of other seed (1 of 1)" in capsys.readouterr().out
    assert len(both["SGD"]["coordinates"]) == 3
    finer = make_runner(data_dir, tmp_path, num_points=5)
    again = landscapes.landscapes_of(finer, runs[:1])
    assert len(again["SGD"]["mean_losses"]) == 5


def test_landscape_with_losses_that_are_not_finite_is_drawn(
    runner, tmp_path, monkeypatch
):
    kept = {"coordinates": [-1.0, 0.0, 1.0], "mean_losses": [[1.0] * 3] * 3}
    kept["mean_losses"] = [[None, 2.0, 1.0], *kept["mean_losses"][1:]]
    monkeypatch.setattr(
        figures, "landscapes_of", lambda *_: {"SGD": kept, "SAM": kept}
    )
    figures.figure4(runner, RESNET18, tmp_path / "figure4")
    assert_drawn(tmp_path / "figure4")


def test_verdict_leaves_out_epochs_that_are_not_finite():
    losses = {
        "loss": [1.0, None],
        "loss_plus": [1.0, None],
        "loss_minus": [1.0, 0.0],
        "perturbed_loss": [1.5, 1.5],
        "perturbed_loss_plus": [2.0, 2.1],
        "perturbed_loss_minus": [1.0, 0.9],
    }
    assert list(figures.verdict({"SAM": losses})["SAM"].values()) == [1.0] * 3
    losses = {key: [None] for key in losses}
    shares = figures.verdict({"SAM": losses})["SAM"]
    assert np.isnan(list(shares.values())).all()


def test_verdict_counts_the_epochs_in_which_the_inequalities_hold():
    values = {
        "SAM": {
            "loss": [1.0, 1.0],
            "loss_plus": [1.0, 2.0],
            "loss_minus": [1.0, 0.0],
            "perturbed_loss": [1.5, 1.5],
            "perturbed_loss_plus": [2.0, 2.1],
            "perturbed_loss_minus": [1.0, 0.9],
        }
    }
    shares = figures.verdict(values)
    assert list(shares["SAM"].values()) == [0.5, 1, 0.5]
    header, _, row = figures.markdown(shares, "small").splitlines()
    assert header.startswith("| epochs, small scale | rise on B+")
    assert header.count("by construction") == 2
    assert row == "| SAM | 50% | 100% | 50% |"


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
    assert set(tables.PRINTED) == {
        f"{d}/{n}"
        for d, names in (
            ("cifar10", tables.NETWORKS),
            ("cifar100", tables.NETWORKS),
            ("imagenet", tables.IMAGENET_NETWORKS),
        )
        for n in names
    }


def call_main(monkeypatch, name, *options):
    """What the function of an experiment is called with."""
    calls = []

    @functools.wraps(command.EXPERIMENTS[name])
    def record(*values):
        calls.append(values)

    monkeypatch.setitem(command.EXPERIMENTS, name, record)
    arguments = ["experiments", name, *map(str, options)]
    monkeypatch.setattr("sys.argv", arguments)
    command.main()
    return calls[0]


def test_command_does_a_part_only(monkeypatch, tmp_path):
    runner, tasks, path = call_main(
        monkeypatch,
        *("table1", "--scale", "paper", "--out", tmp_path),
        *("--only", "cifar100/resnet18", "cifar10/resnet18"),
        *("--seeds", 3, 4, "--precision", "mixed_bfloat16"),
    )
    assert tasks == ["cifar10/resnet18", "cifar100/resnet18"]
    assert path == tmp_path / "paper" / "table1"
    assert runner.scale.seeds == (3, 4)
    assert runner.precision == "mixed_bfloat16"


def test_two_commands_never_work_in_one_folder(monkeypatch, tmp_path):
    with locked(tmp_path / "small"):
        with pytest.raises(RuntimeError, match="Another process"):
            call_main(monkeypatch, "table1", "--out", tmp_path)


def test_command_does_all_by_default(monkeypatch, tmp_path):
    runner, tasks, _ = call_main(monkeypatch, "table2", "--out", tmp_path)
    assert tasks == ["imagenet/resnet50", "imagenet/resnet101"]
    assert (runner.scale, runner.precision) == (SMALL, "float32")


@pytest.mark.parametrize(
    "options, message",
    [
        (
            ["table2", "--only", "cifar10/resnet18"],
            "--only must be of imagenet",
        ),
        (["figure4", "--only", "cifar10/wrn-28-10"], "for figure4. Received"),
        (["table1", "--precision", "half"], "invalid choice: 'half'"),
        (["table1", "--seeds", "-1"], "seed=-1"),
        (["table1", "--jobs", "0"], "--jobs must be positive"),
    ],
)
def test_command_refuses_wrong_options(
    options, message, monkeypatch, tmp_path, capsys
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        call_main(monkeypatch, *options)
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
