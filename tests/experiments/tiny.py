"""A scale at which a training takes seconds."""

import dataclasses

from keras_esam import recipes
from keras_esam.experiments.runs import Runner
from keras_esam.experiments.scales import SMALL
from keras_esam.experiments.scales import Scale
from tests.examples.runs import make_small_network

SIZES = {
    "resnet18": {"width": 2, "depth": 1},
    "wrn-28-10": {"width": 1, "depth": 10},
    "pyramidnet-110": {"width": 6, "depth": 8},
}


class TinyScale(Scale):
    """Of networks that compile soon, instead of those that it names."""

    def make_network(self, recipe, width=None, depth=None, **sizes):
        num_classes = recipes.NUM_CLASSES[recipe.dataset]
        return make_small_network(**{"num_classes": num_classes, **sizes})


CHANGES = {
    "name": "tiny",
    "num_samples": {"cifar10": 40},
    "seeds": (0, 1),
    "changes": {
        "resnet18": {"epochs": 2, "batch_size": 4},
        "resnet50": {"epochs": 1, "batch_size": 4},
    },
    "sizes": SIZES,
    "stand_ins": {},
    "grid": (0.5,),
    "num_draws": 1,
    "num_points": 3,
    "image_size": 32,
    "num_jobs": 1,
}
TINY = TinyScale(**(vars(SMALL) | CHANGES))


def make_runner(data_dir, folder, num_jobs=1, **changes):
    scale = dataclasses.replace(TINY, **changes)
    runner = Runner(scale, folder, data_dir, num_jobs=num_jobs)
    runner.folder.mkdir(parents=True, exist_ok=True)
    return runner
