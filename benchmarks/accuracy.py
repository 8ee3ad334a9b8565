"""How accurate each training method is, at equal epochs and at equal time.

Command:   python -m benchmarks.accuracy digits --seeds 20
           python -m benchmarks.accuracy cifar10 --seeds 3 --data-dir DIR
Result:    a file for each run in runs/accuracy/TASK, and a table of all runs
           that are finished, as text and as summary.json
Time:      on one core about 10 s a run (digits) and 30 s (CIFAR-10)

Three budgets: `short` and `long` epochs (in the long one the base optimizer
fits the training set), and `time`: as many epochs as a method can do in the
time of SAM's long budget, by the CPU time of the long runs of seed 0. Each
budget is a whole training with cosine decay. For a seed, all methods start from
the same weights and see the data in the same order. Always among them are the
random ranking and the base optimizer with half the batch: SDS also changes the
noise of the gradient.

A finished run is not repeated: start the command again to go on. Several
processes may share the work, each with its own seeds.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import time

import keras
import tensorflow as tf

import keras_esam
from benchmarks.accuracy_summary import markdown
from benchmarks.accuracy_summary import summarise
from benchmarks.accuracy_tasks import TASKS
from benchmarks.accuracy_tasks import make_network
from benchmarks.methods import METHODS

HALF_BATCH = "SGD half batch"
STAGES = "ESAM depth, full batches first"
ALL = [HALF_BATCH, STAGES, *METHODS]
DEFAULT = [
    *("SGD", HALF_BATCH, "SAM", "SWP variable", "SWP depth", "SDS"),
    *("SDS random", "ESAM variable", "ESAM variable by loss", "ESAM depth"),
    *("ESAM depth by loss", "ESAM depth random", STAGES, "one-step"),
]
BUDGETS = ("short", "long", "time")


def method_arguments(method, num_steps):
    """Arguments of `ESAMModel`."""
    if method == HALF_BATCH:
        return METHODS["SGD"]
    if method == STAGES:
        gamma = keras.optimizers.schedules.PiecewiseConstantDecay(
            [num_steps // 2], [1.0, 0.5]
        )
        return {**METHODS["ESAM depth"], "gamma": gamma}
    return METHODS[method]


class EpochTimer(keras.callbacks.Callback):
    """CPU seconds of each epoch."""

    def __init__(self):
        super().__init__()
        self.epochs = []

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.process_time()

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(time.process_time() - self.start)


def train(task, data, settings):
    """Trains one network and returns what the table needs of it."""
    (x, y), test = data
    method, seed, epochs = (settings[k] for k in ("method", "seed", "epochs"))
    batch_size = task.batch_size // (2 if method == HALF_BATCH else 1)
    num_steps = epochs * (len(x) // batch_size)
    keras.utils.set_random_seed(seed)
    arguments = {"rho": settings["rho"], **method_arguments(method, num_steps)}
    model = keras_esam.ESAMModel(make_network(task), seed=seed, **arguments)
    schedule = keras.optimizers.schedules.CosineDecay(
        task.learning_rate, num_steps
    )
    model.compile(
        keras.optimizers.SGD(schedule, momentum=0.9, weight_decay=5e-4),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    dataset = tf.data.Dataset.from_tensor_slices((x, y))
    dataset = dataset.shuffle(len(x), seed=seed)
    dataset = dataset.batch(batch_size, drop_remainder=True)
    timer = EpochTimer()
    history = model.fit(
        dataset, epochs=epochs, shuffle=False, verbose=0, callbacks=[timer]
    ).history
    # The cheaper half; the others may have compiled.
    compiled = sorted(timer.epochs)[: (epochs + 1) // 2]
    return {
        **settings,
        "train_accuracy": accuracy(model, x, y),
        "test_accuracy": accuracy(model, *test),
        "accuracy_by_epoch": history["accuracy"],
        "cpu_seconds_per_epoch": sum(compiled) / len(compiled),
    }


def accuracy(model, x, y):
    """Accuracy in per cent, at the moving statistics."""
    scores = model.evaluate(x, y, batch_size=500, verbose=0, return_dict=True)
    return 100 * scores["accuracy"]


def result_path(folder, method, budget, seed):
    name = f"{method}-{budget}-{seed}.json"
    return folder / name.replace(" ", "_").replace(",", "")


def finish(task, data, settings, folder):
    """The result of a run: from its file, or trained and written there."""
    path = result_path(
        folder, *(settings[key] for key in ("method", "budget", "seed"))
    )
    if path.exists():
        result = json.loads(path.read_text())
        other = {k: result[k] for k in settings if result[k] != settings[k]}
        if other:
            raise ValueError(
                f"`{path}` is of a run with other settings, {other}. Choose "
                f"another folder with --out. Received: {settings}"
            )
        return
    start = time.perf_counter()
    result = train(task, data, settings)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(result) + "\n")
    temporary.replace(path)
    print(
        f"{path.stem}: train {result['train_accuracy']:.2f}%, "
        f"test {result['test_accuracy']:.2f}%, "
        f"{time.perf_counter() - start:.0f} s",
        flush=True,
    )


def epochs_in_equal_time(folder, method, epochs):
    """Epochs that take the CPU time of SAM's long budget, by seed 0's runs."""
    seconds = []
    for name in ("SAM", method):
        path = result_path(folder, name, "long", 0)
        if not path.exists():
            raise ValueError(
                "The budget `time` needs the long runs of seed 0 of SAM and "
                f"of the method. Received: a folder without `{path}`"
            )
        seconds.append(json.loads(path.read_text())["cpu_seconds_per_epoch"])
    return max(1, round(epochs * seconds[0] / seconds[1]))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--methods", nargs="+", choices=ALL, default=DEFAULT)
    parser.add_argument("--budgets", nargs="+", choices=BUDGETS)
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--num-train", type=int)
    parser.add_argument("--short", type=int, help="epochs")
    parser.add_argument("--long", type=int, help="epochs")
    parser.add_argument("--rho", type=float)
    parser.add_argument("--data-dir")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--summary", action="store_true", help="only the table")
    parser.add_argument("--out", type=pathlib.Path)
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
    folder.mkdir(parents=True, exist_ok=True)
    if not arguments.summary:
        run_all(task, arguments, folder)
    files = sorted(folder.glob("*-*-*.json"))
    rows = summarise([json.loads(file.read_text()) for file in files])
    (folder / "summary.json").write_text(json.dumps(rows, indent=2) + "\n")
    (folder / "summary.md").write_text(markdown(rows))
    print(markdown(rows))
    print(f"Written to {folder}")


def run_all(task, arguments, folder):
    data = task.load(task.num_train, arguments.data_dir)
    first = arguments.first_seed
    for seed in range(first, first + arguments.seeds):
        for budget in arguments.budgets or ("short", "long"):
            for method in arguments.methods:
                epochs = getattr(task, budget, None)
                if budget == "time":
                    epochs = epochs_in_equal_time(folder, method, task.long)
                settings = {
                    "task": arguments.task,
                    "method": method,
                    "budget": budget,
                    "seed": seed,
                    "epochs": epochs,
                    "num_train": task.num_train,
                    "rho": task.rho,
                }
                finish(task, data, settings, folder)


if __name__ == "__main__":
    main()
