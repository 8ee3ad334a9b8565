"""The settings of the ESAM paper's experiments, as frozen records.

A recipe is named `DATASET/NETWORK/METHOD`:

| | |
|---|---|
| data sets | `cifar10`, `cifar100`, `imagenet` |
| networks | `resnet18`, `wrn-28-10`, `pyramidnet-110` |
| | `resnet50`, `resnet101` (`imagenet`) |
| methods | `sgd`, `sam`, `asam`, `esam`, `esam-swp`, `esam-sds`, `fast-sam` |

Every value has its source in `Recipe.sources`, which also says which ones were
not checked against the paper. Where the paper contradicts itself the tables are
followed, not the text:

- Table 4 has batch 256 for the two larger networks and weight decay 1e-3 for
    SAM and ESAM; section 3.1 says 128 and 1e-4.
- Table 5 calls "ResNet-110" what Table 2 and the text call ResNet-101.
- Table 4 says "Basic" augmentation; the authors' code adds Cutout of 16 pixels
    (`cutout=16` in the arguments of the pipeline).
- The authors' `run.sh` has `beta` 0.5 and weight decay 5e-4 for PyramidNet-110,
    section 3.1 0.6, and Table 4 1e-3.

`esam` perturbs whole variables, as the authors' code does; with
`granularity="depth"` it is faster, see `keras_esam.ESAMModel`. The perturbation
has length `rho`, as the paper says; in the authors' code it is longer
(`scale="authors"`).

`asam` has the `rho` of its paper, [Kwon et al.,
2021](https://arxiv.org/abs/2102.11600), and the rest from ESAM's tables, to
compare. The code of that paper (SamsungLabs/ASAM) scales no biases and adds
`eta=0.01` to `|w|`; `adaptive=True` scales all variables and adds nothing. For
a PyTorch implementation that scales all parameters too, Jungmin Kwon, the first
author, [reports](https://github.com/davda54/sam/issues/37) the best accuracy on
CIFAR-10 with `rho=2`, of 0.5, 1, 2 and 5; the recipes have 0.5 there.

`fast-sam` is not in the paper. It is SWP of few layers without SDS
(`granularity="depth", beta=0.3, gamma=1`), by operations 1.54 times as fast as
SAM, and in the benchmarks as accurate at short and at long budgets.
"""

import dataclasses
from collections.abc import Mapping

import keras

from keras_esam import models

CIFAR = ("cifar10", "cifar100")
NUM_CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}
MAKERS = {
    "resnet18": models.resnet18,
    "wrn-28-10": models.wide_resnet,
    "pyramidnet-110": models.pyramid_net,
    "resnet50": models.resnet50,
    "resnet101": models.resnet101,
}
METHODS = ("sgd", "sam", "asam", "esam", "esam-swp", "esam-sds", "fast-sam")


class _FrozenDict(dict):
    """A dict that can't be changed, but copied and stored."""

    def _refuse(self, *args, **kwargs):
        raise TypeError("Recipes can't be changed. Use `dataclasses.replace`.")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self):
        return type(self), (dict(self),)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One training of the paper.

    Change a value with `dataclasses.replace`.

    Args:
        name: String, `DATASET/NETWORK/METHOD`.
        epochs: Integer.
        batch_size: Integer, of all replicas together.
        learning_rate: Float, the first one of a cosine decay to 0.
        weight_decay: Float, as in PyTorch: part of the gradient.
        momentum: Float, in [0, 1).
        esam: Mapping of the arguments of `keras_esam.ESAMModel`.
        sources: Mapping of each value's name to where it is from.
    """

    name: str
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    momentum: float
    esam: Mapping
    sources: Mapping

    @property
    def dataset(self) -> str:
        return self.name.split("/")[0]

    @property
    def network(self) -> str:
        return self.name.split("/")[1]

    @property
    def method(self) -> str:
        return self.name.split("/")[2]

    @property
    def pipeline(self) -> dict:
        """Arguments of `keras_esam.data.cifar` or `keras_esam.data.imagenet`,
        all but the split."""
        arguments = {"batch_size": self.batch_size}
        if self.dataset in CIFAR:
            arguments = {"name": self.dataset, **arguments}
        return arguments

    def make_network(self, **kwargs) -> keras.Model:
        """The network with random weights.

        Args:
            **kwargs: Other arguments for its function in `keras_esam.models`,
                such as `width`, `depth`, `input_shape` and `num_classes`.

        Returns:
            A functional `keras.Model` whose outputs are logits.
        """
        num_classes = NUM_CLASSES[self.dataset]
        return MAKERS[self.network](**{"num_classes": num_classes, **kwargs})

    def make_optimizer(self, num_steps: int) -> keras.optimizers.Optimizer:
        """SGD with momentum and cosine decay.

        In PyTorch weight decay is part of the gradient and so accumulates in
        the momentum, up to `1 / (1 - momentum)` times. That of Keras'
        optimizers does not, and is made as much larger here.

        Args:
            num_steps: Integer, number of updates of the whole training.

        Returns:
            `keras.optimizers.SGD`.
        """
        schedule = keras.optimizers.schedules.CosineDecay(
            self.learning_rate, num_steps
        )
        return keras.optimizers.SGD(
            schedule,
            momentum=self.momentum,
            weight_decay=self.weight_decay / (1 - self.momentum) or None,
        )


@dataclasses.dataclass(frozen=True)
class _Setting:
    """What the methods on a network share."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay_sgd: float
    weight_decay: float
    rho: float
    beta: float
    gamma: float
    micro_batch_size: int | None
    table: str


_RUN_SH = "`run.sh` of the authors' code, where it is that of ESAM"
_UNCHECKED = ", from memory, not checked"
_GOYAL = "Goyal et al., 2017, arXiv 1706.02677"
_KWON = "Kwon et al., 2021, arXiv 2102.11600"
_SETTINGS = {
    "resnet18": _Setting(
        200, 128, 0.05, 5e-4, 1e-3, 0.05, 0.6, 0.5, None, "Table 4"
    ),
    "wrn-28-10": _Setting(
        200, 256, 0.05, 5e-4, 1e-3, 0.1, 0.5, 0.5, None, "Table 4"
    ),
    "pyramidnet-110": _Setting(
        300, 256, 0.05, 5e-4, 1e-3, 0.2, 0.6, 0.5, None, "Table 4"
    ),
    "resnet50": _Setting(
        90, 512, 0.2, 1e-4, 1e-4, 0.05, 0.6, 0.7, 128, "Table 5"
    ),
}
_SETTINGS["resnet101"] = _SETTINGS["resnet50"]
_ASAM_RHO = {"cifar10": 0.5, "cifar100": 1.0, "imagenet": 1.0}


def names() -> tuple[str, ...]:
    """Names of all recipes."""
    return tuple(
        f"{dataset}/{network}/{method}"
        for dataset in NUM_CLASSES
        for network in _SETTINGS
        if (dataset == "imagenet") == (network in ("resnet50", "resnet101"))
        for method in METHODS
    )


def get(name: str) -> Recipe:
    """The recipe of a name.

    Args:
        name: String, `DATASET/NETWORK/METHOD`, see `names()`.

    Returns:
        A `Recipe`.

    Raises:
        ValueError: If there is none of that name.

    Example:

    ```python
    recipe = keras_esam.recipes.get("cifar10/resnet18/esam")
    train = keras_esam.data.cifar(split="train", **recipe.pipeline)
    model = keras_esam.ESAMModel(recipe.make_network(), **recipe.esam)
    model.compile(
        recipe.make_optimizer(recipe.epochs * len(train)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(train, epochs=recipe.epochs)
    ```

    Reference:

    - [Du et al., 2022](https://arxiv.org/abs/2110.03141), "Efficient
        Sharpness-aware Minimization for Improved Training of Neural Networks"
    """
    if name not in names():
        raise ValueError(
            "`name` must be one of `keras_esam.recipes.names()`, for instance "
            f'"cifar10/resnet18/esam". Received: name={name!r}'
        )
    dataset, network, method = name.split("/")
    setting = _SETTINGS[network]
    is_sgd = method == "sgd"
    decay = setting.weight_decay_sgd if is_sgd else setting.weight_decay
    return Recipe(
        name=name,
        epochs=setting.epochs,
        batch_size=setting.batch_size,
        learning_rate=setting.learning_rate,
        weight_decay=decay,
        momentum=0.9,
        esam=_FrozenDict(_esam(setting, dataset, method)),
        sources=_FrozenDict(_sources(setting, dataset, method)),
    )


def _esam(setting, dataset, method):
    if method == "sgd":
        return {"rho": 0.0}
    arguments = {
        "rho": setting.rho,
        "beta": setting.beta if method in ("esam", "esam-swp") else 1.0,
        "gamma": setting.gamma if method in ("esam", "esam-sds") else 1.0,
    }
    if method == "asam":
        arguments |= {"rho": _ASAM_RHO[dataset], "adaptive": True}
    elif method == "fast-sam":
        arguments |= {"beta": 0.3, "granularity": "depth"}
    else:
        arguments["granularity"] = "variable"
    if setting.micro_batch_size is not None:
        arguments["micro_batch_size"] = setting.micro_batch_size
    return arguments


def _sources(setting, dataset, method):
    on_imagenet = dataset == "imagenet"
    unchecked = setting.table + _UNCHECKED
    decay = unchecked if method == "sgd" else setting.table
    arguments = _esam(setting, dataset, method)
    sources = {
        "epochs": setting.table,
        "batch_size": unchecked if on_imagenet else setting.table,
        "learning_rate": (
            f"{_GOYAL}: 0.1 per 256 samples" if on_imagenet else _RUN_SH
        ),
        "weight_decay": _GOYAL if on_imagenet else decay,
        "momentum": "README of the authors' code",
    }
    if method == "sgd":
        return {**sources, "rho": "of the method"}
    for name in ("beta", "gamma"):
        is_used = arguments[name] < 1
        sources[name] = "section 3.1" if is_used else "of the method"
    if method == "asam":
        quoted = _KWON + ", quoted by others"
        readme = "README of the code of " + _KWON
        sources["rho"] = quoted if on_imagenet else readme
        sources["adaptive"] = "of the method"
    else:
        sources["rho"] = unchecked if on_imagenet else _RUN_SH
        sources["granularity"] = "the authors' code"
    if method == "fast-sam":
        sources["beta"] = sources["granularity"] = "our benchmarks"
    if on_imagenet:
        sources["micro_batch_size"] = "section 3.1" + _UNCHECKED
    return sources
