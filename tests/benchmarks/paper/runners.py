"""A scale at which a training takes seconds."""

import dataclasses

from benchmarks.paper.runs import Images
from benchmarks.paper.runs import Runner
from benchmarks.paper.scales import SMALL
from tests.examples.runs import make_small_network

TINY = dataclasses.replace(
    SMALL,
    name="tiny",
    num_samples={"cifar10": 20},
    seeds=(0, 1),
    changes={
        "resnet18": {"epochs": 2, "batch_size": 4},
        "resnet50": {"epochs": 1, "batch_size": 4},
    },
    sizes={"resnet18": {"num_classes": 10}},
    stand_ins={"resnet18": make_small_network, "resnet50": make_small_network},
    grid=(0.5,),
    num_draws=1,
    num_points=3,
    image_size=32,
)


def make_runner(
    folder,
    data_dir=None,
    photographs=None,
    num_jobs=1,
    precision="float32",
    **changes,
):
    """A runner at this scale with changes."""
    scale = dataclasses.replace(TINY, **changes)
    images = Images(scale, data_dir, photographs)
    return Runner(scale, folder, images, num_jobs, precision)
