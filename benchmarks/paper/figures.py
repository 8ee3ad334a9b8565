"""Figures 1 and 3 to 6 of the paper.

Each `figureN` writes `OUT.png` and returns the dict of values drawn in it.
"""

import pathlib

import keras
import numpy as np

from benchmarks import report
from benchmarks.paper import pictures
from benchmarks.paper import tables
from benchmarks.paper.runs import PROBED
from benchmarks.paper.runs import Run
from benchmarks.paper.runs import Runner
from examples.run_folder import read_json
from examples.run_folder import write_json
from examples.run_folder import write_text
from keras_esam import analysis

RADIUS = 1.0


def figure1(runner: Runner, tasks: list[str], out: pathlib.Path):
    """Training speed against accuracy, of the runs of Table 1."""
    summary = tables.summarise(runner, tasks, tables.METHODS)
    titles = [_title(runner, task, "\n") for task in tasks]
    panels = dict(zip(titles, summary.values(), strict=True))
    pictures.speed_against_accuracy(panels, out.with_suffix(".png"))
    return summary


def figure3(runner: Runner, tasks: list[str], out: pathlib.Path):
    """Accuracy and speed by beta and by gamma, and accuracy by both.

    The pairs have only the first seed and no speeds. Speeds would need all
    their steps compiled once more.
    """
    (task,), grid = tasks, runner.scale.grid
    alone, pairs = {"SAM": ("sam", ())}, {}
    for value in grid:
        beta, gamma = ("beta", value), ("gamma", value)
        alone[pictures.label_of(value, 1.0)] = ("esam-swp", (beta,))
        alone[pictures.label_of(1.0, value)] = ("esam-sds", (gamma,))
        for other in grid:
            label = pictures.label_of(value, other)
            pairs[label] = ("esam", (beta, ("gamma", other)))
    pairs = tables.runs_of(task, pairs, runner.scale.seeds[:1])
    runner.results([run for own in pairs.values() for run in own])
    summary = tables.summarise(runner, tasks, alone)[task]
    for label, own in pairs.items():
        summary[label] = tables.accuracies(runner, own)
    title = _title(runner, task)
    pictures.grid(summary, grid, title, out.with_suffix(".png"))
    return summary


def figure4(runner: Runner, tasks: list[str], out: pathlib.Path):
    """Loss landscapes of SGD, SAM, ESAM and SAM on a quarter of the batch."""
    (task,) = tasks
    methods = {key: tables.METHODS[key] for key in ("SGD", *PROBED)}
    runs = tables.runs_of(task, methods, runner.scale.seeds[:1])
    runner.results([run for (run,) in runs.values()])
    values = {label: landscape(runner, run) for label, (run,) in runs.items()}
    title = (
        "Loss around the trained weights, mean of "
        f"{runner.scale.num_draws} draws of $d_1$ and $d_2$:\n"
        + _title(runner, task)
    )
    landscapes = {
        label: analysis.Landscape(
            np.array(own["coordinates"]),
            np.array([own["mean_losses"]], float),
            True,
        )
        for label, own in values.items()
    }
    analysis.plot_landscape(landscapes, out.with_suffix(".png"), title)
    pictures.shrink(out.with_suffix(".png"))
    return values


def landscape(runner: Runner, run: Run) -> dict:
    """Loss landscape of a finished run on the probe batch, kept in its folder.

    `coordinates` are in filter norms, along both directions. `mean_losses` are
    the means over the draws at these points.
    """
    settings = {"radius": RADIUS, "num_points": runner.scale.num_points}
    settings["num_draws"] = runner.scale.num_draws
    path = runner.folder_of(run) / "landscape.json"
    kept = read_json(path)
    if kept.get("settings") == settings:
        return kept
    print(f"landscape of {runner.name(run)}")
    network = runner.trained_network(run)
    network.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    probe = runner.images.probe(runner.recipe(run))
    found = analysis.loss_landscape(network, probe, **settings, verbose=1)
    kept = {
        "settings": settings,
        "coordinates": found.coordinates.tolist(),
        "mean_losses": found.mean_losses.round(4).tolist(),
    }
    write_json(kept, path)
    return read_json(path)


def figure5(runner: Runner, tasks: list[str], out: pathlib.Path):
    """Losses on B+ and B-, clean and perturbed, per epoch."""
    (task,) = tasks
    losses = _probed(runner, "loss")
    pictures.curves(
        losses,
        {
            "loss_plus": ("B+", "C3", "-"),
            "perturbed_loss_plus": ("B+, perturbed", "C3", "--"),
            "loss_minus": ("B-", "C0", "-"),
            "perturbed_loss_minus": ("B-, perturbed", "C0", "--"),
        },
        "loss on the probe batch",
        _title(runner, task),
        out.with_suffix(".png"),
    )
    shares = verdict(losses)
    text = markdown(shares, runner.scale.name)
    write_text(text, out.with_suffix(".md"))
    print(text)
    return {"losses": losses, "verdict": shares.to_dict("index")}


def figure6(runner: Runner, tasks: list[str], out: pathlib.Path):
    """Cosine similarity of the gradients of B+ and B- with B's."""
    (task,) = tasks
    values = _probed(runner, "cosine_")
    pictures.curves(
        values,
        {"plus": ("B+", "C3", "-"), "minus": ("B-", "C0", "-")},
        "cosine similarity with the gradient of B",
        _title(runner, task),
        out.with_suffix(".png"),
    )
    return values


def verdict(losses: dict):
    """Share of the epochs in which the paper's equations 8 to 10 hold.

    With the loss `L`, the perturbed loss `P`, the rise `R = P - L`, and a
    fraction `gamma` of the samples in B+,

        P(B) = P(B+) - (1 - gamma) * (R(B+) - R(B-) + L(B+) - L(B-)).

    So `P(B) <= P(B+)` (equation 8) follows from `R(B+) >= R(B-)` (9), which
    holds by construction, and `L(B+) >= L(B-)` (10).

    `losses` are lists by label and name. The `DataFrame` has a row for each
    label, with shares from 0 to 1 of the epochs whose losses are finite.
    """
    shares = {}
    for label, own in losses.items():
        rows = report.frame(own).astype(float)
        rows = rows[np.isfinite(rows).all(axis=1)]
        plus, minus = rows["loss_plus"], rows["loss_minus"]
        perturbed_plus = rows["perturbed_loss_plus"]
        perturbed_minus = rows["perturbed_loss_minus"]
        is_bound = perturbed_plus >= rows["perturbed_loss"]
        rises_more = perturbed_plus - plus >= perturbed_minus - minus
        holds = {
            "8: perturbed loss on B+ >= on B": is_bound,
            "9: rise on B+ >= on B-": rises_more,
            "10: loss on B+ >= on B-": plus >= minus,
        }
        shares[label] = report.frame(holds).mean()
    return report.frame(shares).T


def markdown(shares, scale: str) -> str:
    """Markdown table of a `verdict`."""
    return report.markdown(
        shares.map("{:.0%}".format).rename_axis(f"epochs, {scale} scale")
    )


def _title(runner, task, separator=", "):
    name = f"{task}, {runner.scale.name} scale"
    return separator.join([name, *runner.describe(task)])


def _probed(runner, kind):
    """Values of `SharpnessLogger`, by label, for the names with `kind`."""
    seed = runner.scale.seeds[0]
    results = runner.results([Run(recipe, seed) for recipe in PROBED.values()])
    values = {}
    prefix = "probe_cosine_" if kind == "cosine_" else "probe_"
    for label, result in zip(PROBED, results, strict=True):
        rows = report.frame(result["history"])
        rows = rows.filter(like="probe_").filter(like=kind)
        rows.columns = rows.columns.str.removeprefix(prefix)
        values[label] = rows.to_dict("list")
    return values
