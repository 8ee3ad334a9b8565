"""Images of the paper's data sets, in the number that a scale sets."""

import dataclasses
import pathlib

import numpy as np

from benchmarks.paper.scales import Scale
from keras_esam import data
from keras_esam.data.class_folders import class_folders
from keras_esam.recipes import NUM_CLASSES
from keras_esam.recipes import Recipe

PROBE_SIZE = 128
TEST_BATCH = 500


@dataclasses.dataclass(frozen=True)
class Images:
    """The data sets of recipes, in the size that a scale sets."""

    scale: Scale
    data_dir: str | None = None  # of tensorflow-datasets
    photographs: str | None = None  # tree of class folders instead of ImageNet

    def training(self, recipe: Recipe, seed: int, epoch=None):
        """Data set of training batches, in the order of `epoch`."""
        changes = {"seed": seed, "epoch": epoch, "augment": self.scale.augment}
        changes["num_samples"] = self.num_samples(recipe)
        return self._batches(recipe, "train", recipe.batch_size, **changes)

    def test(self, recipe: Recipe):
        """Data set of test batches."""
        split = "val" if recipe.dataset == "imagenet" else "test"
        return self._batches(recipe, split, TEST_BATCH)

    def _batches(self, recipe, split, size, **changes):
        if self._is_tree(recipe):
            changes["folder"] = self.photographs
        else:
            changes["data_dir"] = self.data_dir
        if recipe.dataset == "imagenet":
            changes["image_size"] = self.scale.image_size
            return data.imagenet(split, size, **changes)
        return data.cifar(recipe.dataset, split, size, **changes)

    def probe(self, recipe: Recipe):
        """A fixed batch of training samples, as arrays `(x, y)`."""
        size = min(PROBE_SIZE, self.num_samples(recipe) or PROBE_SIZE)
        few = dataclasses.replace(recipe, batch_size=size)
        batch = next(iter(self.training(few, seed=0)))
        return tuple(tensor.numpy() for tensor in batch)

    def num_samples(self, recipe: Recipe) -> int | None:
        """Number of training samples, class-balanced; `None` for all."""
        count = self.scale.num_samples.get(recipe.dataset)
        if count is None or not self._is_tree(recipe):
            return count
        sizes = np.bincount(class_folders(self.photographs, "train")[1])
        if len(sizes) > count:
            raise ValueError(
                f"`--photographs` must have at most {count} class folders, as "
                f"the scale {self.scale.name!r} takes {count} images. "
                f"Received: {self.photographs} with {len(sizes)}"
            )
        return len(sizes) * min(count // len(sizes), int(sizes.min()))

    def num_classes(self, recipe: Recipe) -> int:
        names = self.class_names(recipe)
        return len(names) if names else NUM_CLASSES[recipe.dataset]

    def class_names(self, recipe: Recipe) -> list[str] | None:
        """Class names of class folders, `None` for the named data sets."""
        is_tree = self._is_tree(recipe)
        return data.class_names(self.photographs) if is_tree else None

    def source(self, recipe: Recipe) -> str:
        """Describes the images."""
        if recipe.dataset != "imagenet":
            return recipe.dataset
        folder = pathlib.Path(self.photographs or "imagenet")
        return f"{folder.resolve().name}, {self.scale.image_size} pixels"

    def _is_tree(self, recipe):
        return recipe.dataset == "imagenet" and self.photographs is not None
