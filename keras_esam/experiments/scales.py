"""How large the runs of an experiment are."""

import dataclasses
from collections.abc import Mapping

import keras

from keras_esam import models
from keras_esam import recipes


@dataclasses.dataclass(frozen=True)
class Scale:
    """What a scale changes in the recipes of the paper.

    Args:
        name: String.
        datasets: Tuple of the names of the data sets of Table 1.
        num_samples: Mapping of data set to the number of training samples, if
            not all.
        augment: Boolean, whether training images are augmented.
        seeds: Tuple of integers.
        changes: Mapping of network to a mapping of other values for
            `keras_esam.recipes.Recipe`.
        rho: Optional float, instead of that of the recipes with one.
        sizes: Mapping of network to the arguments of its function in
            `keras_esam.models`, but for the number of classes.
        stand_ins: Mapping of network to the name of another function there.
        grid: Tuple of the values of `beta` and of `gamma` in Figure 3.
        num_draws: Integer, number of loss landscapes that are averaged.
        num_points: Integer, number of points along an axis of a landscape.
        image_size: Integer, side of the images of ImageNet.
        num_jobs: Integer, number of trainings at a time on a CPU.
    """

    name: str
    datasets: tuple
    num_samples: Mapping
    augment: bool
    seeds: tuple
    changes: Mapping
    rho: float | None
    sizes: Mapping
    stand_ins: Mapping
    grid: tuple
    num_draws: int
    num_points: int
    image_size: int
    num_jobs: int

    def recipe(self, name: str) -> recipes.Recipe:
        """The recipe of a name at this scale."""
        recipe = recipes.get(name)
        esam = dict(recipe.esam)
        if self.rho is not None and recipe.method not in ("sgd", "asam"):
            esam["rho"] = self.rho
        changes = self.changes.get(recipe.network, {})
        recipe = dataclasses.replace(recipe, **changes, esam=esam)
        # Such a batch is a single micro-batch, as it is without.
        if recipe.batch_size <= esam.get("micro_batch_size", 0):
            del esam["micro_batch_size"]
        return recipe

    def make_network(self, recipe: recipes.Recipe, **sizes) -> keras.Model:
        """The network of a recipe at this scale, with random weights.

        Args:
            recipe: `Recipe`.
            **sizes: Arguments of its function in `keras_esam.models`.
        """
        stand_in = self.stand_ins.get(recipe.network)
        if stand_in is None:
            return recipe.make_network(**sizes)
        return getattr(models, stand_in)(**sizes)


PAPER = Scale(
    name="paper",
    datasets=("cifar10", "cifar100"),
    num_samples={},
    augment=True,
    seeds=(0, 1, 2),
    changes={},
    rho=None,
    sizes={},
    stand_ins={},
    grid=(0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    num_draws=10,
    num_points=41,
    image_size=224,
    num_jobs=1,
)
PHOTOGRAPHS = {"input_shape": (64, 64, 3), "width": 16}
# For two cores: so much that SGD fits its training set, and no augmentation,
# which would delay that.
SMALL = Scale(
    name="small",
    datasets=("cifar10",),
    num_samples={"cifar10": 1000, "imagenet": 400},
    augment=False,
    seeds=(0, 1, 2),
    changes={
        "resnet18": {"epochs": 20, "batch_size": 50, "learning_rate": 0.05},
        "wrn-28-10": {"epochs": 25, "batch_size": 50, "learning_rate": 0.1},
        "pyramidnet-110": {
            "epochs": 36,
            "batch_size": 50,
            "learning_rate": 0.07,
            "weight_decay": 0.0,
        },
        "resnet50": {"epochs": 15, "batch_size": 20, "learning_rate": 0.05},
        "resnet101": {"epochs": 15, "batch_size": 20, "learning_rate": 0.05},
    },
    rho=0.1,
    sizes={
        "resnet18": {"width": 8, "depth": 1},
        "wrn-28-10": {"width": 1, "depth": 10},
        "pyramidnet-110": {"width": 24, "depth": 8},
        "resnet50": {**PHOTOGRAPHS, "blocks": (1, 1, 1, 1)},
        "resnet101": {**PHOTOGRAPHS, "blocks": (1, 1, 2, 1)},
    },
    stand_ins={
        "resnet50": "bottleneck_resnet",
        "resnet101": "bottleneck_resnet",
    },
    grid=(0.3, 0.6, 0.9),
    num_draws=10,
    num_points=15,
    image_size=64,
    num_jobs=2,
)
SCALES = {scale.name: scale for scale in (PAPER, SMALL)}
