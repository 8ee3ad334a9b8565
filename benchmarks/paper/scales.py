"""Sizes of the trainings of the tables and figures."""

import dataclasses
from collections.abc import Mapping

from keras_esam import models
from keras_esam import recipes


@dataclasses.dataclass(frozen=True)
class Scale:
    """Changes to the recipes of the paper."""

    name: str
    datasets: tuple  # of Table 1
    image_size: int  # side of the images of ImageNet
    num_jobs: int  # trainings at a time on a CPU
    grid: tuple  # values of `beta` and of `gamma` in Figure 3
    num_points: int  # along an axis of a loss landscape
    num_draws: int = 10  # loss landscapes that are averaged
    seeds: tuple = (0, 1, 2)
    augment: bool = True  # training images
    rho: float | None = None  # of all recipes with one but ASAM's
    # Number of training samples by data set, if not all.
    num_samples: Mapping = dataclasses.field(default_factory=dict)
    # By network: other values of the recipe, arguments of the network's
    # function in `keras_esam.models`, and another such function.
    changes: Mapping = dataclasses.field(default_factory=dict)
    sizes: Mapping = dataclasses.field(default_factory=dict)
    stand_ins: Mapping = dataclasses.field(default_factory=dict)

    def recipe(self, name: str) -> recipes.Recipe:
        """The recipe of a name at this scale."""
        recipe = recipes.get(name)
        esam = dict(recipe.esam)
        if self.rho is not None and recipe.method not in ("sgd", "asam"):
            esam["rho"] = self.rho
        changes = self.changes.get(recipe.network, {})
        recipe = dataclasses.replace(recipe, **changes, esam=esam)
        # Such a batch is a single micro-batch anyway.
        if recipe.batch_size <= esam.get("micro_batch_size", 0):
            del esam["micro_batch_size"]
        return recipe


PAPER = Scale(
    name="paper",
    datasets=("cifar10", "cifar100"),
    image_size=224,
    num_jobs=1,
    grid=(0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    num_points=41,
)
_IMAGENET = {"epochs": 15, "batch_size": 20, "learning_rate": 0.05}
_IMAGES = {"input_shape": (64, 64, 3), "width": 16}
# For two cores: enough that SGD fits its training set, and no augmentation,
# which would delay that.
SMALL = Scale(
    name="small",
    datasets=("cifar10",),
    image_size=64,
    num_jobs=2,
    grid=(0.3, 0.6, 0.9),
    num_points=15,
    augment=False,
    rho=0.1,
    num_samples={"cifar10": 1000, "imagenet": 400},
    changes={
        "resnet18": {"epochs": 20, "batch_size": 50, "learning_rate": 0.05},
        "wrn-28-10": {"epochs": 25, "batch_size": 50, "learning_rate": 0.1},
        "pyramidnet-110": {
            **{"epochs": 36, "batch_size": 50, "learning_rate": 0.07},
            "weight_decay": 0.0,
        },
        "resnet50": _IMAGENET,
        "resnet101": _IMAGENET,
    },
    sizes={
        "resnet18": {"width": 8, "depth": 1},
        "wrn-28-10": {"width": 1, "depth": 10},
        "pyramidnet-110": {"width": 24, "depth": 8},
        "resnet50": {**_IMAGES, "blocks": (1, 1, 1, 1)},
        "resnet101": {**_IMAGES, "blocks": (1, 1, 2, 1)},
    },
    stand_ins={
        "resnet50": models.bottleneck_resnet,
        "resnet101": models.bottleneck_resnet,
    },
)
SCALES = {scale.name: scale for scale in (PAPER, SMALL)}
