"""CIFAR-10 with ResNet-18, as in Table 1 of the ESAM paper, on one GPU.

Command:   python -m benchmarks.table1 --export cifar10.npz --data-dir DIR
           python -m benchmarks.table1 cifar10.npz
Result:    runs/table1/summary.md: test accuracy and images per second of each
           method, beside the paper's; a JSON file for each run
Hardware:  a GPU, with the Keras backend of the environment; each method trains
           25 minutes, then the next one. The same command goes on from there
           until all have their 200 epochs.
Small:     --epochs 2 --width 8 --num-train 1000 --num-test 500   (a CPU)

The first command writes the data that tensorflow-datasets has to a file, since
the machine with the GPU may have no TensorFlow.

Batch 128, SGD with momentum 0.9 and cosine decay from 0.05, rho 0.05, weight
decay 5e-4 for SGD and 1e-3 for SAM and ESAM (Table 4 of the paper). There, as
in PyTorch, weight decay is part of the gradient; that of Keras' optimizers is
not, and has no momentum, so it is divided by 1 - 0.9 here.
"""

import argparse
import json
import pathlib
import time

import keras
import numpy as np

import keras_esam
from benchmarks import measurement
from benchmarks import networks
from benchmarks.device_images import AugmentedImages
from benchmarks.device_images import IndexBatches
from benchmarks.device_images import SetEpoch
from benchmarks.methods import METHODS
from keras_esam.balanced import balanced
from keras_esam.callbacks import ThroughputLogger

COMPARED = [
    *("SGD", "SAM", "ESAM variable", "ESAM variable by loss"),
    *("ESAM variable random", "ESAM depth", "ESAM depth by loss"),
    *("ESAM depth random", "SWP depth, beta 0.3", "one-step"),
]
PAPER = {"SGD": 95.41, "SAM": 96.52, "ESAM variable": 96.56}
BATCH_SIZE, LEARNING_RATE, MOMENTUM, RHO = 128, 0.05, 0.9, 0.05
MEAN, DEVIATION = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)


class StopAfter(keras.callbacks.Callback):
    """Stops at the end of the epoch in which the time is up."""

    def __init__(self, seconds):
        super().__init__()
        self._end = time.monotonic() + seconds
        self.stopped = False

    def on_epoch_end(self, epoch, logs=None):
        if time.monotonic() > self._end:
            self.stopped = self._model.stop_training = True


class Records(keras.callbacks.Callback):
    """Appends the logs of each epoch to a file, once an epoch."""

    def __init__(self, path):
        super().__init__()
        self._path = path

    def on_epoch_end(self, epoch, logs=None):
        records = [r for r in read(self._path) if r["epoch"] < epoch]
        values = {key: float(value) for key, value in logs.items()}
        measurement.write_json(
            [*records, {"epoch": epoch, **values}], self._path
        )


def read(path):
    return json.loads(path.read_text()) if path.exists() else []


def export(path, data_dir):
    """Writes CIFAR-10 as tensorflow-datasets has it to an .npz file."""
    import tensorflow_datasets as tfds

    data = tfds.load("cifar10", data_dir=data_dir, batch_size=-1)
    arrays = {
        f"{name}_{split}": data[split][key].numpy()
        for split in ("train", "test")
        for name, key in (("x", "image"), ("y", "label"))
    }
    np.savez_compressed(path, **arrays)


def load(path, num_train, num_test):
    """Images and labels, the training samples first, and their number."""
    with np.load(path) as data:
        parts = [
            (data[f"x_{split}"], data[f"y_{split}"].astype("int32"))
            for split in ("train", "test")
        ]
    counts = num_train, num_test
    chosen = [balanced(y, n) for (_, y), n in zip(parts, counts, strict=True)]
    x, y = zip(
        *((x[c], y[c]) for (x, y), c in zip(parts, chosen, strict=True)),
        strict=True,
    )
    return np.concatenate(x), np.concatenate(y), num_train


def make_model(method, images, seed, steps, width, depth):
    """The compiled model, for batches of `IndexBatches`."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((4,), dtype="int32")
    x = AugmentedImages(images, MEAN, DEVIATION)(inputs)
    x = networks.resnet18(width, depth)(x)
    network = keras.Model(inputs, x)
    arguments = {"rho": RHO, **METHODS[method]}
    decay = 5e-4 if arguments["rho"] == 0 else 1e-3
    optimizer = keras.optimizers.SGD(
        keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps),
        momentum=MOMENTUM,
        weight_decay=decay / (1 - MOMENTUM),
    )
    model = keras_esam.ESAMModel(network, seed=seed, **arguments)
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def train(method, seed, data, arguments, folder):
    """Trains until the end or until the time is up. Returns which."""
    images, labels, num_train = data
    batches = IndexBatches(labels[:num_train], BATCH_SIZE, seed=seed)
    tested = IndexBatches(labels[num_train:], 500, offset=num_train)
    steps = arguments.epochs * len(batches)
    model = make_model(
        method, images, seed, steps, arguments.width, arguments.depth
    )
    name = name_of(method, seed)
    clock = StopAfter(60 * arguments.minutes)
    model.fit(
        batches,
        epochs=arguments.epochs,
        shuffle=False,
        verbose=2,
        validation_data=tested,
        callbacks=[
            SetEpoch(batches),
            ThroughputLogger(),
            Records(folder / f"{name}.json"),
            keras.callbacks.BackupAndRestore(
                folder / f"{name}.backup", delete_checkpoint=False
            ),
            clock,
        ],
    )
    return not clock.stopped


def name_of(method, seed):
    return f"{method}-{seed}".replace(" ", "_").replace(",", "")


def summary(folder, seeds, epochs):
    """Markdown table of the runs in a folder."""
    lines = [
        "| | test accuracy, % | paper | training accuracy, % | images/s "
        "| epochs by seed |",
        "|---|---|---|---|---|---|",
    ]
    for method in COMPARED:
        paths = [folder / f"{name_of(method, s)}.json" for s in range(seeds)]
        runs = [records for records in map(read, paths) if records]
        if not runs:
            continue
        finished = [run for run in runs if len(run) == epochs]
        cells = [method, "", str(PAPER.get(method, "")), "", ""]
        if finished:
            cells[1] = spread([r[-1]["val_accuracy"] for r in finished])
            cells[3] = spread([r[-1]["accuracy"] for r in finished])
        speeds = [e["images_per_second"] for run in runs for e in run]
        cells[4] = f"{np.nanmedian(speeds):.0f}"
        cells.append(", ".join(str(len(run)) for run in runs))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def spread(values):
    """Mean and standard error in per cent."""
    values = 100 * np.array(values)
    if len(values) == 1:
        return f"{values[0]:.2f}"
    error = values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.2f} +- {error:.2f}"


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    option = parser.add_argument
    option("data", nargs="?", type=pathlib.Path, help="an .npz file")
    option("--export", type=pathlib.Path, help="write that file, and end")
    option("--data-dir", help="of tensorflow-datasets, for --export")
    option("--methods", nargs="+", choices=METHODS, metavar="METHOD")
    option("--seeds", type=measurement.positive, default=1)
    option("--epochs", type=measurement.positive, default=200)
    option("--minutes", type=float, default=25, help="for each run and call")
    option("--width", type=measurement.positive, default=64)
    option("--depth", type=measurement.positive, default=2)
    option("--num-train", type=measurement.positive, default=50_000)
    option("--num-test", type=measurement.positive, default=10_000)
    option(
        "--precision", choices=measurement.PRECISIONS, default="mixed_bfloat16"
    )
    option("--out", type=pathlib.Path, default=pathlib.Path("runs/table1"))
    arguments = parser.parse_args()
    if (arguments.data is None) == (arguments.export is None):
        parser.error("either the data file or --export is needed")
    return arguments


def main():
    arguments = parse_arguments()
    if arguments.export:
        export(arguments.export, arguments.data_dir)
        return
    keras.config.set_dtype_policy(arguments.precision)
    folder = arguments.out
    folder.mkdir(parents=True, exist_ok=True)
    settings = vars(arguments) | {"data": arguments.data.name, "out": None}
    measurement.write_json(
        {"machine": measurement.describe_machine(), "settings": settings},
        folder / "settings.json",
    )
    data = load(arguments.data, arguments.num_train, arguments.num_test)
    for seed in range(arguments.seeds):
        for method in arguments.methods or COMPARED:
            done = read(folder / f"{name_of(method, seed)}.json")
            if len(done) < arguments.epochs:
                train(method, seed, data, arguments, folder)
            table = summary(folder, arguments.seeds, arguments.epochs)
            (folder / "summary.md").write_text(table)
            keras.backend.clear_session()
    print(table)


if __name__ == "__main__":
    main()
