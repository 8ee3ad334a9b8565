"""Trainings of the experiments, on a few small images."""

import dataclasses
import json

import pytest

from keras_esam.experiments import tables
from keras_esam.experiments.runs import Run
from keras_esam.experiments.runs import Runner
from keras_esam.experiments.scales import PAPER
from keras_esam.experiments.scales import SMALL
from tests.backends import tensorflow_only
from tests.data.files import encoded
from tests.data.files import photograph
from tests.experiments.tiny import TINY
from tests.experiments.tiny import make_runner

pytestmark = tensorflow_only


def test_run_is_done_once(data_dir, tmp_path, capsys):
    runner = make_runner(data_dir, tmp_path)
    runs = [Run("SAM", "cifar10/resnet18/sam", seed) for seed in (0, 1)]
    first = runner.results(runs)
    assert "2 of 2, about" in capsys.readouterr().out
    assert runner.results(runs) == first
    assert " of 2" not in capsys.readouterr().out
    assert first[0]["test_accuracy"] >= 0
    assert len(first[0]["history"]) == 2
    settings = json.loads(
        (runner.folder_of(runs[0]) / "settings.json").read_text()
    )
    assert (settings["epochs"], settings["batch_size"]) == (2, 4)
    assert settings["esam"]["rho"] == SMALL.rho
    other = make_runner(data_dir, tmp_path, num_samples={"cifar10": 20})
    with pytest.raises(ValueError, match="other settings"):
        other.results(runs)


def test_runs_beside_each_other_are_those_in_turn(data_dir, tmp_path, capfd):
    runs = [Run("SAM", "cifar10/resnet18/sam", seed) for seed in (0, 1)]
    expected = make_runner(data_dir, tmp_path / "turn").results(runs)
    capfd.readouterr()
    runner = make_runner(data_dir, tmp_path / "beside", num_jobs=2)
    for own, other in zip(runner.results(runs), expected, strict=True):
        losses = [epoch["loss"] for epoch in own["history"]]
        assert losses == pytest.approx(
            [epoch["loss"] for epoch in other["history"]], rel=1e-4
        )
    printed = capfd.readouterr().out
    assert printed.startswith("2 trainings, 2 at a time\n")
    assert "4/4" in printed and "2/2" not in printed


def test_cut_run_goes_on_where_it_was_cut(data_dir, tmp_path, monkeypatch):
    run = Run("ESAM", "cifar10/resnet18/esam", 0)
    (whole,) = make_runner(data_dir, tmp_path / "whole").results([run])
    runner = make_runner(data_dir, tmp_path / "cut")
    with monkeypatch.context() as patch:

        def fail(*args, **kwargs):
            raise KeyboardInterrupt

        patch.setattr("keras.Model.evaluate", fail)
        with pytest.raises(KeyboardInterrupt):
            runner.results([run])
    other = make_runner(data_dir, tmp_path / "cut", rho=0.2)
    with pytest.raises(ValueError, match="other settings.*'rho': 0.1"):
        other.results([run])
    (resumed,) = runner.results([run])
    for epoch, expected in zip(
        resumed["history"], whole["history"], strict=True
    ):
        assert epoch["loss"] == expected["loss"]
    assert resumed["test_accuracy"] == whole["test_accuracy"]


def test_probed_run_serves_all_and_an_unprobed_one_no_figure5(
    data_dir, tmp_path, monkeypatch
):
    runner = make_runner(data_dir, tmp_path)
    unprobed = Run("SAM", "cifar10/resnet18/sam", 0)
    probed = dataclasses.replace(unprobed, probed=True)
    (result,) = runner.results([unprobed])
    assert "probe_loss_plus" not in result["history"][0]
    (result,) = runner.results([probed])
    assert all("probe_loss_plus" in row for row in result["history"])

    other = make_runner(data_dir, tmp_path / "other")
    (first,) = other.results([probed])
    monkeypatch.setattr(Runner, "train", None)
    assert other.results([unprobed]) == [first]
    assert other.trained_network(unprobed).count_params()


def test_changes_that_the_recipe_has_are_no_other_run(tmp_path):
    runner = Runner(TINY, tmp_path)
    run = Run("SWP alone", "cifar10/resnet18/esam-swp", 0)
    same = dataclasses.replace(run, label="beta 0.6", esam=(("beta", 0.6),))
    assert (
        runner.name(run) == runner.name(same) == "cifar10-resnet18-esam-swp-0"
    )
    other = dataclasses.replace(run, esam=(("beta", 0.5),))
    assert runner.name(other) == "cifar10-resnet18-esam-swp-beta=0.5-0"
    own_rho = dataclasses.replace(
        run, esam=(("rho", PAPER.recipe(run.recipe).esam["rho"]),)
    )
    assert runner.name(own_rho) == "cifar10-resnet18-esam-swp-rho=0.05-0"


def test_precision_is_that_of_the_network_and_of_the_settings(
    tmp_path, bfloat16
):
    run = Run("SGD", "cifar10/resnet18/sgd", 0)
    runner = Runner(TINY, tmp_path, precision="mixed_bfloat16")
    model = runner.make_model(run, 1)
    assert model.model.layers[1].compute_dtype == "bfloat16"
    assert runner.settings(run)["precision"] == "mixed_bfloat16"
    assert runner.describe("cifar10/resnet18") == [
        "resnet18(width=2, depth=1)",
        "40 images of cifar10",
        "mixed_bfloat16",
    ]
    model = Runner(TINY, tmp_path).make_model(run, 1)
    assert model.model.layers[1].compute_dtype == "float32"


def test_settings_without_an_epoch_do_not_count(data_dir, tmp_path):
    run = Run("SGD", "cifar10/resnet18/sgd", 0)
    runner = make_runner(data_dir, tmp_path)
    path = runner.folder_of(run)
    path.mkdir()
    (path / "settings.json").write_text('{"epochs": 100}')
    assert len(runner.results([run])[0]["history"]) == 2
    assert "100" not in (path / "settings.json").read_text()


def test_missing_data_set_is_an_error_before_any_training(
    data_dir, tmp_path, monkeypatch
):
    monkeypatch.setattr(Runner, "train", None)
    tasks = ("cifar10/resnet18", "cifar100/resnet18")
    runs = [Run("SGD", f"{task}/sgd", 0) for task in tasks]
    with pytest.raises(FileNotFoundError, match="cifar100"):
        make_runner(data_dir, tmp_path).results(runs)


def test_other_photographs_are_another_setting(tmp_path):
    run = Run("SGD", "imagenet/resnet50/sgd", 0)
    settings = []
    for name, sizes in (("one", [2, 2]), ("other", [2, 2, 2])):
        folder = write_photographs(tmp_path / name / "photographs", sizes)
        runner = Runner(TINY, tmp_path, photographs=f"{folder}/.")
        settings.append(runner.settings(run))
        assert settings[-1]["images"] == "photographs, 32 pixels"
    assert settings[0]["class_names"] == ["class-0", "class-1"]
    assert settings[0]["class_names"] != settings[1]["class_names"]


def test_begun_run_without_settings_is_refused(tmp_path):
    runner = Runner(TINY, tmp_path)
    run = Run("SGD", "cifar10/resnet18/sgd", 0)
    (runner.folder_of(run) / "backup").mkdir(parents=True)
    with pytest.raises(ValueError, match="other settings.*None"):
        runner.results([run])


def write_photographs(folder, sizes):
    """Class folders with as many photographs as `sizes` says."""
    contents = encoded(photograph())
    for split in ("train", "val"):
        for index, size in enumerate(sizes):
            path = folder / split / f"class-{index}"
            path.mkdir(parents=True)
            for number in range(size):
                (path / f"{number}.JPEG").write_bytes(contents)
    return folder


def test_photographs_take_the_place_of_imagenet(tmp_path):
    folder = write_photographs(tmp_path / "photographs", [2, 3, 2])
    changes = {"num_samples": {"imagenet": 5}, "image_size": 32}
    sizes = {"resnet50": {"input_shape": (32, 32, 3)}}
    scale = dataclasses.replace(TINY, sizes=sizes, **changes)
    runner = Runner(scale, tmp_path, photographs=folder)
    run = Run("SGD", "imagenet/resnet50/sgd", 0)
    settings = runner.settings(run)
    assert settings["sizes"] == {"input_shape": [32, 32, 3], "num_classes": 3}
    assert settings["num_samples"] == 3
    assert runner.make_model(run, 1).model.output_shape == (None, 3)
    scale = dataclasses.replace(scale, num_samples={"imagenet": 100})
    runner = Runner(scale, tmp_path, photographs=folder)
    (result,) = runner.results([run])
    assert runner.settings(run)["num_samples"] == 6
    assert 0 <= result["test_accuracy"] <= 100


def test_all_classes_of_photographs_have_images(tmp_path):
    folder = write_photographs(tmp_path / "photographs", [1, 1, 1])
    scale = dataclasses.replace(TINY, num_samples={"imagenet": 2})
    runner = Runner(scale, tmp_path, photographs=folder)
    with pytest.raises(ValueError, match="at most 2 class folders.* with 3"):
        runner.settings(Run("SGD", "imagenet/resnet50/sgd", 0))


@pytest.mark.parametrize(
    "task",
    [*tables.tasks_of("table1", SMALL), *tables.tasks_of("table2", SMALL)],
)
def test_networks_of_the_small_scale_are_made(task, tmp_path):
    runner = Runner(SMALL, tmp_path)
    model = runner.make_model(Run("SGD", f"{task}/sgd", 0), 1)
    side, classes = (64, 1000) if task.startswith("imagenet") else (32, 10)
    assert model.model.input_shape == (None, side, side, 3)
    assert model.model.output_shape == (None, classes)
    # Of the paper's networks the smallest has ten times as many.
    assert model.model.count_params() < 1_117_396


@pytest.mark.parametrize("scale", [PAPER, SMALL])
def test_imagenet_has_a_thousand_classes(scale, tmp_path):
    settings = Runner(scale, tmp_path).settings(
        Run("SGD", "imagenet/resnet50/sgd", 0)
    )
    assert settings["sizes"]["num_classes"] == 1000
