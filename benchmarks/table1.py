"""CIFAR-10 with ResNet-18, as in Table 1 of the ESAM paper, on one GPU.

Command:   python -m benchmarks.table1 --export cifar10.npz --data-dir DIR
           python -m benchmarks.table1 cifar10.npz
Result:    runs/table1/summary.md: test accuracy and images per second of each
           method, beside the paper's; a folder for each run, with a table of
           its epochs, log.csv
Hardware:  a GPU, with the Keras backend of the environment; each method trains
           25 minutes, then the next one. The same command goes on from there,
           also after a kill, until all have their 200 epochs. --together
           saves time where several processors can compile at once.
Small:     --epochs 2 --width 8 --num-train 1000 --num-test 500   (a CPU)

The first command writes the data that tensorflow-datasets has to a file, since
the machine with the GPU may have no TensorFlow. Any file does that has uint8
images, `x_train` and `x_test`, and labels, `y_train` and `y_test`.

Batch 128, SGD with momentum 0.9 and cosine decay from 0.05, rho 0.05, weight
decay 5e-4 for SGD and 1e-3 for SAM and ESAM (Table 4 of the paper). There, as
in PyTorch, weight decay is part of the gradient; that of Keras' optimizers is
not, and has no momentum, so it is divided by 1 - 0.9 here. Mixed precision,
with float32 weights and logits, unless --precision says otherwise.
"""

import argparse
import pathlib
import subprocess
import sys
import time

import keras

import keras_esam
from benchmarks import measurement
from benchmarks import networks
from benchmarks.device_images import AugmentedImages
from benchmarks.device_images import IndexBatches
from benchmarks.device_images import SetEpoch
from benchmarks.device_images import export
from benchmarks.device_images import load
from benchmarks.engines import engine
from benchmarks.methods import METHODS
from benchmarks.table1_runs import remember_settings
from benchmarks.table1_runs import run_folder
from benchmarks.table1_runs import write_summary
from benchmarks.turns import TakeTurns
from keras_esam.callbacks import AtomicBackup
from keras_esam.callbacks import ThroughputLogger

COMPARED = [
    *("SGD", "SAM", "ESAM variable", "ESAM variable by loss"),
    *("ESAM variable random", "ESAM depth", "ESAM depth by loss"),
    *("ESAM depth random", "SWP depth, beta 0.3", "one-step"),
]
BATCH_SIZE, LEARNING_RATE, MOMENTUM, RHO = 128, 0.05, 0.9, 0.05
MEAN, DEVIATION = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)


class StopAfter(keras.callbacks.Callback):
    """Stops at the end of the epoch in which the time is up."""

    def __init__(self, seconds):
        super().__init__()
        self._left = seconds

    def on_epoch_begin(self, epoch, logs=None):
        self._begin = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        self._left -= time.monotonic() - self._begin
        if self._left < 0:
            self._model.stop_training = True


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


def train(method, seed, data, arguments):
    """Trains until the end or until the time is up, if there is anything left.

    Args:
        method: String.
        seed: Integer.
        data: Tuple of images, labels, and the number of training samples.
        arguments: Namespace, the options.
    """
    backup = AtomicBackup(run_folder(arguments.out, method, seed))
    if len(backup.history) >= arguments.epochs:
        return
    images, labels, num_train = data
    batches = IndexBatches(labels[:num_train], BATCH_SIZE, seed=seed)
    tested = IndexBatches(labels[num_train:], 500, offset=num_train)
    steps = arguments.epochs * len(batches)
    # Its time does not begin before its turn.
    turns = [TakeTurns(arguments.turns)] if arguments.turns else []
    model = make_model(
        method, images, seed, steps, arguments.width, arguments.depth
    )
    model.fit(
        batches,
        epochs=arguments.epochs,
        shuffle=False,
        verbose=2,
        validation_data=tested,
        callbacks=[
            SetEpoch(batches),
            ThroughputLogger(),
            *turns,
            StopAfter(60 * arguments.minutes),
            backup,
        ],
    )
    keras.backend.clear_session()


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    option = parser.add_argument
    option("data", nargs="?", type=pathlib.Path, help="an .npz file")
    option("--export", type=pathlib.Path, help="write that file, and end")
    option("--data-dir", help="of tensorflow-datasets, for --export")
    option(
        "--methods",
        nargs="+",
        choices=METHODS,
        default=COMPARED,
        metavar="METHOD",
    )
    option("--seeds", type=measurement.positive, default=1)
    option("--epochs", type=measurement.positive, default=200)
    option("--minutes", type=float, default=25, help="of each run, in a call")
    option(
        "--together",
        action="store_true",
        help="a process for each method: all compile at once, and take turns "
        "in training",
    )
    option("--turns", type=pathlib.Path, help="the file by which they do")
    option("--width", type=measurement.positive, default=64)
    option("--depth", type=measurement.positive, default=2)
    option("--num-train", type=measurement.positive, default=50_000)
    option("--num-test", type=measurement.positive, default=10_000)
    option(
        "--precision", choices=measurement.PRECISIONS, default="mixed_bfloat16"
    )
    option("--out", type=pathlib.Path, default=pathlib.Path("runs/table1"))
    arguments = parser.parse_args(arguments)
    if (arguments.data is None) == (arguments.export is None):
        parser.error("either the data file or --export is needed")
    return arguments


def train_together(arguments, options):
    """Trains each method in a process of its own."""
    turns = arguments.out / "turns"
    options = [option for option in options if option != "--together"]
    command = [sys.executable, "-m", "benchmarks.table1", *options]
    command += ["--turns", str(turns), "--methods"]
    processes = [subprocess.Popen([*command, m]) for m in arguments.methods]
    failed = [process.args for process in processes if process.wait()]
    if failed:
        raise RuntimeError(f"Failed: {failed}")


def main(options=None):
    options = sys.argv[1:] if options is None else options
    arguments = parse_arguments(options)
    if arguments.export:
        export(arguments.export, arguments.data_dir)
        return
    known = remember_settings(arguments)
    if arguments.together:
        train_together(arguments, options)
    else:
        train_in_turn(arguments, known)
    print(write_summary(arguments.out, known))


def train_in_turn(arguments, known):
    """Trains each method, all of a seed before those of the next one."""
    engine.keep_compiled(arguments.out / "compiled")
    keras.config.set_dtype_policy(arguments.precision)
    data = load(arguments.data, arguments.num_train, arguments.num_test)
    for seed in range(arguments.seeds):
        for method in arguments.methods:
            train(method, seed, data, arguments)
            write_summary(arguments.out, known)


if __name__ == "__main__":
    main()
