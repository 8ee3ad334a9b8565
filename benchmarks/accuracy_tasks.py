"""Tasks and methods of `benchmarks.accuracy`: two tables."""

import dataclasses
import functools
from collections.abc import Callable

import keras
import numpy as np

from benchmarks import methods
from benchmarks.networks import small_resnet
from examples import digits
from keras_esam import recipes
from keras_esam.balanced import balanced
from keras_esam.extras import requires


def first_step(tail, num_steps):
    """The `start` that leaves the last part `tail` of the steps."""
    return round((1 - tail) * num_steps)


# Arguments of `ESAMModel`. A function is called with the number of steps;
# `batch_factor` multiplies the batch size, `rho_of` is the method that shares
# its `rho`, which is searched, and `pool_size` is the preferred one.
METHODS = {
    **methods.METHODS,
    "SGD half batch": {**methods.METHODS["SGD"], "batch_factor": 0.5},
    **{
        f"{name}, last {tail:.0%}": {
            **methods.METHODS[name],
            "start": functools.partial(first_step, tail),
            "rho_of": name,
        }
        for name in ("SAM", "SAM, part 0.25")
        for tail in (0.5, 0.7)
    },
    **{
        f"{name}, pool of 5": {
            **methods.METHODS[name],
            "pool_size": 5,
            "rho_of": name,
        }
        for name in ("SWP depth", "ESAM depth")
    },
}
DEFAULT = [
    *("SGD", "SGD half batch", "SAM", "ESAM variable", "ESAM depth"),
    *("SWP depth", "SWP depth, beta 0.3"),
    *(f"SAM, part {fraction}" for fraction in (0.5, 0.25, 0.125)),
    *(name for name in METHODS if ", last " in name),
    *("one-step", "one-step, adaptive"),
]


def make_optimizer(is_sgd, num_steps, learning_rate=0.05, weight_decay=5e-4):
    """SGD with momentum and cosine decay, the same for all methods."""
    del is_sgd
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, num_steps)
    return keras.optimizers.SGD(
        schedule, momentum=0.9, weight_decay=weight_decay
    )


def paper_optimizer(is_sgd, num_steps):
    return paper_recipe(is_sgd).make_optimizer(num_steps)


def paper_recipe(is_sgd):
    return recipes.get(f"cifar10/resnet18/{'sgd' if is_sgd else 'esam'}")


@dataclasses.dataclass(frozen=True)
class Task:
    """What is trained, and for how long."""

    title: str  # of a picture
    # `load(num_train, data_dir)`: training and test data, two pairs of images
    # `(n, height, width, channels)` and labels `(n,)`.
    load: Callable
    make_network: Callable
    num_train: int
    batch_size: int
    rho: float
    # Epochs. In the last one the base optimizer fits the training set.
    budgets: tuple[int, ...]
    # Of whether the method is SGD, and the number of steps.
    make_optimizer: Callable = make_optimizer
    augment: bool = False


def load_digits(num_train, data_dir=None):
    """The 1,797 scans of digits that come with scikit-learn, 8x8 pixels."""
    del data_dir
    with requires("benchmarks"):
        from sklearn.datasets import load_digits

    scans = load_digits()
    x = (scans.images[..., None] / 16).astype("float32")
    y = scans.target.astype("int32")
    train = balanced(y, num_train)
    test = np.setdiff1d(np.arange(len(y)), train)
    return (x[train], y[train]), (x[test], y[test])


def load_label_noise(num_train, data_dir=None):
    """The digits of `examples.digits`, with its noise in the labels."""
    del data_dir
    (x, y), test = digits.load_data()
    return (x[:num_train], y[:num_train]), test


def load_cifar10(num_train, data_dir=None, size=32):
    """A balanced part of CIFAR-10's training set, and the whole test set.

    Images have `size` pixels a side, a divisor of 32: pixels are averaged.
    """
    arrays = cifar10_arrays(data_dir)
    parts = []
    for split, count in (("train", num_train), ("test", None)):
        x, y = arrays[f"x_{split}"], arrays[f"y_{split}"].ravel()
        chosen = balanced(y, count or len(y))
        x = (x[chosen].astype("float32") - 120.7) / 64.1  # mean, deviation
        x = x.reshape(len(x), size, 32 // size, size, -1, 3).mean((2, 4))
        parts.append((x, y[chosen].astype("int32")))
    return parts


def cifar10_arrays(data_dir):
    """Images and labels from an .npz file or from tensorflow-datasets.

    The file has uint8 images, `x_train` and `x_test`, and labels, `y_train` and
    `y_test`.
    """
    if str(data_dir).endswith(".npz"):
        with np.load(data_dir) as file:
            return dict(file)
    # It reads with TensorFlow, whatever the backend.
    from keras_esam.data.prepared import prepared_builder

    builder = prepared_builder("cifar10", data_dir)
    data = builder.as_dataset(batch_size=-1)
    return {
        f"{name}_{split}": data[split][key].numpy()
        for split in ("train", "test")
        for name, key in (("x", "image"), ("y", "label"))
    }


CIFAR10 = Task(
    title="CIFAR-10",
    load=load_cifar10,
    make_network=functools.partial(small_resnet, (32, 32, 3), (2, 1, 2, 2)),
    num_train=1000,
    batch_size=64,
    rho=0.2,
    budgets=(10, 40),
)

# `rho` is the one of several at which SAM was best after the long budget, on
# seeds from 100 on (`cifar10-50000`: the middle budget).
TASKS = {
    # The protocol of `examples.digits`.
    "label-noise": Task(
        title="Digits, 40% random labels",
        load=load_label_noise,
        make_network=digits.make_network,
        num_train=digits.NUM_TRAIN,
        batch_size=digits.BATCH_SIZE,
        rho=digits.RHO,
        budgets=(10, digits.EPOCHS),
        make_optimizer=functools.partial(make_optimizer, weight_decay=None),
    ),
    "digits": Task(
        title="Digits",
        load=load_digits,
        make_network=functools.partial(small_resnet, (8, 8, 1), (1, 1, 2, 2)),
        num_train=200,
        batch_size=50,
        rho=0.4,
        budgets=(10, 60),
    ),
    "cifar10": CIFAR10,
    # Where SAM gains most of what is measured here.
    "cifar10-5000": dataclasses.replace(
        CIFAR10, num_train=5000, rho=0.3, budgets=(10, 30)
    ),
    # The whole of it, of 16x16 pixels so that a core trains ten epochs of the
    # base optimizer in two to three minutes.
    "cifar10-50000": Task(
        title="CIFAR-10, crop and flip",
        load=functools.partial(load_cifar10, size=16),
        make_network=functools.partial(
            small_resnet, (16, 16, 3), (2, 1, 2, 2), width=24
        ),
        num_train=50_000,
        batch_size=128,
        rho=0.05,
        budgets=(4, 12, 36),
        make_optimizer=functools.partial(make_optimizer, learning_rate=0.1),
        augment=True,
    ),
    # A row of the paper's Table 1, for a GPU: its settings, from the recipes.
    "cifar10_paper": Task(
        title="CIFAR-10 with the paper's settings",
        load=load_cifar10,
        make_network=lambda: paper_recipe(False).make_network(),
        num_train=50_000,
        batch_size=paper_recipe(False).batch_size,
        rho=paper_recipe(False).esam["rho"],
        budgets=(30, paper_recipe(False).epochs),
        make_optimizer=paper_optimizer,
        augment=True,
    ),
}
