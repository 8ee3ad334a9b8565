"""What two replicas on logical CPUs send, for `benchmarks.test_scaling`.

Usage: python -m tests.distribution.communication_run FILE

`FILE` gets, as JSON, a dict of method to what `communication.per_step` returns.
"""

import json
import pathlib
import sys

import keras
import numpy as np

import keras_esam
from benchmarks import communication
from benchmarks import methods
from benchmarks import scaling


def make_model(**kwargs):
    """A compiled model of six variables on two replicas."""
    with scaling.make_strategy(2).scope():
        network = keras.Sequential(
            [
                keras.Input((5,)),
                keras.layers.Dense(8),
                keras.layers.BatchNormalization(),
                keras.layers.Dense(3),
            ]
        )
        model = keras_esam.ESAMModel(network, seed=1, **kwargs)
        model.compile(
            keras.optimizers.SGD(0.1, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
    return model


def main():
    scaling.make_devices(2)
    x, y = np.ones((2, 5), "float32"), np.zeros(2, "int32")
    counted = {}
    for method, (name, kwargs) in scaling.METHODS.items():
        model = make_model(**methods.METHODS[name], **kwargs)
        communication.build(model, x, y)
        counted[method] = communication.per_step(model, x, y)
    pathlib.Path(sys.argv[1]).write_text(json.dumps(counted))


if __name__ == "__main__":
    main()
