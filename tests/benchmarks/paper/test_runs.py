"""Trainings for the tables, on a few small images."""

import dataclasses
import json

import pytest

from benchmarks.paper.__main__ import tasks_of
from benchmarks.paper.runs import Run
from benchmarks.paper.runs import Runner
from benchmarks.paper.scales import PAPER
from benchmarks.paper.scales import SMALL
from tests.backends import tensorflow_only
from tests.benchmarks.paper.runners import make_runner
from tests.data.files import encoded
from tests.data.files import photograph
from tests.data.files import write_tree

pytestmark = tensorflow_only
SGD = Run("cifar10/resnet18/sgd", 0)
SAM = Run("cifar10/resnet18/sam", 0)
IMAGENET = Run("imagenet/resnet50/sgd", 0)


@pytest.mark.slow
def test_run_is_done_once(data_dir, tmp_path, capsys):
    runner = make_runner(tmp_path, data_dir)
    runs = [SAM, Run("cifar10/resnet18/sam", 1)]
    first = runner.results(runs)
    printed = capsys.readouterr().out
    assert "2 trainings, 1 at a time" in printed and "4/4" in printed
    assert runner.results(runs) == first
    assert capsys.readouterr().out == ""
    assert first[0] != first[1]
    assert 0 <= first[0]["test_accuracy"] <= 100
    assert len(first[0]["history"]) == 2
    settings = json.loads((runner.folder_of(SAM) / "settings.json").read_text())
    assert (settings["epochs"], settings["batch_size"]) == (2, 4)
    assert settings["esam"]["rho"] == SMALL.rho
    other = make_runner(tmp_path, data_dir, num_samples={"cifar10": 10})
    with pytest.raises(ValueError, match="num_samples=20. Rec.*num_samples=10"):
        other.results(runs)


@pytest.mark.slow
def test_runs_beside_each_other_are_those_in_turn(data_dir, tmp_path, capfd):
    runs = [SGD, Run("cifar10/resnet18/sgd", 1)]
    expected = make_runner(tmp_path / "turn", data_dir).results(runs)
    capfd.readouterr()
    runner = make_runner(tmp_path / "beside", data_dir, num_jobs=2)
    for own, other in zip(runner.results(runs), expected, strict=True):
        losses = [epoch["loss"] for epoch in own["history"]]
        assert losses == pytest.approx(
            [epoch["loss"] for epoch in other["history"]], rel=1e-4
        )
    printed = capfd.readouterr().out
    assert printed.startswith("2 trainings, 2 at a time\n")
    assert "4/4" in printed and "2/2" not in printed


def test_cut_run_resumes_where_it_was_cut(data_dir, tmp_path, monkeypatch):
    run = SAM
    (whole,) = make_runner(tmp_path / "whole", data_dir).results([run])
    runner = make_runner(tmp_path / "cut", data_dir)

    def cut_after_one(epoch, logs):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.train(run, cut_after_one)
    other = make_runner(tmp_path / "cut", data_dir, rho=0.2)
    with pytest.raises(ValueError, match="new folder.*'rho': 0.1.*'rho': 0.2"):
        other.results([run])
    (resumed,) = runner.results([run])
    keys = ("loss", "accuracy")
    assert [[row[key] for key in keys] for row in resumed["history"]] == [
        [row[key] for key in keys] for row in whole["history"]
    ]
    assert resumed["test_accuracy"] == whole["test_accuracy"]


@pytest.mark.slow
def test_trainings_of_figure5_are_probed(data_dir, tmp_path):
    runner = make_runner(tmp_path, data_dir)
    changed = dataclasses.replace(SAM, esam=(("rho", 0.05),))
    probed, *others = runner.results([SAM, SGD, changed])
    assert all("probe_loss_plus" in row for row in probed["history"])
    assert not any("probe_loss_plus" in run["history"][0] for run in others)
    assert runner.trained_network(SAM).count_params()


def test_changes_that_the_recipe_has_are_no_other_run(tmp_path):
    runner = make_runner(tmp_path)
    run = Run("cifar10/resnet18/esam-swp", 0)
    name = "cifar10-resnet18-esam-swp"
    same = dataclasses.replace(run, esam=(("beta", 0.6),))
    assert runner.name(run) == runner.name(same) == f"{name}-0"
    for change in (("beta", 0.5), ("rho", 0.05)):
        other = dataclasses.replace(run, esam=(change,))
        key, value = change
        assert runner.name(other) == f"{name}-{key}={value}-0"
        assert runner.recipe(other).esam[key] == value


def test_precision_is_that_of_the_network_and_of_the_settings(
    tmp_path, bfloat16
):
    runner = make_runner(tmp_path, precision="mixed_bfloat16")
    model = runner.make_model(SGD, 1)
    assert model.model.layers[1].compute_dtype == "bfloat16"
    assert runner.settings(SGD)["precision"] == "mixed_bfloat16"
    assert runner.describe("cifar10/resnet18")[1:] == [
        *("20 images of cifar10", "mixed_bfloat16")
    ]
    model = make_runner(tmp_path).make_model(SGD, 1)
    assert model.model.layers[1].compute_dtype == "float32"


def test_settings_without_an_epoch_do_not_count(data_dir, tmp_path):
    runner = make_runner(tmp_path, data_dir)
    path = runner.folder_of(SGD)
    path.mkdir()
    (path / "settings.json").write_text('{"epochs": 100}')
    assert len(runner.results([SGD])[0]["history"]) == 2
    assert "100" not in (path / "settings.json").read_text()
    # But an epoch without settings does.
    (path / "settings.json").unlink()
    with pytest.raises(ValueError, match="trained with recipe=None"):
        runner.results([SGD])


def write_photographs(folder, sizes):
    """Class folders with as many images as `sizes` says."""
    files = {
        f"{split}/class-{index}/{number}.JPEG": encoded(photograph())
        for split in ("train", "val")
        for index, size in enumerate(sizes)
        for number in range(size)
    }
    write_tree(folder, files)
    return folder


def test_class_folders_take_the_place_of_imagenet(tmp_path):
    folder = write_photographs(tmp_path / "photographs", [2, 3, 2])
    runner = make_runner(tmp_path, None, folder, num_samples={"imagenet": 5})
    settings = runner.settings(IMAGENET)
    assert settings["sizes"] == {"num_classes": 3}
    assert settings["num_samples"] == 3
    assert settings["class_names"] == ["class-0", "class-1", "class-2"]
    runner = make_runner(tmp_path, None, f"{folder}/.", num_samples={})
    assert runner.settings(IMAGENET)["images"] == "photographs, 32 pixels"
    runner = make_runner(tmp_path, None, folder, num_samples={"imagenet": 100})
    (result,) = runner.results([IMAGENET])
    assert runner.settings(IMAGENET)["num_samples"] == 6
    assert 0 <= result["test_accuracy"] <= 100
    runner = make_runner(tmp_path, None, folder, num_samples={"imagenet": 2})
    with pytest.raises(ValueError, match="at most 2 class folders.* with 3"):
        runner.settings(IMAGENET)


@pytest.mark.parametrize(
    "task", [*tasks_of("table1", SMALL), *tasks_of("table2", SMALL)]
)
def test_networks_of_the_small_scale_are_made(task, tmp_path):
    runner = Runner(SMALL, tmp_path, make_runner(tmp_path).images)
    model = runner.make_model(Run(f"{task}/sgd", 0), 1)
    side, classes = (64, 1000) if task.startswith("imagenet") else (32, 10)
    assert model.model.input_shape == (None, side, side, 3)
    assert model.model.output_shape == (None, classes)
    # The smallest of the paper's networks has ten times as many.
    assert model.model.count_params() < 1_117_396


@pytest.mark.parametrize("scale", [PAPER, SMALL])
def test_settings_of_imagenet(scale, tmp_path):
    runner = Runner(scale, tmp_path, make_runner(tmp_path).images)
    settings = runner.settings(IMAGENET)
    assert settings["sizes"]["num_classes"] == 1000
    stand_in = {"small": "bottleneck_resnet", "paper": None}[scale.name]
    assert settings["stand_in"] == stand_in
