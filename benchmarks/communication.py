"""What the replicas of a `tf.distribute` strategy send in a step, counted.

Counted are the operations of the traced step that combine tensors of different
devices, and the bytes of what one replica puts into each:

- `CollectiveReduceV2`, an all-reduce. `MirroredStrategy` emits one for all
  tensors that are reduced in one call, on logical CPUs too.
- `AddN` of tensors of several devices. This is how TensorFlow combines, on
  CPUs, what the replicas assign to one variable. On GPUs, by its code, it is an
  all-reduce for each variable, of as many bytes.

The graph is that of the replicas' step within `strategy.run()`. No metric is
reduced in it: logs are combined after the step. For what a reduction is, the
functions that ask for one are traced in name scopes, which the operations keep;
one that none of them asked for counts too, as `OTHER`.
"""

import collections
import contextlib
from unittest import mock

import keras
import tensorflow as tf

from benchmarks import operations
from keras_esam import ESAMModel
from keras_esam.trainers import tensorflow_replicas

# The gradient that the optimizer applies, that of the ascent
# (`ascent_scope="global"`), that which one-step ESAM keeps, and
# BatchNormalization's statistics.
UPDATE, ASCENT, KEPT = "update", "ascent", "kept"
STATISTICS, OTHER = "statistics", "other"
GRADIENTS = (UPDATE, ASCENT, KEPT)
PURPOSES = (*GRADIENTS, STATISTICS, OTHER)
ASKING = {
    UPDATE: (keras.optimizers.Optimizer, "apply"),
    ASCENT: (tensorflow_replicas, "summed"),
    KEPT: (ESAMModel, "_keep"),
    STATISTICS: (tensorflow_replicas, "averaged"),
}


def build(model, x, y):
    """Creates all variables of a compiled `ESAMModel`, without a step.

    Args:
        model: Compiled `ESAMModel`.
        x: Inputs, shape `(batch_size, d0, .. dN)`.
        y: Targets, shape `(batch_size, d0, .. dN)`.
    """
    model.make_train_function()
    model.train_function._build(iter([(x, y)]))


def per_step(model, x, y):
    """Bytes and number of the reductions of a training step.

    Args:
        model: Compiled `ESAMModel` under a strategy of several replicas, built
            by a step or by `build`.
        x: Inputs of one replica, shape `(batch_size, d0, .. dN)`.
        y: Targets of one replica, shape `(batch_size, d0, .. dN)`.

    Returns:
        Dict of purpose to a dict of `bytes` and `reductions`, means over the
        compiled steps; none for a purpose without a reduction.
    """
    totals = {}
    for share, plan in operations.step_plans(model):
        for purpose, num_bytes in reductions(trace(model, plan, x, y)):
            total = totals.setdefault(purpose, collections.Counter())
            total["bytes"] += share * num_bytes
            total["reductions"] += share
    return {purpose: dict(total) for purpose, total in totals.items()}


def gradient_bytes(counted):
    """Bytes of all gradients in what `per_step` returns."""
    return sum(counted[p]["bytes"] for p in GRADIENTS if p in counted)


def trace(model, plan, x, y):
    """The graph of the step of a plan on all replicas."""
    strategy = model.distribute_strategy
    model._traced_plan = plan

    def step():
        batch = tf.constant(x), tf.constant(y)
        return strategy.run(model.train_step, args=(batch,))

    try:
        with contextlib.ExitStack() as stack:
            for purpose, (owner, name) in ASKING.items():
                scoped = _in_name_scope(f"{purpose}_of", getattr(owner, name))
                stack.enter_context(mock.patch.object(owner, name, scoped))
            function = tf.function(step, autograph=False)
            return function.get_concrete_function().graph
    finally:
        model._traced_plan = None


def _in_name_scope(scope, function):
    def scoped(*args, **kwargs):
        with tf.name_scope(scope):
            return function(*args, **kwargs)

    return scoped


def reductions(graph):
    """The reductions of one step: list of pairs of purpose and bytes.

    Args:
        graph: `tf.Graph` from `trace`.
    """
    ops = graph.get_operations()
    collective = [op for op in ops if op.type.startswith("Collective")]
    # Each replica has an operation of its own for the same all-reduce.
    first = min((op.device for op in collective), default=None)
    own = [op for op in collective if op.device == first]
    own += [op for op in ops if op.type == "AddN" and _is_across_devices(op)]
    return [(_purpose(op), _size(op.inputs[0])) for op in own]


def _is_across_devices(op):
    return len({tensor.op.device for tensor in op.inputs}) > 1


def _purpose(op):
    # The outermost one; TensorFlow makes names unique by numbers.
    for scope in op.name.split("/"):
        for purpose in ASKING:
            if scope.startswith(f"{purpose}_of"):
                return purpose
    return OTHER


def _size(tensor):
    return tensor.shape.num_elements() * tensor.dtype.size
