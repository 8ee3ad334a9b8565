"""CIFAR-10 with ResNet-18, as in Table 1 of the ESAM paper, on one GPU.

Command:   python -m benchmarks.table1 --export cifar10.npz --data-dir DIR
           python -m benchmarks.table1 cifar10.npz
Result:    runs/table1/summary.md: test accuracy and images per second of each
           method, beside the paper's; a folder for each run, with a table of
           its epochs, log.csv
Hardware:  a GPU, with the Keras backend of the environment; each method trains
           25 minutes, then the next one. The same command goes on from there,
           also after a kill, until all have their epochs. --together saves
           time where several processors can compile at once.
Small:     --epochs 2 --width 8 --num-train 1000 --num-test 500   (a CPU)

The first command writes the data that tensorflow-datasets has to a file, since
the machine with the GPU may have no TensorFlow. Any file does that has uint8
images, `x_train` and `x_test`, and labels, `y_train` and `y_test`.

Network, epochs, batch size, optimizer and rho are those of the recipes
`cifar10/resnet18/sgd` and, for the other methods, `.../esam`: Table 4 of the
paper. beta, gamma and granularity are those of `benchmarks.methods`. Mixed
precision, with float32 weights and logits, unless --precision says otherwise.
"""

import argparse
import os
import pathlib
import sys

import keras

import keras_esam
from benchmarks import measurement
from benchmarks.device_images import AugmentedImages
from benchmarks.device_images import IndexBatches
from benchmarks.device_images import SetEpoch
from benchmarks.device_images import export
from benchmarks.device_images import load
from benchmarks.engines import engine
from benchmarks.methods import METHODS
from benchmarks.table1_runs import recipe_of
from benchmarks.table1_runs import remember_settings
from benchmarks.table1_runs import run_folder
from benchmarks.table1_runs import write_summary
from benchmarks.turns import StopAfter
from benchmarks.turns import TakeTurns
from benchmarks.turns import end_with_parent
from benchmarks.turns import run_together
from examples.run_folder import locked
from keras_esam.callbacks import AtomicBackup
from keras_esam.callbacks import ThroughputLogger

COMPARED = [
    *("SGD", "SAM", "ESAM variable", "ESAM variable by loss"),
    *("ESAM variable random", "ESAM depth", "ESAM depth by loss"),
    *("ESAM depth random", "SWP depth, beta 0.3", "one-step"),
]
# Of `keras_esam.data.cifar`, which needs TensorFlow.
MEAN, DEVIATION = (125.307, 122.950, 113.865), (62.993, 62.089, 66.705)


def make_model(method, images, seed, steps, width, depth):
    """The compiled model, for batches of `IndexBatches`.

    Args:
        method: String.
        images: Array of uint8, shape `(num_images, 32, 32, 3)`.
        seed: Integer.
        steps: Integer, number of updates of the whole training.
        width: Integer, of `keras_esam.models.resnet18`.
        depth: Integer, of the same.
    """
    keras.utils.set_random_seed(seed)
    recipe = recipe_of(method)
    inputs = keras.Input((4,), dtype="int32")
    x = AugmentedImages(images, MEAN, DEVIATION)(inputs)
    x = recipe.make_network(width=width, depth=depth)(x)
    arguments = {"rho": recipe.esam["rho"], **METHODS[method]}
    model = keras_esam.ESAMModel(keras.Model(inputs, x), seed=seed, **arguments)
    model.compile(
        recipe.make_optimizer(steps),
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

    Raises:
        RuntimeError: If another process trains the same run.
    """
    folder = run_folder(arguments.out, method, seed)
    with locked(folder):
        backup = AtomicBackup(folder)
        if len(backup.history) < arguments.epochs:
            _fit(method, seed, data, arguments, backup)
    keras.backend.clear_session()


def _fit(method, seed, data, arguments, backup):
    images, labels, num_train = data
    batch_size = recipe_of(method).batch_size
    batches = IndexBatches(labels[:num_train], batch_size, seed=seed)
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


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], allow_abbrev=False
    )
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
    epochs = recipe_of("SAM").epochs
    option("--epochs", type=measurement.positive, default=epochs)
    option("--minutes", type=float, default=25, help="of each run, in a call")
    # A process of --together, which has --turns, cannot start others.
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--together",
        action="store_true",
        help="a process for each method: all compile at once, and take turns "
        "in training",
    )
    either.add_argument(
        "--turns", type=pathlib.Path, help="the file by which they do"
    )
    option("--parent", type=int, help="process id; end when it has ended")
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
    arguments.methods = list(dict.fromkeys(arguments.methods))
    return arguments


def child_command(arguments, method):
    """List of the words of the command that trains one method by itself."""
    values = vars(arguments) | {
        "methods": method,
        "turns": arguments.out / "turns",
        "parent": os.getpid(),
    }
    del values["together"], values["data"]
    options = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in values.items()
        if value is not None
    ]
    command = [sys.executable, "-m", "benchmarks.table1", *options]
    return [*command, "--", str(arguments.data)]


def main(options=None):
    arguments = parse_arguments(options)
    if arguments.parent is not None:
        end_with_parent(arguments.parent)
    if arguments.export:
        export(arguments.export, arguments.data_dir)
        return
    known = remember_settings(arguments)
    if arguments.together:
        methods = arguments.methods
        run_together({m: child_command(arguments, m) for m in methods})
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
