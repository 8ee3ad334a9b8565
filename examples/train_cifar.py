"""Trains a network on CIFAR-10 or CIFAR-100 by a recipe of the ESAM paper.

Command:   python -m examples.train_cifar --recipe cifar10/resnet18/esam
Result:    runs/cifar10/resnet18/esam with result.json, the weights with the
           best validation accuracy (best.weights.h5), the last network
           (last.keras), a backup and logs for TensorBoard. The paper reports
           96.56% for this recipe, 96.52% for `sam` and 95.41% for `sgd`.
           `test_accuracy` belongs to the last epoch, `best_test_accuracy` to
           the epoch with the best test accuracy, so it is too high for a
           comparison
Hardware:  one GPU. Small, on two busy CPU cores: --width 8 --subset 1000
           --epochs 30 took 4 minutes and gave 33.2% (seed 0; 39.5% of the
           training samples)
Data:      `tensorflow_datasets.load("cifar10")` downloads it once; --data-dir
           or the environment variable TFDS_DATA_DIR say where it is

Give the same command again to resume an interrupted run. A run with other
settings needs another `--out`. With `--strategy multiworker` each worker runs
the command, with its place in the cluster in the environment variable
TF_CONFIG; all share `--out`. Strategies need Keras' TensorFlow backend; on the
others a run has no `--strategy`.
"""

import pathlib

import keras_esam
from examples import fitting
from keras_esam import data


def parse_arguments():
    parser = fitting.make_parser(__doc__, "cifar10/resnet18/esam")
    option = parser.add_argument
    for size in ("--width", "--depth"):
        option(size, type=int, help="see keras_esam.models (default: its own)")
    option("--cutout", type=int, default=0, help="pixels (default: 0, none)")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    recipe = fitting.make_recipe(arguments)
    out = arguments.out or pathlib.Path("runs", recipe.name)
    scope = fitting.start(arguments)

    # The data of an epoch depends only on the seed and the epoch, so a resumed
    # run sees the same batches.
    counter = keras_esam.callbacks.EpochCounter()
    train = data.cifar(
        split="train",
        data_dir=arguments.data_dir,
        num_samples=arguments.subset,
        cutout=arguments.cutout,
        seed=arguments.seed,
        epoch=counter.epoch,
        **recipe.pipeline,
    )
    test = data.cifar(
        recipe.dataset, "test", batch_size=500, data_dir=arguments.data_dir
    )

    sizes = {"width": arguments.width, "depth": arguments.depth}
    sizes = {name: size for name, size in sizes.items() if size is not None}
    num_steps = recipe.epochs * len(train)
    with scope:
        network = recipe.make_network(**sizes)
        model = fitting.make_model(network, recipe, num_steps, arguments.seed)
    fitting.fit(model, train, test, counter, recipe, arguments, out)


if __name__ == "__main__":
    main()
