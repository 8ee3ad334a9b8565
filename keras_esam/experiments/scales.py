"""How large the runs of an experiment are."""

import dataclasses
from collections.abc import Mapping

from keras_esam import recipes


@dataclasses.dataclass(frozen=True)
class Scale:
    """What a scale changes in the recipes of the paper.

    Args:
        name: String.
        datasets: Tuple of the names of the data sets of Tables 1 and 3.
        num_samples: Integer, number of training samples, or `None` for all.
        seeds: Tuple of integers.
        changes: Mapping of data set to a mapping of other values for
            `keras_esam.recipes.Recipe`.
        rho: Optional float, instead of that of the recipes with one.
        sizes: Mapping of network to the sizes for its function in
            `keras_esam.models`.
        grid: Tuple of the values of `beta` and of `gamma` in Figure 3.
        num_draws: Integer, number of loss landscapes that are averaged.
        num_points: Integer, number of points along an axis of a landscape.
        image_size: Integer, side of the images of ImageNet.
    """

    name: str
    datasets: tuple
    num_samples: int | None
    seeds: tuple
    changes: Mapping
    rho: float | None
    sizes: Mapping
    grid: tuple
    num_draws: int
    num_points: int
    image_size: int

    def recipe(self, name: str) -> recipes.Recipe:
        """The recipe of a name at this scale."""
        recipe = recipes.get(name)
        esam = dict(recipe.esam)
        if self.rho is not None and recipe.method not in ("sgd", "asam"):
            esam["rho"] = self.rho
        changes = self.changes.get(recipe.dataset, {})
        return dataclasses.replace(recipe, **changes, esam=esam)


PAPER = Scale(
    name="paper",
    datasets=("cifar10", "cifar100"),
    num_samples=None,
    seeds=(0, 1, 2),
    changes={},
    rho=None,
    sizes={},
    grid=(0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    num_draws=10,
    num_points=41,
    image_size=224,
)
# For two cores.
SMALL = Scale(
    name="small",
    datasets=("cifar10",),
    num_samples=1000,
    seeds=(0, 1, 2),
    changes={
        "cifar10": {"epochs": 30, "batch_size": 50, "learning_rate": 0.05},
        "imagenet": {"epochs": 5, "batch_size": 50, "learning_rate": 0.02},
    },
    rho=0.2,
    sizes={
        "resnet18": {"width": 8, "depth": 1},
        "wrn-28-10": {"width": 1, "depth": 10},
        "pyramidnet-110": {"width": 24, "depth": 8},
        "resnet50": {"input_shape": (64, 64, 3), "num_classes": 10},
        "resnet101": {"input_shape": (64, 64, 3), "num_classes": 10},
    },
    grid=(0.3, 0.6, 0.9),
    num_draws=10,
    num_points=15,
    image_size=64,
)
SCALES = {scale.name: scale for scale in (PAPER, SMALL)}
