"""The settings of the ESAM paper's experiments, as frozen records.

A recipe is named `DATASET/NETWORK/METHOD`:

| | |
|---|---|
| data sets | `cifar10`, `cifar100`, `imagenet` |
| networks | `resnet18`, `wrn-28-10`, `pyramidnet-110` |
| | `resnet50`, `resnet101` (`imagenet`) |
| methods | `sgd`, `sam`, `sam-quarter`, `asam` |
| | `esam`, `esam-swp`, `esam-sds` |

`Recipe.sources` gives the source of every value, and says which values were not
checked against the paper. Where the paper contradicts itself, the recipes
follow the tables, not the text:

- Table 4 has batch 256 for the two larger networks and weight decay 1e-3 for
    SAM and ESAM; section 3.1 says 128 and 1e-4.
- Table 5 calls "ResNet-110" what Table 2 and the text call ResNet-101.
- Table 4 says "Basic" augmentation; the authors' code adds Cutout of 16 pixels
    (`cutout=16` in the arguments of the pipeline).
- The authors' `run.sh` has `beta` 0.5 and weight decay 5e-4 for PyramidNet-110,
    section 3.1 0.6, and Table 4 1e-3.

`esam` perturbs whole variables, as the authors' code does.
`granularity="depth"` is faster, see `keras_esam.ESAMModel`. The perturbation
has length `rho`, as in the paper; in the authors' code it is longer
(`scale="authors"`).

`asam` has the `rho` of its paper, [Kwon et al.,
2021](https://arxiv.org/abs/2102.11600), and the rest from ESAM's tables. The
code of that paper (SamsungLabs/ASAM) scales no biases and adds `eta=0.01` to
`|w|`; `adaptive=True` scales all variables and adds nothing. With all variables
scaled, the first author
[reports](https://github.com/davda54/sam/issues/37) the best accuracy on
CIFAR-10 with `rho=2`, of 0.5, 1, 2 and 5; the recipes have 0.5.

`sam-quarter` is not in the paper. It is SAM with the perturbation computed on a
quarter of each batch (on ImageNet of each micro-batch), the default of
`keras_esam.ESAMModel`.
"""

import dataclasses
from collections.abc import Mapping

import keras

from keras_esam import models

NUM_CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}
MAKERS = {
    "resnet18": models.resnet18,
    "wrn-28-10": models.wide_resnet,
    "pyramidnet-110": models.pyramid_net,
    "resnet50": models.resnet50,
    "resnet101": models.resnet101,
}
METHODS = ("sgd", "sam", "asam", "esam", "esam-swp", "esam-sds", "sam-quarter")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One training of the paper. Change a value with `dataclasses.replace`.

    Args:
        name: String, `DATASET/NETWORK/METHOD`.
        epochs: Integer.
        batch_size: Integer, of all replicas together.
        learning_rate: Float, the first one of a cosine decay to 0.
        weight_decay: Float, as in PyTorch: part of the gradient.
        momentum: Float, in [0, 1).
        esam: Mapping of the arguments of `keras_esam.ESAMModel`.
        sources: Mapping of each value's name to its source.
    """

    name: str
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    momentum: float
    esam: Mapping
    sources: Mapping

    dataset = property(lambda self: self.name.split("/")[0])
    network = property(lambda self: self.name.split("/")[1])
    method = property(lambda self: self.name.split("/")[2])

    @property
    def pipeline(self) -> dict:
        """Arguments of `keras_esam.data.cifar` or `keras_esam.data.imagenet`,
        all but the split."""
        named = {} if self.dataset == "imagenet" else {"name": self.dataset}
        return {**named, "batch_size": self.batch_size}

    def make_network(self, **kwargs) -> keras.Model:
        """The network with random weights.

        Args:
            **kwargs: Other arguments for its function in `keras_esam.models`.
        """
        num_classes = NUM_CLASSES[self.dataset]
        return MAKERS[self.network](**{"num_classes": num_classes, **kwargs})

    def make_optimizer(self, num_steps: int) -> keras.optimizers.Optimizer:
        """SGD with momentum and cosine decay over `num_steps` updates.

        PyTorch's weight decay accumulates in the momentum, up to
        `1 / (1 - momentum)` times. Keras' weight decay does not, so it is
        multiplied by the same factor here.
        """
        schedules = keras.optimizers.schedules
        return keras.optimizers.SGD(
            schedules.CosineDecay(self.learning_rate, num_steps),
            momentum=self.momentum,
            weight_decay=self.weight_decay / (1 - self.momentum) or None,
        )


# Per network: epochs, batch size, `rho`, `beta`, `gamma`.
_TABLE = {
    "resnet18": (200, 128, 0.05, 0.6, 0.5),
    "wrn-28-10": (200, 256, 0.1, 0.5, 0.5),
    "pyramidnet-110": (300, 256, 0.2, 0.6, 0.5),
    "resnet50": (90, 512, 0.05, 0.6, 0.7),
    "resnet101": (90, 512, 0.05, 0.6, 0.7),
}
_ASAM_RHO = {"cifar10": 0.5, "cifar100": 1.0, "imagenet": 1.0}
# Sources of values.
_METHOD = "of the method"
_OURS = "our benchmarks"
_SECTION = "section 3.1"
_RUN_SH = "`run.sh` of the authors' code, ESAM's value"
_UNCHECKED = ", from memory, not checked"
_GOYAL = "Goyal et al., 2017, arXiv 1706.02677"
_KWON = "Kwon et al., 2021, arXiv 2102.11600"


def names() -> tuple[str, ...]:
    """Names of all recipes."""
    return tuple(
        f"{dataset}/{network}/{method}"
        for dataset in NUM_CLASSES
        for network in _TABLE
        if (dataset == "imagenet") == (network in ("resnet50", "resnet101"))
        for method in METHODS
    )


def get(name: str) -> Recipe:
    """Returns the recipe of a name, one of `names()`.

    Example:

    ```python
    from keras_esam import data

    recipe = keras_esam.recipes.get("cifar10/resnet18/esam")
    train = data.cifar(split="train", **recipe.pipeline)
    model = keras_esam.ESAMModel(recipe.make_network(), **recipe.esam)
    optimizer = recipe.make_optimizer(recipe.epochs * len(train))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    model.fit(train, epochs=recipe.epochs)
    ```

    Reference: [Du et al., 2022](https://arxiv.org/abs/2110.03141), "Efficient
    Sharpness-aware Minimization for Improved Training of Neural Networks".
    """
    if name not in names():
        raise ValueError(
            "`name` must be one of `keras_esam.recipes.names()`, for instance "
            f'"cifar10/resnet18/esam". Received: name={name!r}'
        )
    dataset, network, method = name.split("/")
    training = _training(dataset, network, method)
    esam = _esam(dataset, network, method)
    sources = {key: source for key, (_, source) in (training | esam).items()}
    return Recipe(
        name,
        **{key: value for key, (value, _) in training.items()},
        esam={key: value for key, (value, _) in esam.items()},
        sources=sources,
    )


def _training(dataset, network, method):
    """Dict of each training value, by name, to `(value, source)`."""
    epochs, batch_size, *_ = _TABLE[network]
    values = {
        "epochs": (epochs, "Table 4"),
        "batch_size": (batch_size, "Table 4"),
        "learning_rate": (0.05, _RUN_SH),
        "weight_decay": (1e-3, "Table 4"),
        "momentum": (0.9, "README of the authors' code"),
    }
    if dataset == "imagenet":
        values["epochs"] = epochs, "Table 5"
        values["batch_size"] = batch_size, "Table 5" + _UNCHECKED
        values["learning_rate"] = 0.2, _GOYAL + ": 0.1 per 256 samples"
        values["weight_decay"] = 1e-4, _GOYAL
    elif method == "sgd":
        values["weight_decay"] = 5e-4, "Table 4" + _UNCHECKED
    return values


def _esam(dataset, network, method):
    """The same for the arguments of `keras_esam.ESAMModel`."""
    if method == "sgd":
        return {"rho": (0.0, _METHOD)}
    on_imagenet = dataset == "imagenet"
    *_, rho, beta, gamma = _TABLE[network]
    values = {
        "rho": (rho, "Table 5" + _UNCHECKED if on_imagenet else _RUN_SH),
        "beta": (1.0, _METHOD),
        "gamma": (1.0, _METHOD),
        "ascent_fraction": (1.0, _METHOD),
        "granularity": ("variable", "the authors' code"),
    }
    if method in ("esam", "esam-swp"):
        values["beta"] = beta, _SECTION
    if method in ("esam", "esam-sds"):
        values["gamma"] = gamma, _SECTION
    if method == "sam-quarter":
        values["ascent_fraction"] = 0.25, _OURS
    if method == "asam":
        source = "README of the code of " + _KWON
        if on_imagenet:
            source = _KWON + ", quoted by others"
        values["rho"] = _ASAM_RHO[dataset], source
        values["adaptive"] = True, _METHOD
        del values["granularity"]
    if on_imagenet:
        values["micro_batch_size"] = 128, _SECTION + _UNCHECKED
    return values
