"""Figures 1 and 3 to 6 of the paper."""

import pathlib

import keras
import numpy as np

from keras_esam import analysis
from keras_esam.experiments import pictures
from keras_esam.experiments import tables
from keras_esam.experiments.runs import Run
from keras_esam.experiments.runs import Runner
from keras_esam.experiments.runs import write_json

TASK = "cifar10/resnet18"


def figure1(runner: Runner, out: pathlib.Path):
    """Training speed against accuracy, of the runs of Table 1."""
    tasks = [f"{d}/{n}" for d in runner.scale.datasets for n in tables.NETWORKS]
    summary = tables.summarise(runner, tasks, tables.METHODS)
    write_json(summary, out.with_suffix(".json"))
    pictures.speed_against_accuracy(summary, out.with_suffix(".png"))


def figure3(runner: Runner, out: pathlib.Path):
    """Accuracy and speed by beta and by gamma, the other one being 1."""
    methods = {"SAM": ("sam", ())}
    for value in runner.scale.grid:
        methods[f"beta {value}"] = ("esam-swp", (("beta", value),))
        methods[f"gamma {value}"] = ("esam-sds", (("gamma", value),))
    summary = tables.summarise(runner, [TASK], methods)[TASK]
    write_json(summary, out.with_suffix(".json"))
    pictures.grid(summary, runner.scale.grid, out.with_suffix(".png"))


def figure4(runner: Runner, out: pathlib.Path):
    """Loss landscapes of SGD, SAM and ESAM."""
    methods = {key: tables.METHODS[key] for key in ("SGD", "SAM", "ESAM")}
    runs = tables.runs_of(TASK, methods, runner.scale.seeds[:1])
    runner.results([own[0] for own in runs.values()])
    landscapes = {}
    for label, (run,) in runs.items():
        network = runner.trained_network(run)
        network.compile(
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
        print(f"landscape of {label}")
        landscapes[label] = analysis.loss_landscape(
            network,
            runner.images.probe(runner.recipe(run)),
            num_points=runner.scale.num_points,
            num_draws=runner.scale.num_draws,
        )
    write_json(
        {
            label: {
                "coordinates": landscape.coordinates.tolist(),
                "mean_losses": landscape.mean_losses.round(4).tolist(),
            }
            for label, landscape in landscapes.items()
        },
        out.with_suffix(".json"),
    )
    analysis.plot_landscape(landscapes, out.with_suffix(".png"))


def figure5(runner: Runner, out: pathlib.Path):
    """Losses on B+ and B-, clean and perturbed, per epoch."""
    histories = _probed(runner)
    values = {label: losses(rows) for label, rows in histories.items()}
    write_json(values, out.with_suffix(".json"))
    pictures.losses_of_halves(values, out.with_suffix(".png"))
    print(verdict(values))


def figure6(runner: Runner, out: pathlib.Path):
    """Cosine similarity of the gradients of B+ and B- with that of B."""
    values = {
        label: {
            part: [row[f"probe_cosine_{part}"] for row in rows]
            for part in ("plus", "minus")
        }
        for label, rows in _probed(runner).items()
    }
    write_json(values, out.with_suffix(".json"))
    pictures.cosines(values, out.with_suffix(".png"))


def losses(rows: list[dict]) -> dict:
    """The probe's losses by name, lists with an entry for each epoch."""
    prefix = "probe_"
    return {
        key.removeprefix(prefix): [row[key] for row in rows]
        for key in rows[0]
        if key.startswith(prefix) and "loss" in key
    }


def verdict(values: dict) -> str:
    """In which share of the epochs the paper's inequalities hold.

    They are the ones behind equations 8 to 10: the loss of B+ rises by at least
    as much as that of B-, the perturbed loss of B+ is at least that of B-, and
    the rise on B+ is at least that on B, of which B+ thus is an upper bound.

    Args:
        values: Dict of label to the lists of `losses`.

    Returns:
        Markdown table.
    """
    lines = [
        "| | rise on B+ >= on B- | loss on B+ >= on B-, perturbed "
        "| rise on B+ >= on B |",
        "|---|---|---|---|",
    ]
    for label, own in values.items():
        a = {key: np.array(value) for key, value in own.items()}
        rise = {
            part: a[f"perturbed_loss{part}"] - a[f"loss{part}"]
            for part in ("", "_plus", "_minus")
        }
        holds = [
            rise["_plus"] >= rise["_minus"],
            a["perturbed_loss_plus"] >= a["perturbed_loss_minus"],
            rise["_plus"] >= rise[""],
        ]
        cells = [f"{np.mean(h):.0%} of {len(h)} epochs" for h in holds]
        lines.append("| " + " | ".join([label, *cells]) + " |")
    return "\n".join(lines) + "\n"


def _probed(runner):
    """Histories, with the quantities of `SharpnessLogger`, by label."""
    seed = runner.scale.seeds[0]
    runs = {
        label: Run(label, f"{TASK}/{method}", seed, probed=True)
        for label, method in (("SAM", "sam"), ("ESAM", "esam"))
    }
    results = runner.results(list(runs.values()))
    return {
        label: result["history"]
        for label, result in zip(runs, results, strict=True)
    }
