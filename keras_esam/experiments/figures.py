"""Figures 1 and 3 to 6 of the paper.

Each looks for Matplotlib first, since its trainings may take days.
"""

import math
import pathlib

import numpy as np

from keras_esam import analysis
from keras_esam.experiments import tables
from keras_esam.experiments.landscapes import landscapes_of
from keras_esam.experiments.runs import Run
from keras_esam.experiments.runs import Runner
from keras_esam.experiments.runs import write_json


def figure1(runner: Runner, tasks: list[str], out: pathlib.Path):
    """Training speed against accuracy, of the runs of Table 1."""
    from keras_esam.experiments import pictures

    runs = tables.runs_of_all(runner, tasks, tables.METHODS)
    summary = tables.summarise(runner, runs)
    write_json(summary, out.with_suffix(".json"))
    pictures.speed_against_accuracy(
        {_title(runner, task, "\n"): rows for task, rows in summary.items()},
        out.with_suffix(".png"),
    )


def figure3(runner: Runner, tasks: list[str], out: pathlib.Path):
    """Accuracy and speed by beta and by gamma, and accuracy by both.

    The pairs have the first seed only, and no speeds, for which the steps of
    all of them would be compiled once more.
    """
    from keras_esam.experiments import pictures

    scale = runner.scale
    alone, pairs = {"SAM": ("sam", ())}, {}
    for value in scale.grid:
        beta, gamma = ("beta", value), ("gamma", value)
        alone[pictures.label_of(value, 1.0)] = ("esam-swp", (beta,))
        alone[pictures.label_of(1.0, value)] = ("esam-sds", (gamma,))
        for other in scale.grid:
            label = pictures.label_of(value, other)
            pairs[label] = ("esam", (beta, ("gamma", other)))
    (task,) = tasks
    alone = tables.runs_of(task, alone, scale.seeds)
    pairs = tables.runs_of(task, pairs, scale.seeds[:1])
    # Before the speeds, so that one bar is over all trainings.
    runner.results(
        [run for own in [*alone.values(), *pairs.values()] for run in own]
    )
    summary = tables.summarise(runner, {task: alone})[task]
    for label, own in pairs.items():
        summary[label] = tables.accuracies(runner, own)
    write_json(summary, out.with_suffix(".json"))
    pictures.grid(
        summary, scale.grid, _title(runner, task), out.with_suffix(".png")
    )


def figure4(runner: Runner, tasks: list[str], out: pathlib.Path):
    """Loss landscapes of SGD, SAM and ESAM."""
    from keras_esam.experiments import pictures

    (task,) = tasks
    methods = {key: tables.METHODS[key] for key in ("SGD", "SAM", "ESAM")}
    by_label = tables.runs_of(task, methods, runner.scale.seeds[:1])
    runs = [own[0] for own in by_label.values()]
    runner.results(runs)
    values = landscapes_of(runner, runs)
    write_json(values, out.with_suffix(".json"))
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
    path = out.with_suffix(".png")
    analysis.plot_landscape(landscapes, path, title)
    pictures.shrink(path)


def figure5(runner: Runner, tasks: list[str], out: pathlib.Path):
    """Losses on B+ and B-, clean and perturbed, per epoch."""
    from keras_esam.experiments import pictures

    (task,) = tasks
    histories = _probed(runner, task)
    values = {label: losses(rows) for label, rows in histories.items()}
    shares = verdict(values)
    write_json({"losses": values, "verdict": shares}, out.with_suffix(".json"))
    pictures.losses_of_halves(
        values, _title(runner, task), out.with_suffix(".png")
    )
    text = markdown(shares, runner.scale.name)
    out.with_suffix(".md").write_text(text)
    print(text)


def figure6(runner: Runner, tasks: list[str], out: pathlib.Path):
    """Cosine similarity of the gradients of B+ and B- with that of B."""
    from keras_esam.experiments import pictures

    (task,) = tasks
    values = {
        label: {
            part: [row[f"probe_cosine_{part}"] for row in rows]
            for part in ("plus", "minus")
        }
        for label, rows in _probed(runner, task).items()
    }
    write_json(values, out.with_suffix(".json"))
    pictures.cosines(values, _title(runner, task), out.with_suffix(".png"))


def losses(rows: list[dict]) -> dict:
    """The probe's losses by name, lists with an entry for each epoch."""
    prefix = "probe_"
    return {
        key.removeprefix(prefix): [row[key] for row in rows]
        for key in rows[0]
        if key.startswith(prefix) and "loss" in key
    }


def verdict(values: dict) -> dict:
    """In which share of the epochs the paper's inequalities hold.

    They are the ones behind equations 8 to 10: the loss of B+ rises by at least
    as much as that of B-, the perturbed loss of B+ is at least that of B-, and
    the rise on B+ is at least that on B, of which B+ thus is an upper bound.

    The first and the last one hold by construction, as B+ are the samples whose
    loss rises the most. Only the second one can fail.

    Args:
        values: Dict of label to the lists of `losses`.

    Returns:
        Dict of label to a dict of inequality to a share from 0 to 1, of the
        epochs whose losses are finite.
    """
    shares = {}
    for label, own in values.items():
        a = {key: np.array(value, float) for key, value in own.items()}
        rise = {
            part: a[f"perturbed_loss{part}"] - a[f"loss{part}"]
            for part in ("", "_plus", "_minus")
        }
        finite = np.isfinite(np.array(list(a.values()))).all(0)
        holds = {
            "rise on B+ >= on B-, by construction": (
                rise["_plus"] >= rise["_minus"]
            ),
            "perturbed loss on B+ >= on B-": (
                a["perturbed_loss_plus"] >= a["perturbed_loss_minus"]
            ),
            "rise on B+ >= on B, by construction": rise["_plus"] >= rise[""],
        }
        shares[label] = {
            key: float(h[finite].mean()) if finite.any() else math.nan
            for key, h in holds.items()
        }
    return shares


def markdown(shares: dict, scale: str) -> str:
    """Markdown table of a `verdict`."""
    names = list(next(iter(shares.values())))
    lines = [
        "| " + " | ".join([f"epochs, {scale} scale", *names]) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    for label, own in shares.items():
        cells = [label, *(f"{share:.0%}" for share in own.values())]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _title(runner, task, separator=", "):
    name = f"{task}, {runner.scale.name} scale"
    return separator.join([name, *runner.describe(task)])


def _probed(runner, task):
    """Histories, with the quantities of `SharpnessLogger`, by label."""
    seed = runner.scale.seeds[0]
    runs = {
        label: Run(label, f"{task}/{method}", seed, probed=True)
        for label, method in (("SAM", "sam"), ("ESAM", "esam"))
    }
    results = runner.results(list(runs.values()))
    return {
        label: result["history"]
        for label, result in zip(runs, results, strict=True)
    }
