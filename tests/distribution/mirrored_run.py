"""Trainings under `MirroredStrategy` on logical CPUs, and what must hold.

Usage: python -m tests.distribution.mirrored_run PART [PART ...]

Raises an error if one of the `PARTS` is not as it must be.
"""

import functools
import sys

import keras
import numpy as np
import tensorflow as tf

from tests import reference_run
from tests.networks import esam
from tests.networks import plan_with

NUM_DEVICES = 4
SAM = {"beta": 1, "gamma": 1}
# Compared with the steps by hand in NumPy.
METHODS = {
    "sam": SAM,
    "esam": {},
    "esam_variable": {"granularity": "variable", "rank_by": "loss"},
    "micro_batches": {"beta": 1, "micro_batch_size": 4},
    "global_sam": {**SAM, "ascent_scope": "global"},
    "global_sds": {"beta": 1, "ascent_scope": "global"},
    "one_step": {"ascent": "momentum", "gamma": 1},
    "part": {**SAM, "ascent_fraction": 0.25},
}


@functools.cache
def make_strategy(num_replicas):
    # Strategies of one process else take one another's collectives for theirs.
    tf.distribute.MirroredStrategy._collective_key_base = 1000 * num_replicas
    return tf.distribute.MirroredStrategy(
        [f"CPU:{index}" for index in range(num_replicas)]
    )


def make_data(num_samples):
    case = reference_run.Case({}, num_samples=num_samples)
    return reference_run.make_data(case)[:2]


def make_case(name):
    arguments = {"rho": 0.3, "seed": 5, **METHODS[name]}
    return reference_run.Case(
        arguments, num_samples=80, batch_size=16, run_eagerly=False
    )


def make_reference_model(name):
    model = reference_run.make_model(make_case(name))
    # To compile each subset for all replicas takes long.
    model._preferred_pool_size = 2
    return model


def weights_by_hand(name, num_replicas, params):
    """Parameters after the training in NumPy, from the given ones."""
    params = [p.astype("float64") for p in params]
    return reference_run.reference_weights(
        make_reference_model(name),
        make_case(name),
        params,
        num_replicas=num_replicas,
    )


def check_reference(name, num_replicas):
    with make_strategy(num_replicas).scope():
        model = make_reference_model(name)
    before = model.get_weights()
    reference_run.fit(model, make_case(name))
    expected = weights_by_hand(name, num_replicas, before)
    for value, other, initial in zip(
        model.get_weights(), expected, before, strict=True
    ):
        np.testing.assert_allclose(value, other, rtol=0, atol=1e-5)
        assert np.abs(value - initial).max() > 0.01


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
        model = esam(network, **arguments)
        model._preferred_pool_size = 2
        model.compile(
            keras.optimizers.Adam(0.01),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
    return model


def assert_copies_are_equal(strategy, model):
    """Those of each variable that the replicas have."""
    own = [*model.weights, *model.optimizer.variables]
    for variable in own:
        first, *others = strategy.experimental_local_results(variable.value)
        for other in others:
            np.testing.assert_array_equal(first, other)


def check_copies(**kwargs):
    strategy = make_strategy(2)
    model = make_deep_model(strategy, **kwargs)
    model.fit(*make_data(48), batch_size=8, epochs=2, verbose=0)
    assert model.optimizer.iterations.numpy() == 12
    assert_copies_are_equal(strategy, model)


def check_few_samples(name):
    """Fewer than replicas in the last batch."""
    with make_strategy(4).scope():
        model = make_reference_model(name)
    logs = model.fit(*make_data(10), batch_size=8, epochs=2, verbose=0).history
    assert np.isfinite([logs["loss"], logs["sharpness"]]).all()


def check_logs_are_those_of_one_device():
    logs = []
    for strategy in (make_strategy(2), tf.distribute.get_strategy()):
        with strategy.scope():
            model = make_reference_model("global_sam")
            model.compile("sgd", model.loss, metrics=["accuracy"])
        history = model.fit(*make_data(8), batch_size=8, verbose=0).history
        logs.append([history[k] for k in ("loss", "accuracy", "sharpness")])
    np.testing.assert_allclose(*logs, rtol=1e-5)


def check_float8(**kwargs):
    """The largest values are those of all replicas."""
    strategy = make_strategy(2)
    with strategy.scope():
        keras.utils.set_random_seed(1)
        network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        network.layers[0].quantize("float8")
        model = esam(network, rho=0.1, seed=1, **kwargs)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss)
    x, y = make_data(16)
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    history = network.layers[0].inputs_amax_history.numpy()
    largest = [np.abs(x[i : i + 8]).max() for i in (8, 0)]
    np.testing.assert_allclose(history[[0, -1]], largest, rtol=1e-6)
    assert_copies_are_equal(strategy, model)


def check_overflow(**kwargs):
    """On one replica it skips the step on all."""
    keras.config.set_dtype_policy("mixed_float16")
    strategy = make_strategy(2)
    model = make_deep_model(strategy, **kwargs)
    keras.config.set_dtype_policy("float32")
    with strategy.scope():
        model.optimizer.build(model.trainable_variables)
    x, y = make_data(8)
    before, scale = model.get_weights(), model.optimizer.dynamic_scale.numpy()
    # Of the second replica.
    x[4:] *= 1e6
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    np.testing.assert_array_equal(model.get_weights()[0], before[0])
    assert model.optimizer.dynamic_scale.numpy() == scale / 2
    # The base optimizer alone trains as plain Keras, whose copies of
    # BatchNormalization's statistics differ.
    if model.rho > 0:
        assert_copies_are_equal(strategy, model)


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


def check_reductions(num_bytes, number, **kwargs):
    """Of a step, mean over the subsets."""
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
        model = esam(network, seed=1, **kwargs)
        model._preferred_pool_size = 2
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
    assert np.mean([sum(size) for size in sizes]) == num_bytes
    assert np.mean([len(size) for size in sizes]) == number


# Kernel, bias, scale, offset, kernel and bias, in float32.
VARIABLES = [4 * n for n in (5 * 8, 8, 8, 8, 8 * 3, 3)]
GRADIENT = sum(VARIABLES)
# The subsets have the last variable, or all.
SUBSET = (VARIABLES[-1] + GRADIENT) // 2
STATISTICS = 2 * 4 * 8
BASE = GRADIENT + STATISTICS

GLOBAL = {"ascent_scope": "global"}
PARTS = {
    **{
        f"{name}-2": functools.partial(check_reference, name, 2)
        for name in METHODS
    },
    "global_sam-4": lambda: check_reference("global_sam", 4),
    "esam": check_copies,
    "start": lambda: check_copies(start=3),
    "one_step": lambda: check_copies(ascent="momentum", gamma=1),
    "few-global_sds": lambda: check_few_samples("global_sds"),
    "few-micro_batches": lambda: check_few_samples("micro_batches"),
    "float8": lambda: check_float8(**SAM),
    "float8-start": lambda: check_float8(start=1, **SAM),
    "logs": check_logs_are_those_of_one_device,
    "sam-overflow": lambda: check_overflow(**SAM),
    "start-overflow": lambda: check_overflow(beta=1, start=9),
    "base-overflow": lambda: check_overflow(rho=0.0),
    "sent-SGD": lambda: check_reductions(GRADIENT, 1, rho=0.0),
    "sent-SAM": lambda: check_reductions(BASE, 2, **SAM),
    "sent-SAM-global": lambda: check_reductions(
        BASE + GRADIENT, 3, **SAM, **GLOBAL
    ),
    "sent-ESAM": lambda: check_reductions(BASE, 2),
    "sent-ESAM-global": lambda: check_reductions(BASE + SUBSET, 3, **GLOBAL),
    "sent-one-step": lambda: check_reductions(
        BASE, 2, ascent="momentum", **SAM
    ),
    # A scalar, the alignment.
    "sent-part": lambda: check_reductions(
        BASE + 4, 2, ascent_fraction=0.5, **SAM
    ),
    "sent-part-global": lambda: check_reductions(
        BASE + 2 * GRADIENT + 4, 4, ascent_fraction=0.5, **SAM, **GLOBAL
    ),
}


def main():
    # Before TensorFlow has used any.
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * NUM_DEVICES
    )
    for name in sys.argv[1:]:
        print(name)
        PARTS[name]()


if __name__ == "__main__":
    main()
