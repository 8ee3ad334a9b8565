"""How accurate each training method is, at equal epochs and at equal time.

Command:   python -m benchmarks.accuracy digits --seeds 20
           python -m benchmarks.accuracy cifar10 --seeds 3 --data-dir DIR
Result:    a file for each run in runs/accuracy/TASK, and a table of all runs
           that are finished, as text and as summary.json
Time:      on one core about 10 s a run (digits) and 30 s (CIFAR-10)

Budgets: `short` and `long` epochs (in the long one the base optimizer fits the
training set), and with `_time` as many epochs as a method can do in the CPU
time that SAM takes for these, measured beforehand (`speeds.json`). Each budget
is a whole training with cosine decay. For a seed, all methods start from the
same weights and see the data in the same order. Among the default methods are
the random ranking and the base optimizer with half the batch: SDS also changes
the noise of the gradient. The tasks' `rho` is the one of several at which SAM
was best after the long budget, on seeds from 100 on.

A finished run is not repeated: start the command again to go on. Several
processes may share the work, each with its own seeds; for budgets of equal time
start the others when `speeds.json` is there.
"""

import argparse
import dataclasses
import json
import pathlib
import time

import keras
import tensorflow as tf

from benchmarks.accuracy_speeds import SPEEDS
from benchmarks.accuracy_speeds import load_or_measure
from benchmarks.accuracy_speeds import medians
from benchmarks.accuracy_summary import markdown
from benchmarks.accuracy_summary import summarise
from benchmarks.accuracy_tasks import TASKS
from benchmarks.accuracy_training import HALF_BATCH
from benchmarks.accuracy_training import STAGES
from benchmarks.accuracy_training import make_model
from benchmarks.accuracy_training import start
from benchmarks.accuracy_training import train
from benchmarks.measurement import describe_machine
from benchmarks.measurement import write_json
from benchmarks.methods import METHODS

ALL = ["SGD", HALF_BATCH, *list(METHODS)[1:], STAGES]
DEFAULT = [
    *("SGD", HALF_BATCH, "SAM", "SWP variable", "SWP depth"),
    *("ESAM variable", "ESAM depth", "ESAM depth by loss"),
    *("ESAM depth random", STAGES, "SWP depth, beta 0.3", "one-step"),
]
BUDGETS = ("short", "long", "short_time", "long_time")


def result_path(folder, settings):
    name = "{method}-{budget}-{seed}.json".format(**settings)
    return folder / name.replace(" ", "_").replace(",", "")


def is_finished(path, settings):
    """Whether the result of a run is there.

    Raises:
        ValueError: If there is one of other settings in its place.
    """
    if not path.exists():
        return False
    result = json.loads(path.read_text())
    other = {k: result[k] for k in settings if result[k] != settings[k]}
    if other:
        raise ValueError(
            f"`{path}` is of a run with other settings, {other}. Choose "
            f"another folder with --out. Received: {settings}"
        )
    return True


def copy_equal_run(settings, folder):
    """Copies the run of equal epochs where equal time is the same, as for SAM.

    Returns:
        Boolean, whether there was one.
    """
    path = result_path(folder, settings)
    equal = {**settings, "budget": settings["budget"].removesuffix("_time")}
    other = result_path(folder, equal)
    if other == path or not other.exists():
        return False
    result = json.loads(other.read_text())
    if any(result[key] != value for key, value in equal.items()):
        return False
    write_json({**result, "budget": settings["budget"]}, path)
    return True


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--methods", nargs="+", choices=ALL, default=DEFAULT)
    parser.add_argument("--budgets", nargs="+", choices=BUDGETS)
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--num-train", type=int, help="training samples")
    parser.add_argument("--short", type=int, help="epochs of the budget")
    parser.add_argument("--long", type=int, help="epochs of the budget")
    parser.add_argument("--rho", type=float, help="of all methods")
    parser.add_argument("--data-dir", help="of tensorflow-datasets")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--summary", action="store_true", help="only the table")
    parser.add_argument("--out", type=pathlib.Path, help="folder of the runs")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    tf.config.threading.set_inter_op_parallelism_threads(arguments.threads)
    given = {
        name: getattr(arguments, name)
        for name in ("num_train", "rho", "short", "long")
        if getattr(arguments, name) is not None
    }
    task = dataclasses.replace(TASKS[arguments.task], **given)
    folder = arguments.out or pathlib.Path("runs/accuracy", arguments.task)
    if arguments.summary:
        if not any(folder.glob("*-*-*.json")):
            raise ValueError(f"There must be runs. Received: --out {folder}")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        run_all(task, arguments, folder)
    print(write_summary(folder))
    print(f"Written to {folder}")


def write_summary(folder):
    """Writes and returns the table of all runs that are finished."""
    files = sorted(folder.glob("*-*-*.json"))
    runs = [json.loads(file.read_text()) for file in files]
    for run in runs:
        del run["accuracy_by_epoch"]
    seconds, path = {}, folder / SPEEDS
    if path.exists():
        seconds = medians(json.loads(path.read_text()))
    rows = summarise(runs, BUDGETS, ALL)
    summary = {
        "machine": describe_machine(),
        "cpu_seconds_per_epoch": seconds,
        "rows": rows,
        "runs": runs,
    }
    write_json(summary, folder / "summary.json")
    table = markdown(rows, seconds)
    (folder / "summary.md").write_text(table)
    return table


def run_all(task, arguments, folder):
    data = task.load(task.num_train, arguments.data_dir)
    budgets = arguments.budgets or BUDGETS
    if any(budget.endswith("_time") for budget in budgets):
        methods = [m for m in ALL if m == "SAM" or m in arguments.methods]
        seconds = load_or_measure(task, data, methods, folder)
    for budget in budgets:
        for method in arguments.methods:
            epochs = getattr(task, budget.removesuffix("_time"))
            if budget.endswith("_time"):
                epochs = round(epochs * seconds["SAM"] / seconds[method])
            settings = {
                "task": arguments.task,
                "method": method,
                "budget": budget,
                "epochs": epochs,
                "num_train": task.num_train,
                "rho": task.rho,
            }
            first = arguments.first_seed
            seeds = range(first, first + arguments.seeds)
            run_seeds(task, data, settings, seeds, folder)


def run_seeds(task, data, settings, seeds, folder):
    """Trains with every seed whose result is not there yet."""
    model = None
    for seed in seeds:
        settings = {**settings, "seed": seed}
        path = result_path(folder, settings)
        if is_finished(path, settings) or copy_equal_run(settings, folder):
            continue
        begin = time.perf_counter()
        if model is None:
            keras.backend.clear_session()
            model = make_model(task, settings)
        start(model, task, settings)
        result = train(model, task, data, settings)
        write_json(result, path)
        print(
            f"{path.stem}: train {result['train_accuracy']:.2f}%, "
            f"test {result['test_accuracy']:.2f}%, "
            f"{time.perf_counter() - begin:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
