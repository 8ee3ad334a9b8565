"""Tables and figures, on a few small images."""

import dataclasses
import json

import numpy as np
import pytest

from keras_esam.experiments import __main__ as command
from keras_esam.experiments import figures
from keras_esam.experiments import landscape_picture
from keras_esam.experiments import landscapes
from keras_esam.experiments import speeds
from keras_esam.experiments import tables
from keras_esam.experiments.runs import Run
from keras_esam.experiments.runs import Runner
from keras_esam.experiments.scales import PAPER
from keras_esam.experiments.scales import SMALL
from tests.backends import tensorflow_only
from tests.data.files import encoded
from tests.data.files import photograph
from tests.data.files import write_cifar

pytestmark = [tensorflow_only, pytest.mark.usefixtures("few_subsets")]
SIZES = {
    "resnet18": {"width": 2, "depth": 1},
    "wrn-28-10": {"width": 1, "depth": 10},
    "pyramidnet-110": {"width": 6, "depth": 8},
}
TINY = dataclasses.replace(
    SMALL,
    name="tiny",
    num_samples={"cifar10": 40},
    seeds=(0, 1),
    changes={
        "resnet18": {"epochs": 2, "batch_size": 4},
        "resnet50": {"epochs": 1, "batch_size": 4},
    },
    sizes=SIZES,
    stand_ins={},
    grid=(0.5,),
    num_draws=1,
    num_points=3,
    image_size=32,
)


@pytest.fixture(autouse=True)
def quick_speeds(monkeypatch):
    monkeypatch.setattr(speeds, "ROUNDS", 2)
    monkeypatch.setattr(speeds, "NUM_STEPS", 3)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    write_cifar(folder, num_train=140, num_test=20)
    return folder


def make_runner(data_dir, folder, **changes):
    runner = Runner(dataclasses.replace(TINY, **changes), folder, data_dir)
    runner.folder.mkdir(parents=True, exist_ok=True)
    return runner


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
    monkeypatch.setattr(Runner, "_train", None)
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


def test_begun_run_without_settings_is_refused(tmp_path):
    runner = Runner(TINY, tmp_path)
    run = Run("SGD", "cifar10/resnet18/sgd", 0)
    (runner.folder_of(run) / "backup").mkdir(parents=True)
    with pytest.raises(ValueError, match="other settings.*None"):
        runner.results([run])


def test_table3_has_all_methods_beside_the_paper(
    data_dir, tmp_path, capsys, monkeypatch
):
    runner = make_runner(data_dir, tmp_path, seeds=(0,))
    tables.table3(runner, tmp_path / "table3")
    text = (tmp_path / "table3.md").read_text()
    printed = capsys.readouterr().out
    assert text in printed
    assert "first steps of cifar10-resnet18-sgd-0 (1 of 7)" in printed
    assert "14/14" in printed
    for label in tables.ABLATION:
        assert f"| cifar10/resnet18 | {label} |" in text
    assert "| 96.56 |" in text and "| 1.40 |" in text
    summary = json.loads((tmp_path / "table3.json").read_text())
    sam = summary["cifar10/resnet18"]["SAM"]
    assert sam["speed_relative_to_sam"] == 1
    assert len(sam["images_per_second"]) == 2
    # A table of some of the methods needs no other measurement.
    monkeypatch.setattr(speeds, "_measure", None)
    summary = tables.summarise(runner, ["cifar10/resnet18"], tables.METHODS)
    assert summary["cifar10/resnet18"]["SAM"] == sam


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


@pytest.mark.parametrize("scale", [PAPER, SMALL])
def test_imagenet_has_a_thousand_classes(scale, tmp_path):
    settings = Runner(scale, tmp_path).settings(
        Run("SGD", "imagenet/resnet50/sgd", 0)
    )
    assert settings["sizes"]["num_classes"] == 1000


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


@pytest.mark.parametrize("name", ["figure1", "figure3", "figure4", "figure6"])
def test_figures_are_drawn(name, data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "NETWORKS", ("resnet18",))
    runner = make_runner(data_dir, tmp_path, seeds=(0,))
    command.EXPERIMENTS[name](runner, tmp_path / name)
    assert json.loads((tmp_path / f"{name}.json").read_text())
    assert_drawn(tmp_path / name)


def test_figure5_is_drawn_with_its_verdict(data_dir, tmp_path):
    runner = make_runner(data_dir, tmp_path, seeds=(0,))
    figures.figure5(runner, tmp_path / "figure5")
    assert_drawn(tmp_path / "figure5")
    values = json.loads((tmp_path / "figure5.json").read_text())
    assert len(values["losses"]["SAM"]["loss_plus"]) == 2
    assert values["verdict"] == figures.verdict(values["losses"])
    text = (tmp_path / "figure5.md").read_text()
    assert text == figures.markdown(values["verdict"], "tiny")


def test_landscapes_are_kept_with_their_settings(
    data_dir, tmp_path, capsys, monkeypatch
):
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


def test_levels_of_a_landscape_are_plain_and_enclose_it():
    def levels(*values):
        return landscape_picture.plain_levels(np.array(values))

    assert levels(0.021, 0.9) == [0.02, 0.05, 0.1, 0.2, 0.5, 1.0]
    assert levels(2.0, 2.0) == [2.0, 5.0]
    with pytest.raises(ValueError, match="positive"):
        levels()


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
