"""How accurate each training method is, at equal epochs and at equal time.

Command:   python -m benchmarks.accuracy digits --search 1 1.5 2
           python -m benchmarks.accuracy digits --seeds 20
           python -m benchmarks.accuracy cifar10 --data-dir DIR
           python -m benchmarks.accuracy digits --report FILE
           python -m benchmarks.accuracy digits --resume FILE
Result:    a file for each run in runs/accuracy/TASK, and of all runs that are
           finished tables, results.json and results.md, and accuracy.png,
           accuracy against training time
Time:      on one core about 4 s a run (digits) and 30 s (CIFAR-10)

Tasks and methods are in `benchmarks.accuracy_tasks`; `cifar10_paper` is for a
GPU. A budget is a number of epochs, or as many epochs as a method can do in the
time that SAM takes for these, measured beforehand (`times.json`; CPU time where
there is no GPU). Each is a whole training with cosine decay. For a seed, all
methods start from the same weights and see the data in the same order. Among
the default methods is the base optimizer with half the batch: SDS also changes
the noise of the gradient.

`--search` trains with several `rho`, multiples of the task's, in the longest
budget and on seeds of its own, from 100 on. The trainings that follow use the
best one of each method.

A finished run is not repeated, and one with augmented images resumes after its
last finished epoch: start the command again. `--resume` goes on from a result
whose folder is lost, such as those in benchmarks/results. Several processes may
share the work, each with its own seeds or methods; for budgets of equal time
start the others when `times.json` is there.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import pathlib
import shutil
import time

import keras
import numpy as np

from benchmarks import accuracy_training
from benchmarks import pictures
from benchmarks import report
from benchmarks.accuracy_tasks import DEFAULT
from benchmarks.accuracy_tasks import METHODS
from benchmarks.accuracy_tasks import TASKS
from benchmarks.accuracy_tasks import cifar10_arrays
from benchmarks.engines import engine
from benchmarks.measurement import PRECISIONS
from examples.run_folder import check_settings
from examples.run_folder import is_unfinished
from examples.run_folder import read_json
from examples.run_folder import write_json

EQUAL = ("epochs", "time")
TIMES = "times.json"
SEARCH = "search"


def load_or_measure_times(task, data, methods, folder):
    """Dict of method to times per epoch, SAM's being 1, measured and kept."""
    path = folder / TIMES
    samples = read_json(path)
    missing = [method for method in methods if method not in samples]
    if missing:
        samples |= accuracy_training.measure_times(task, data, missing)
        write_json(samples, path)
    return samples


def speed(times):
    """In words the speed relative to SAM: median and, of several, quartiles."""
    speeds = 1 / report.frame({"": times})[""]
    if len(speeds) == 1:
        return f"{speeds[0]:.2f}"
    return report.median_and_quartiles(speeds)


def tables(results):
    """Tables of the search and of the budgets, the latter below a sentence on
    the longest one."""
    found = {}
    if results["searched"]:
        searched = report.frame(results["searched"])
        found["Search: test accuracy, % (seeds)"] = searched.pivot_table(
            index="method",
            columns="rho",
            values="test_accuracy",
            aggfunc=lambda v: f"{report.mean_and_error(v)} ({len(v)})",
            sort=False,
        ).sort_index(axis=1)
    if results["runs"]:
        found |= tables_of_budgets(results)
    return found


def tables_of_budgets(results):
    runs = runs_of_budgets(results)
    mean = report.mean_and_error
    rows = runs.groupby(["budget", "method"], sort=False).agg(
        **{
            "rho": ("rho", lambda values: f"{values.max():.2g}"),
            "epochs": ("epochs", "max"),
            "test accuracy, %": ("test_accuracy", mean),
            "minus SAM's, points": (
                "difference",
                functools.partial(mean, sign="+"),
            ),
            "training accuracy, %": ("train_accuracy", mean),
            "seeds": ("seed", "count"),
        }
    )
    speeds = {method: speed(own) for method, own in results["times"].items()}
    speeds = rows.index.get_level_values("method").map(speeds)
    rows.insert(5, "speed / SAM", speeds)
    sgd = runs[(runs["budget"] == longest(results)) & (runs["method"] == "SGD")]
    if sgd.empty:
        return {"": rows}
    fitted = sgd["train_accuracy"].mean()
    does = "fits" if fitted >= 99 else "DOES NOT FIT"
    return {
        f"In {longest(results)} the base optimizer {does} the training set: "
        f"{fitted:.2f}%.": rows
    }


def runs_of_budgets(results):
    """`DataFrame` with a row for each run in each of its budgets. The column
    `difference` is that of the test accuracy to SAM's with the same seed."""
    runs = report.frame(results["runs"])
    budgets = report.frame(
        [
            {"budget": budget, "method": method, "epochs": epochs}
            for budget, of_methods in results["epochs"].items()
            for method, epochs in of_methods.items()
        ]
    )
    runs = budgets.merge(runs, on=["method", "epochs"])
    sam = runs[runs["method"] == "SAM"].set_index(["budget", "seed"])
    sam = sam["test_accuracy"].rename("sam")
    runs = runs.join(sam, on=["budget", "seed"], validate="many_to_one")
    runs["difference"] = runs["test_accuracy"] - runs["sam"]
    return runs


def longest(results):
    """Name of the longest budget, the last one of equal epochs."""
    return [name for name in results["epochs"] if name.endswith("epochs")][-1]


def finished_runs(folder):
    """The finished runs in a folder, to which other processes may write."""
    files = sorted(folder.glob("*-*-*.json"))
    return [read_json(f) for f in files if not is_unfinished(f)]


def write_results(task, folder):
    """Writes and prints the tables of the runs that are finished."""
    times = read_json(folder / TIMES)
    values = {
        "times": times,
        "epochs": {
            f"time of {epochs}" if equal == "time" else f"{epochs} epochs": {
                method: own
                for method in METHODS
                if (own := epochs_of(epochs, equal, method, times))
            }
            for equal, epochs in itertools.product(EQUAL, task.budgets)
        },
        "searched": finished_runs(folder / SEARCH),
        "runs": finished_runs(folder),
    }
    report.write(folder, values, tables)
    if values["runs"] and times:
        title = f"{task.title}, {task.num_train:,} images"
        pictures.accuracy_against_time(
            values, max(task.budgets), title, folder / "accuracy.png"
        )


def epochs_of(epochs, equal, method, times):
    """Number of epochs of a method in a budget, `None` if the time that it
    takes is needed and not known."""
    if equal == "epochs":
        return epochs
    if method not in times:
        return None
    return round(epochs / np.median(times[method]))


def best_rho(task, method, folder):
    """The `rho` that was best in the search, or else the task's."""
    if METHODS[method].get("rho") == 0:
        return 0.0
    method = METHODS[method].get("rho_of", method)
    runs = finished_runs(folder / SEARCH)
    runs = [run for run in runs if run["method"] == method]
    if not runs:
        return task.rho
    means = report.frame(runs).groupby("rho")["test_accuracy"].mean()
    return float(means.idxmax())


def search(task, arguments, data, folder):
    """Trains with every method and each of several `rho`."""
    folder = folder / SEARCH
    folder.mkdir(exist_ok=True)
    for factor, method in itertools.product(
        arguments.search, arguments.methods
    ):
        if "rho_of" in METHODS[method] or METHODS[method].get("rho") == 0:
            continue
        rho = float(f"{factor * task.rho:.3g}")
        epochs = max(task.budgets)
        settings = make_settings(task, arguments, method, epochs, rho)
        run_seeds(task, data, settings, arguments, f"-rho{rho}", folder)


def run_all(task, arguments, data, folder):
    times = {}
    if "time" in arguments.equal:
        times = load_or_measure_times(task, data, arguments.methods, folder)
    for equal, budget, method in itertools.product(
        arguments.equal, task.budgets, arguments.methods
    ):
        epochs = epochs_of(budget, equal, method, times)
        rho = best_rho(task, method, folder)
        settings = make_settings(task, arguments, method, epochs, rho)
        run_seeds(task, data, settings, arguments, f"-{epochs}", folder)


def make_settings(task, arguments, method, epochs, rho):
    return {
        "task": arguments.task,
        "method": method,
        "epochs": epochs,
        "num_train": task.num_train,
        "rho": rho,
        "precision": arguments.precision,
    }


def run_seeds(task, data, settings, arguments, name, folder):
    """Trains with every seed whose result is not there yet."""
    first = arguments.first_seed
    runs = []
    for seed in range(first, first + arguments.seeds):
        own = {**settings, "seed": seed}
        path = path_of(own, name, folder)
        before = read_json(path)
        if before:
            before = {key: before.get(key) for key in own}
            check_settings(own, before, path)
        else:
            runs.append((own, path))
    commit = report.commit()
    # First of all: after a seed is set, TensorFlow optimizes its graphs again.
    states = [accuracy_training.initial_state(task, own) for own, _ in runs]
    if runs:
        keras.backend.clear_session()
        model = accuracy_training.make_model(task, settings)
    for (own, path), state in zip(runs, states, strict=True):
        begin = time.perf_counter()
        backup = folder / "unfinished" / path.stem
        accuracy_training.start(model, state)
        result = accuracy_training.train(model, task, data, own, backup)
        write_json({**result, "commit": commit}, path)
        shutil.rmtree(backup, ignore_errors=True)
        print(
            f"{path.stem}: train {result['train_accuracy']:.2f}%, "
            f"test {result['test_accuracy']:.2f}%, "
            f"{time.perf_counter() - begin:.0f} s",
            flush=True,
        )


def path_of(run, name, folder):
    """Path of the file of a run, whose budget or `rho` is in the name."""
    stem = run["method"].replace(" ", "_").replace(",", "").replace("%", "")
    return folder / f"{stem}{name}-{run['seed']}.json"


def unpack(results, folder):
    """Writes the files of the runs of a `results.json` that are not there."""
    search = folder / SEARCH
    search.mkdir(exist_ok=True)
    files = {
        folder / TIMES: results["times"],
        **{path_of(r, f"-{r['epochs']}", folder): r for r in results["runs"]},
        **{
            path_of(run, f"-rho{run['rho']}", search): run
            for run in results["searched"]
        },
    }
    for path, values in files.items():
        if not path.exists():
            write_json(values, path)


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    option = parser.add_argument
    option("task", choices=TASKS)
    option("--methods", nargs="+", choices=METHODS, default=DEFAULT)
    option("--epochs", type=int, nargs="+", help="budgets, not the task's")
    option("--equal", nargs="+", choices=EQUAL, default=EQUAL)
    option("--search", type=float, nargs="+", help="multiples of `rho`")
    option("--seeds", type=int, default=3, help="how many")
    option("--first-seed", type=int, help="0, or 100 for a search")
    option("--num-train", type=int, help="training samples")
    option("--rho", type=float, help="of the task")
    option("--precision", choices=PRECISIONS, default="float32")
    option("--data-dir", help="of tensorflow-datasets, or an .npz file")
    option("--resume", type=pathlib.Path, help="a `results.json` to go on from")
    option("--export", help="write CIFAR-10 to an .npz file, and end")
    report.add_options(parser, "accuracy")
    return parser.parse_args(arguments)


def main(arguments=None):
    arguments = parse_arguments(arguments)
    if arguments.report:
        return report.show(arguments.report, tables)
    if arguments.export:
        arrays = cifar10_arrays(arguments.data_dir)
        return np.savez_compressed(arguments.export, **arrays)
    engine.set_threads(1)
    keras.config.set_dtype_policy(arguments.precision)
    given = {
        name: getattr(arguments, name)
        for name in ("num_train", "rho")
        if getattr(arguments, name) is not None
    }
    if arguments.epochs:
        given["budgets"] = tuple(sorted(arguments.epochs))
    task = dataclasses.replace(TASKS[arguments.task], **given)
    if arguments.first_seed is None:
        arguments.first_seed = 100 if arguments.search else 0
    folder = arguments.out / arguments.task
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.resume:
        unpack(json.loads(arguments.resume.read_text()), folder)
    data = task.load(task.num_train, arguments.data_dir)
    work = search if arguments.search else run_all
    work(task, arguments, data, folder)
    write_results(task, folder)


if __name__ == "__main__":
    main()
