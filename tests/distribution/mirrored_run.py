"""Trainings under `MirroredStrategy` on logical CPUs, for `test_mirrored`.

Usage: python -m tests.distribution.mirrored_run FILE PART [PART ...]

`FILE` gets the results as arrays, see the functions in `PARTS`.
"""

import functools
import sys

import keras
import numpy as np
import tensorflow as tf

import keras_esam
from tests import reference_run
from tests.distribution import references
from tests.networks import plan_with

NUM_DEVICES = 4
NUM_STEPS = 12
BATCH_SIZE = 8


def make_data(num_samples):
    case = reference_run.Case({}, num_samples=num_samples)
    return reference_run.make_data(case)[:2]


@functools.cache
def make_strategy(num_replicas):
    # Strategies of one process else take one another's collectives for theirs.
    tf.distribute.MirroredStrategy._collective_key_base = 1000 * num_replicas
    return tf.distribute.MirroredStrategy(
        [f"CPU:{index}" for index in range(num_replicas)]
    )


def make_devices(number):
    """Makes so many logical CPUs, before TensorFlow has used any."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * number
    )


def train_as_the_reference(name, num_replicas):
    """Initial weights, and those after training with a method."""
    with make_strategy(num_replicas).scope():
        model = references.make_model(name)
    before = model.get_weights()
    reference_run.fit(model, references.make_case(name))
    results = {}
    for when, weights in (("before", before), ("after", model.get_weights())):
        for index, value in enumerate(weights):
            results[f"{name}-{num_replicas}-{when}-{index}"] = value
    return results


def make_deep_model(strategy, **kwargs):
    """A compiled model with all kinds of state."""
    with strategy.scope():
        keras.utils.set_random_seed(2)
        network = keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(6, activation="relu"),
                keras.layers.BatchNormalization(),
                keras.layers.Dropout(0.2),
                keras.layers.Dense(3),
            ]
        )
        arguments = {"rho": 0.1, "seed": 5, **kwargs}
        model = keras_esam.ESAMModel(network, **arguments)
        model.preferred_pool_size = 2
        model.compile(
            keras.optimizers.Adam(0.01),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
    return model


def largest_difference(strategy, model):
    """Largest difference of two replicas' copies of a variable."""
    own = [*model.weights, *model.optimizer.variables]
    own += model._gradient_memory.variables
    differences = [0.0]
    for variable in own:
        first, *others = strategy.experimental_local_results(variable.value)
        for other in others:
            difference = first.numpy().astype(float) - other.numpy()
            differences.append(np.abs(difference).max())
    return max(differences)


def train_long(name, **kwargs):
    """Differences of the replicas after many steps."""
    strategy = make_strategy(2)
    model = make_deep_model(strategy, **kwargs)
    x, y = make_data(6 * BATCH_SIZE)
    model.fit(x, y, batch_size=BATCH_SIZE, epochs=NUM_STEPS // 6, verbose=0)
    return {
        f"{name}-difference": largest_difference(strategy, model),
        f"{name}-steps": model.optimizer.iterations.numpy(),
    }


def train_on_few_samples(name):
    """Logs if the last batch has fewer samples than there are replicas."""
    with make_strategy(4).scope():
        model = references.make_model(name)
    x, y = make_data(10)
    history = model.fit(x, y, batch_size=8, epochs=2, verbose=0)
    return {
        f"few-{name}-{key}": values for key, values in history.history.items()
    }


def logs_of_the_whole_batch():
    """The logs of one step on two replicas and on one device."""
    results = {}
    x, y = make_data(8)
    for name, strategy in (
        ("two", make_strategy(2)),
        ("one", tf.distribute.get_strategy()),
    ):
        with strategy.scope():
            model = references.make_model("global_sam")
            model.compile("sgd", model.loss, metrics=["accuracy"])
        history = model.fit(x, y, batch_size=8, verbose=0).history
        for key, values in history.items():
            results[f"{name}-{key}"] = values
    return results


def train_float8(name, **kwargs):
    """Differences of the replicas with float8 layers, and a history."""
    strategy = make_strategy(2)
    with strategy.scope():
        keras.utils.set_random_seed(1)
        network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        network.layers[0].quantize("float8")
        model = keras_esam.ESAMModel(network, rho=0.1, seed=1, **kwargs)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss)
    x, y = make_data(16)
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    history = network.layers[0].inputs_amax_history.numpy()
    return {
        f"{name}-difference": largest_difference(strategy, model),
        f"{name}-history": history[[0, -1]],
        f"{name}-largest": [np.abs(x[i : i + 8]).max() for i in (8, 0)],
    }


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


def communication(name, **kwargs):
    """Bytes and number of the reductions of a step, mean over the subsets."""
    strategy = make_strategy(2)
    with strategy.scope():
        network = keras.Sequential(
            [
                keras.Input((5,)),
                keras.layers.Dense(8),
                keras.layers.BatchNormalization(),
                keras.layers.Dense(3),
            ]
        )
        model = keras_esam.ESAMModel(network, seed=1, **kwargs)
        model.preferred_pool_size = 2
        model.compile(
            keras.optimizers.SGD(0.1, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            run_eagerly=True,
        )
        batch = np.ones((2, 5), "float32"), np.zeros(2, "int32")
        model.train_on_batch(*batch)
    sizes = []
    for index in range(model.num_subsets):
        step = functools.partial(model.train_step, plan=plan_with(model, index))
        function = tf.function(
            lambda step=step: strategy.run(
                step, args=(tuple(map(tf.constant, batch)),)
            ),
            autograph=False,
        )
        sizes.append(reductions(function.get_concrete_function().graph))
    return {
        f"{name}-bytes": np.mean([sum(size) for size in sizes]),
        f"{name}-number": np.mean([len(size) for size in sizes]),
    }


def loss_scale(optimizer):
    if not optimizer.built:
        return optimizer.initial_scale
    return optimizer.dynamic_scale.numpy()


def half_precision_overflow(name, num_steps_before=0, **kwargs):
    """Weights before and after a step in which one replica overflows."""
    keras.config.set_dtype_policy("mixed_float16")
    strategy = make_strategy(2)
    model = make_deep_model(strategy, **kwargs)
    keras.config.set_dtype_policy("float32")
    x, y = make_data(8)
    for _ in range(num_steps_before):
        model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    before, scale = model.get_weights(), loss_scale(model.optimizer)
    # Of the second replica.
    x[4:] *= 1e6
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    return {
        f"{name}-before": before[0],
        f"{name}-after": model.get_weights()[0],
        f"{name}-scale": loss_scale(model.optimizer) / scale,
        f"{name}-difference": largest_difference(strategy, model),
    }


# Methods whose reductions are counted.
COUNTED = {
    "SGD": {"rho": 0.0},
    "SAM": {"beta": 1, "gamma": 1},
    "SAM, global": {"beta": 1, "gamma": 1, "ascent_scope": "global"},
    "ESAM depth": {},
    "ESAM depth, global": {"ascent_scope": "global"},
    "one-step": {"beta": 1, "gamma": 1, "ascent": "previous"},
}

run = functools.partial
PARTS = {
    **{
        name: run(communication, name, **kwargs)
        for name, kwargs in COUNTED.items()
    },
    **{
        f"{name}-{num_replicas}": run(
            train_as_the_reference, name, num_replicas
        )
        for name, num_replicas in references.CASES
    },
    "esam": run(train_long, "esam"),
    "interval": run(train_long, "interval", interval=2),
    "one_step": run(train_long, "one_step", ascent="previous", gamma=1),
    "few-global_sds": run(train_on_few_samples, "global_sds"),
    "few-micro_batches": run(train_on_few_samples, "micro_batches"),
    "float8": run(train_float8, "float8", beta=1, gamma=1),
    "float8-interval": run(
        train_float8, "float8-interval", beta=1, gamma=1, interval=2
    ),
    "logs": logs_of_the_whole_batch,
    "sam-overflow": run(
        half_precision_overflow, "sam-overflow", beta=1, gamma=1
    ),
    "interval-overflow": run(
        half_precision_overflow,
        "interval-overflow",
        num_steps_before=1,
        beta=1,
        interval=2,
    ),
    "base-overflow": run(half_precision_overflow, "base-overflow", rho=0.0),
}


def main():
    make_devices(NUM_DEVICES)
    path, *names = sys.argv[1:]
    results = {}
    for name in names:
        results |= PARTS[name]()
    np.savez(path, **results)


if __name__ == "__main__":
    main()
