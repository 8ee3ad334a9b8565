"""The folder with the runs of `benchmarks.table1`: its settings and summary."""

import json
import math

import numpy as np

from benchmarks import measurement
from benchmarks.engines import BACKEND
from benchmarks.methods import METHODS
from benchmarks.methods import file_name
from examples.run_folder import check_settings
from keras_esam import recipes
from keras_esam.callbacks import AtomicBackup

# Of `benchmarks.paper.tables`, which needs TensorFlow.
PAPER = {
    "SGD": 95.41,
    "SAM": 96.52,
    "ESAM variable": 96.56,
    "SWP variable": 96.74,
    "SDS": 96.45,
}
TITLE = (
    "ResNet-18, width {width}, depth {depth}, {num_train} images, {epochs} "
    "epochs, {precision} with float32 logits, {backend}, {devices}"
)
# What may differ between two calls that train the same runs.
FREE = (
    *("export", "data_dir", "methods", "seeds", "minutes", "out"),
    *("together", "turns", "parent"),
)


def recipe_of(method):
    """The recipe with a method's optimizer, batch size, epochs and `rho`."""
    is_sgd = METHODS[method].get("rho") == 0
    return recipes.get(f"cifar10/resnet18/{'sgd' if is_sgd else 'esam'}")


def recipe_settings():
    """Dict of the values of the recipe for SGD and of that for the others."""
    used = [recipe_of("SGD"), recipe_of("SAM")]
    names = "name", "batch_size", "learning_rate", "weight_decay", "momentum"
    settings = {key: [getattr(r, key) for r in used] for key in names}
    settings["recipes"] = settings.pop("name")
    return settings | {"rho": [recipe.esam["rho"] for recipe in used]}


def run_folder(folder, method, seed):
    return folder / f"{file_name(method)}-{seed}"


def remember_settings(arguments):
    """Writes the settings to the folder of the runs, and on which machines.

    Returns:
        Dict of both.

    Raises:
        ValueError: If its runs have other settings.
    """
    settings = {k: v for k, v in vars(arguments).items() if k not in FREE}
    settings |= {"data": arguments.data.name, "backend": BACKEND}
    settings |= recipe_settings()
    path = arguments.out / "settings.json"
    known = {"settings": settings, "machines": []}
    if path.exists():
        known = json.loads(path.read_text())
    check_settings(settings, known["settings"], arguments.out)
    machine = measurement.describe_machine()
    if machine not in known["machines"]:
        known["machines"].append(machine)
    arguments.out.mkdir(parents=True, exist_ok=True)
    measurement.write_json(known, path)
    return known


def write_summary(folder, known):
    """Writes the table of the runs in a folder to a file, and returns it."""
    table = summary(folder, known)
    measurement.write_text(table, folder / "summary.md")
    return table


def summary(folder, known):
    """Markdown table of the runs in a folder.

    Args:
        folder: Path.
        known: Dict from `remember_settings`.
    """
    settings = known["settings"]
    devices = [", ".join(m["devices"]) for m in known["machines"]]
    lines = [
        TITLE.format(**settings, devices="; ".join(dict.fromkeys(devices))),
        "",
        "| | test accuracy, % | paper | training accuracy, % | images/s "
        "| epochs by seed |",
        "|---" * 6 + "|",
    ]
    for method in METHODS:
        folders = sorted(folder.glob(f"{file_name(method)}-[0-9]*"))
        runs = [AtomicBackup(folder).history for folder in folders]
        runs = [run for run in runs if run]
        if not runs:
            continue
        finished = [run for run in runs if len(run) == settings["epochs"]]
        cells = [method, "", str(PAPER.get(method, "")), "", ""]
        if finished:
            cells[1] = mean_and_error([r[-1]["val_accuracy"] for r in finished])
            cells[3] = mean_and_error([r[-1]["accuracy"] for r in finished])
        speeds = [e["images_per_second"] for run in runs for e in run]
        speeds = [speed for speed in speeds if not math.isnan(speed)]
        if speeds:
            cells[4] = f"{np.median(speeds):.0f}"
        cells.append(", ".join(str(len(run)) for run in runs))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def mean_and_error(values):
    """Mean and standard error in per cent."""
    values = 100 * np.array(values)
    if len(values) == 1:
        return f"{values[0]:.2f}"
    error = values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.2f} +- {error:.2f}"
