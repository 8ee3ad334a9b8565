"""Tables 1 to 3 of the paper."""

import pathlib

import keras

from benchmarks import report
from benchmarks.measurement import in_turn
from benchmarks.paper.runs import Run
from benchmarks.paper.runs import Runner
from examples.run_folder import read_json
from examples.run_folder import write_json
from examples.run_folder import write_text
from keras_esam.callbacks import ThroughputLogger
from keras_esam.extras import requires

with requires("benchmarks"):
    import pandas as pd

ROUNDS = 5
# In a round, after as many that warm up. Each of three or five subsets is used
# equally often.
NUM_STEPS = 15
# The recipe's method, and changes of its arguments of `ESAMModel`.
METHODS = {
    "SGD": ("sgd", ()),
    "SAM": ("sam", ()),
    "ESAM": ("esam", ()),
    'ESAM, "depth"': ("esam", (("granularity", "depth"),)),
    "SAM, quarter": ("sam-quarter", ()),
}
ABLATION = {
    **METHODS,
    "SWP alone": ("esam-swp", ()),
    "SDS alone": ("esam-sds", ()),
    "SDS alone, random": ("esam-sds", (("rank_by", "random"),)),
}
# Printed in the paper: test accuracy of SGD, SAM and ESAM in per cent, and
# ESAM's speed relative to SAM.
_PRINTED = {
    "cifar10/resnet18": (95.41, 96.52, 96.56, 1.403),
    "cifar10/wrn-28-10": (96.34, 97.27, 97.29, 1.389),
    "cifar10/pyramidnet-110": (96.62, 97.30, 97.81, 1.387),
    "cifar100/resnet18": (78.17, 80.17, 80.41, 1.400),
    "cifar100/wrn-28-10": (81.56, 83.42, 84.51, 1.394),
    "cifar100/pyramidnet-110": (81.89, 84.46, 85.56, 1.379),
    "imagenet/resnet50": (76.00, 76.70, 77.05, 1.293),
    "imagenet/resnet101": (77.80, 78.60, 79.09, 1.287),
}
PRINTED = {
    task: {"SGD": (sgd, None), "SAM": (sam, 1.0), "ESAM": (esam, speed)}
    for task, (sgd, sam, esam, speed) in _PRINTED.items()
}
PRINTED["cifar10/resnet18"] |= {
    "SWP alone": (96.74, 1.105),
    "SDS alone": (96.45, 1.226),
}


def table1(runner: Runner, tasks: list[str], out: pathlib.Path, methods=None):
    """Writes `OUT.md`, the methods beside the paper's numbers.

    Returns:
        Dict of values, see `summarise`.
    """
    summary = summarise(runner, tasks, methods or METHODS)
    text = markdown(summary, runner.scale.name) + "\n"
    seeds = ", ".join(map(str, runner.scale.seeds))
    for task in summary:
        described = ", ".join(runner.describe(task))
        text += f"- {task}: {described}; seeds {seeds}\n"
    write_text(text, out.with_suffix(".md"))
    print(text)
    return summary


table2 = table1  # with other data sets and networks


def table3(runner: Runner, tasks: list[str], out: pathlib.Path):
    """Like `table1`, with SWP and SDS by themselves too."""
    return table1(runner, tasks, out, ABLATION)


def runs_of(task: str, methods: dict, seeds) -> dict[str, list[Run]]:
    """The runs of each method on a data set and network, by label."""
    return {
        label: [Run(f"{task}/{method}", seed, esam) for seed in seeds]
        for label, (method, esam) in methods.items()
    }


def summarise(runner: Runner, tasks: list[str], methods: dict) -> dict:
    """Runs missing trainings with all seeds, and summarises the results.

    Returns:
        Dict of task to a dict of label to a dict: the lists of `accuracies`,
        and `images_per_second`, a list with one entry a round.
    """
    seeds = runner.scale.seeds
    runs = {task: runs_of(task, methods, seeds) for task in tasks}
    # Seeds in the outer loop: a seed's methods run under equal conditions.
    own_lists = [own for by_label in runs.values() for own in by_label.values()]
    runner.results([own[i] for i in range(len(seeds)) for own in own_lists])
    summary = {}
    for task, by_label in runs.items():
        firsts = {label: own[0] for label, own in by_label.items()}
        measured = images_per_second(runner, list(firsts.values()))
        summary[task] = {
            label: {
                **accuracies(runner, own),
                "images_per_second": measured[firsts[label]],
            }
            for label, own in by_label.items()
        }
    return summary


def accuracies(runner: Runner, runs: list[Run]) -> dict:
    """Lists `seeds`, `test_accuracy` and `train_accuracy`, per cent."""
    rows = runner.results(runs)
    return {
        "seeds": [run.seed for run in runs],
        "test_accuracy": [row["test_accuracy"] for row in rows],
        "train_accuracy": [row["train_accuracy"] for row in rows],
    }


def images_per_second(runner: Runner, runs: list[Run]) -> dict[Run, list]:
    """Training speed in each round, of runs on one data set and network.

    It is measured once, on one repeated batch, and kept in the runner's folder.
    """
    dataset, network, _ = runs[0].recipe.split("/")
    path = runner.folder / f"{dataset}-{network}-speeds.json"
    kept = read_json(path) or []
    settings = {runner.name(run): runner.settings(run) for run in runs}
    for measured in kept:
        if settings.items() <= measured["settings"].items():
            return {run: measured["samples"][runner.name(run)] for run in runs}
    samples = _measure(runner, runs)
    named = {runner.name(run): own for run, own in samples.items()}
    write_json([*kept, {"settings": settings, "samples": named}], path)
    return samples


def _measure(runner, runs):
    keras.backend.clear_session()
    models = {}
    for run in runs:
        # Before any of them trains: seeding clears TensorFlow's caches.
        model = runner.make_model(run, 2 * NUM_STEPS * (ROUNDS + 1))
        data = runner.images.training(runner.recipe(run), seed=0)
        models[run] = model, data.take(1).cache().repeat(NUM_STEPS)

    def rate(measured):
        model, data = measured
        logger = ThroughputLogger()
        options = {"shuffle": False, "verbose": 0, "callbacks": [logger]}
        # The first epoch of a `fit` has no rate.
        logs = model.fit(data, epochs=2, **options).history
        return logs["images_per_second"][-1]

    print("speeds, after a first round that compiles", flush=True)
    samples = in_turn(rate, models, ROUNDS + 1)
    return {run: own[1:] for run, own in samples.items()}


def markdown(summary: dict, scale: str) -> str:
    """Markdown table of a summary, beside the paper's numbers.

    Speeds relative to SAM are the ratios of the rounds, median and quartiles.
    """
    columns = [
        *(f"{scale} scale", "method", "test accuracy, %", "paper"),
        *("training accuracy, %", "images/s", "speed / SAM", "paper"),
    ]
    rows = []
    for task, by_label in summary.items():
        sam = series(by_label["SAM"]["images_per_second"])
        for label, row in by_label.items():
            accuracy, speed = PRINTED[task].get(label, (None, None))
            tests = series(row["test_accuracy"])
            train = series(row["train_accuracy"]).mean()
            rates = series(row["images_per_second"])
            relative = report.median_and_quartiles(rates / sam)
            rows.append(
                [task, label, report.mean_and_error(tests, error="std")]
                + [accuracy, f"{train:.1f}", f"{rates.median():.0f}"]
                + [relative, speed]
            )
    return report.markdown(pd.DataFrame(rows, columns=columns))


def series(values: list):
    """A pandas column, with NaN for `None`."""
    return pd.Series(values, dtype=float)
