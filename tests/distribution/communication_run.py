"""What the replicas of a `tf.distribute` strategy send in a step, counted.

Usage: python -m tests.distribution.communication_run FILE

`FILE` gets, as JSON, a dict of method to the mean over the compiled steps of
the bytes and of the number of the reductions, see `reductions`. No metric is
reduced in a step: logs are combined after it.
"""

import json
import pathlib
import sys

import keras
import numpy as np
import tensorflow as tf

import keras_esam
from benchmarks import operations
from benchmarks.methods import METHODS
from tests.distribution.mirrored_run import make_devices
from tests.distribution.mirrored_run import make_strategy

COUNTED = {
    "SGD": METHODS["SGD"],
    "SAM": METHODS["SAM"],
    "SAM, global": {**METHODS["SAM"], "ascent_scope": "global"},
    "ESAM depth": METHODS["ESAM depth"],
    "ESAM depth, global": {**METHODS["ESAM depth"], "ascent_scope": "global"},
    "one-step": METHODS["one-step"],
}


def make_network():
    """A network of six variables and two statistics."""
    return keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(8),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(3),
        ]
    )


def trace(model, plan, x, y):
    """The graph of the step of a plan on all replicas."""
    train_step = operations.step_of(model, plan)

    def step():
        batch = tf.constant(x), tf.constant(y)
        return model.distribute_strategy.run(train_step, args=(batch,))

    function = tf.function(step, autograph=False)
    return function.get_concrete_function().graph


def reductions(graph):
    """List of the bytes that one replica puts into each reduction.

    They are all-reduces, of which `MirroredStrategy` emits one for all tensors
    that are reduced in one call, and the `AddN` of tensors of several devices,
    by which TensorFlow combines on CPUs what replicas assign to a variable.
    """
    ops = graph.get_operations()
    collective = [op for op in ops if op.type.startswith("Collective")]
    # Each replica has an operation of its own for the same all-reduce.
    first = min((op.device for op in collective), default=None)
    own = [op for op in collective if op.device == first]
    own += [
        op
        for op in ops
        if op.type == "AddN" and len({t.op.device for t in op.inputs}) > 1
    ]
    sent = [op.inputs[0] for op in own]
    return [t.shape.num_elements() * t.dtype.size for t in sent]


def main():
    make_devices(2)
    x, y = np.ones((2, 5), "float32"), np.zeros(2, "int32")
    counted = {}
    with make_strategy(2).scope():
        for method, kwargs in COUNTED.items():
            model = keras_esam.ESAMModel(make_network(), seed=1, **kwargs)
            model.compile(
                keras.optimizers.SGD(0.1, momentum=0.9),
                keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                metrics=["accuracy"],
            )
            plans = operations.plans_of_a_round(model, x, y)
            sizes = [
                reductions(trace(model, plan, x, y))
                for plan in plans.elements()
            ]
            counted[method] = [
                np.mean([sum(size) for size in sizes]),
                np.mean([len(size) for size in sizes]),
            ]
    pathlib.Path(sys.argv[1]).write_text(json.dumps(counted))


if __name__ == "__main__":
    main()
