"""Tables 1 to 3 of the paper."""

import itertools
import pathlib
import statistics

from keras_esam.experiments import speeds
from keras_esam.experiments.runs import Run
from keras_esam.experiments.runs import Runner
from keras_esam.experiments.runs import write_json
from keras_esam.experiments.scales import Scale

METHODS = {
    "SGD": ("sgd", ()),
    "SAM": ("sam", ()),
    "ESAM": ("esam", ()),
    'ESAM, "depth"': ("esam", (("granularity", "depth"),)),
}
ABLATION = {
    **METHODS,
    "SWP alone": ("esam-swp", ()),
    "SDS alone": ("esam-sds", ()),
    "SDS alone, random": ("esam-sds", (("rank_by", "random"),)),
}
NETWORKS = ("resnet18", "wrn-28-10", "pyramidnet-110")
IMAGENET_NETWORKS = ("resnet50", "resnet101")

# What the paper prints: test accuracy in per cent, speed relative to SAM.
PRINTED = {
    "cifar10/resnet18": {
        "SGD": (95.41, None),
        "SAM": (96.52, 1.0),
        "ESAM": (96.56, 1.403),
        "SWP alone": (96.74, 1.105),
        "SDS alone": (96.45, 1.226),
    },
    "cifar10/wrn-28-10": {
        "SGD": (96.34, None),
        "SAM": (97.27, 1.0),
        "ESAM": (97.29, 1.389),
    },
    "cifar10/pyramidnet-110": {
        "SGD": (96.62, None),
        "SAM": (97.30, 1.0),
        "ESAM": (97.81, 1.387),
    },
    "cifar100/resnet18": {
        "SGD": (78.17, None),
        "SAM": (80.17, 1.0),
        "ESAM": (80.41, 1.400),
    },
    "cifar100/wrn-28-10": {
        "SGD": (81.56, None),
        "SAM": (83.42, 1.0),
        "ESAM": (84.51, 1.394),
    },
    "cifar100/pyramidnet-110": {
        "SGD": (81.89, None),
        "SAM": (84.46, 1.0),
        "ESAM": (85.56, 1.379),
    },
    "imagenet/resnet50": {
        "SGD": (76.00, None),
        "SAM": (76.70, 1.0),
        "ESAM": (77.05, 1.293),
    },
    "imagenet/resnet101": {
        "SGD": (77.80, None),
        "SAM": (78.60, 1.0),
        "ESAM": (79.09, 1.287),
    },
}


def tasks_of(name: str, scale: Scale) -> list[str]:
    """The data sets and networks of a table or figure, `DATASET/NETWORK`."""
    if name in ("table1", "figure1"):
        return [f"{d}/{n}" for d in scale.datasets for n in NETWORKS]
    if name == "table2":
        return [f"imagenet/{n}" for n in IMAGENET_NETWORKS]
    return ["cifar10/resnet18"]


def table1(runner: Runner, tasks: list[str], out: pathlib.Path):
    """CIFAR-10 and CIFAR-100 on three networks."""
    _write(runner, tasks, METHODS, out)


def table2(runner: Runner, tasks: list[str], out: pathlib.Path):
    """ImageNet on two networks."""
    _write(runner, tasks, METHODS, out)


def table3(runner: Runner, tasks: list[str], out: pathlib.Path):
    """SWP and SDS by themselves, on ResNet-18 and CIFAR-10."""
    _write(runner, tasks, ABLATION, out)


def runs_of(task: str, methods: dict, seeds) -> dict[str, list[Run]]:
    """The runs of each method on a data set and network.

    Args:
        task: String, `DATASET/NETWORK`.
        methods: Dict of label to the recipe's method, and changes of its
            arguments of `ESAMModel`.
        seeds: Iterable of integers.

    Returns:
        Dict of label to a list of runs.
    """
    return {
        label: [Run(label, f"{task}/{method}", s, esam) for s in seeds]
        for label, (method, esam) in methods.items()
    }


def runs_of_all(runner: Runner, tasks: list[str], methods: dict) -> dict:
    """Dict of task to the runs of each method, of all seeds of the scale."""
    return {task: runs_of(task, methods, runner.scale.seeds) for task in tasks}


def summarise(runner: Runner, runs: dict[str, dict[str, list[Run]]]) -> dict:
    """Trains what is missing.

    Args:
        runner: `Runner`.
        runs: Dict of task to a dict of label to a list of runs, with a label
            `"SAM"`.

    Returns:
        Dict of task to a dict of label to a dict: the lists of `accuracies`,
        one entry a seed, the list `images_per_second`, one entry a round, and
        the median of their ratios, `speed_relative_to_sam`.
    """
    # Seeds outside: all methods of a seed run under like conditions.
    wanted = [
        run
        for same_seed in itertools.zip_longest(
            *(own for by_label in runs.values() for own in by_label.values())
        )
        for run in same_seed
        if run is not None
    ]
    runner.results(wanted)
    summary = {}
    for task, by_label in runs.items():
        summary[task] = {}
        for label, own in by_label.items():
            summary[task][label] = accuracies(runner, own)
        firsts = {label: own[0] for label, own in by_label.items()}
        rates = speeds.images_per_second(runner, list(firsts.values()))
        for label, row in summary[task].items():
            pairs = zip(rates[firsts[label]], rates[firsts["SAM"]], strict=True)
            row["images_per_second"] = rates[firsts[label]]
            row["speed_relative_to_sam"] = statistics.median(
                own / sam for own, sam in pairs
            )
    return summary


def accuracies(runner: Runner, runs: list[Run]) -> dict:
    """Lists `seeds`, `test_accuracy` and `train_accuracy`, per cent."""
    rows = runner.results(runs)
    return {
        "seeds": [run.seed for run in runs],
        "test_accuracy": [row["test_accuracy"] for row in rows],
        "train_accuracy": [row["train_accuracy"] for row in rows],
    }


def _write(runner, tasks, methods, out):
    summary = summarise(runner, runs_of_all(runner, tasks, methods))
    write_json(summary, out.with_suffix(".json"))
    text = markdown(summary, runner.scale.name) + "\n"
    seeds = ", ".join(map(str, runner.scale.seeds))
    for task in summary:
        described = ", ".join(runner.describe(task))
        text += f"- {task}: {described}; seeds {seeds}\n"
    out.with_suffix(".md").write_text(text)
    print(text)


def markdown(summary: dict, scale: str) -> str:
    """Markdown table of a summary, beside the paper's figures."""
    lines = [
        f"| {scale} scale | method | test accuracy, % | paper "
        "| training accuracy, % | images/s | speed / SAM | paper |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for task, rows in summary.items():
        printed = PRINTED.get(task, {})
        for label, row in rows.items():
            accuracy, speed = printed.get(label, (None, None))
            cells = [
                task,
                label,
                mean_and_deviation(row["test_accuracy"]),
                "" if accuracy is None else f"{accuracy:.2f}",
                f"{statistics.mean(row['train_accuracy']):.1f}",
                f"{statistics.median(row['images_per_second']):.0f}",
                f"{row['speed_relative_to_sam']:.2f}",
                "" if speed is None else f"{speed:.2f}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def mean_and_deviation(values: list[float]) -> str:
    """Mean, and standard deviation over the seeds if there are several."""
    mean = statistics.mean(values)
    if len(values) == 1:
        return f"{mean:.2f}"
    return f"{mean:.2f} +- {statistics.stdev(values):.2f}"
