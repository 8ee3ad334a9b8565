"""Images of the experiments."""

import dataclasses
import functools
import pathlib

import numpy as np

from keras_esam import data
from keras_esam.data.class_folders import class_folders
from keras_esam.experiments.scales import Scale
from keras_esam.recipes import NUM_CLASSES
from keras_esam.recipes import Recipe

PROBE_SIZE = 128
TEST_BATCH = 500


class Images:
    """The data sets of recipes, as large as a scale says.

    Args:
        scale: `Scale`.
        data_dir: Optional string, folder of tensorflow-datasets.
        photographs: Optional string, tree of class folders instead of ImageNet.
    """

    def __init__(
        self,
        scale: Scale,
        data_dir: str | None = None,
        photographs: str | None = None,
    ):
        self.scale = scale
        self.data_dir = data_dir
        self.photographs = photographs

    def training(self, recipe: Recipe, seed: int, epoch=None):
        """Data set of training batches, as `epoch` says in its order."""
        changes = {
            "num_samples": self.num_samples(recipe),
            "augment": self.scale.augment,
            "seed": seed,
            "epoch": epoch,
        }
        if recipe.dataset == "imagenet":
            return self._imagenet("train", recipe.batch_size, **changes)
        return data.cifar(
            split="train",
            data_dir=self.data_dir,
            **recipe.pipeline,
            **changes,
        )

    def test(self, recipe: Recipe):
        """Data set of test batches."""
        if recipe.dataset == "imagenet":
            return self._imagenet("val", recipe.batch_size)
        return data.cifar(
            recipe.dataset, "test", TEST_BATCH, data_dir=self.data_dir
        )

    def probe(self, recipe: Recipe):
        """A fixed batch of training samples, as arrays `(x, y)`."""
        size = min(PROBE_SIZE, self.num_samples(recipe) or PROBE_SIZE)
        few = dataclasses.replace(recipe, batch_size=size)
        batch = next(iter(self.training(few, seed=0)))
        return tuple(tensor.numpy() for tensor in batch)

    def num_classes(self, recipe: Recipe) -> int:
        """Of photographs as many as there are class folders."""
        names = self.class_names(recipe)
        return NUM_CLASSES[recipe.dataset] if names is None else len(names)

    def num_samples(self, recipe: Recipe) -> int | None:
        """Number of training samples, `None` if all.

        Of photographs as many as the scale says at most, and equally many of
        each class.

        Raises:
            ValueError: If there are more classes of photographs than that.
        """
        count = self.scale.num_samples.get(recipe.dataset)
        is_tree = recipe.dataset == "imagenet" and self.photographs is not None
        if count is None or not is_tree:
            return count
        num_classes = self.num_classes(recipe)
        if num_classes > count:
            raise ValueError(
                f"`--photographs` must have at most {count} class folders, as "
                f"the scale {self.scale.name!r} takes {count} images. "
                f"Received: {self.photographs} with {num_classes}"
            )
        return num_classes * min(count // num_classes, self._smallest_class)

    def source(self, recipe: Recipe) -> str:
        """Which images they are."""
        if recipe.dataset != "imagenet":
            return recipe.dataset
        folder = self.photographs
        source = "imagenet"
        if folder is not None:
            source = pathlib.Path(folder).resolve().name
        return f"{source}, {self.scale.image_size} pixels"

    def class_names(self, recipe: Recipe) -> list[str] | None:
        """Those of photographs, `None` for the data sets with a name."""
        if recipe.dataset != "imagenet" or self.photographs is None:
            return None
        return data.class_names(self.photographs)

    @functools.cached_property
    def _smallest_class(self):
        _, labels = class_folders(self.photographs, "train")
        return int(np.bincount(labels).min())

    def _imagenet(self, split, batch_size, **changes):
        return data.imagenet(
            split,
            batch_size,
            data_dir=self.data_dir if self.photographs is None else None,
            folder=self.photographs,
            image_size=self.scale.image_size,
            **changes,
        )
