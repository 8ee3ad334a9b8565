"""What the replicas of a `tf.distribute` strategy send in a step, counted.

Command:   python -m benchmarks.communication    (2 cores: about 2 minutes)
Result:    a table; runs/communication/results.json and results.md
Expected:  with `ascent_scope="replica"` SAM and ESAM reduce the gradients of
           SGD and no more, beside BatchNormalization's statistics; with
           `"global"` SAM those twice, ESAM those of a subset more

Counted are the operations of the traced step of two replicas that combine
tensors of different devices, and the bytes of what one replica puts into each:

- `CollectiveReduceV2`, an all-reduce. `MirroredStrategy` emits one for all
  tensors that are reduced in one call, on logical CPUs too.
- `AddN` of tensors of several devices. This is how TensorFlow combines, on
  CPUs, what the replicas assign to one variable. On GPUs, by its code, it is an
  all-reduce for each variable, of as many bytes.

No metric is reduced in a step: logs are combined after it.
"""

import argparse
import pathlib

import tensorflow as tf

from benchmarks import measurement
from benchmarks import operations
from benchmarks import report
from benchmarks.measurement import Setting
from benchmarks.networks import NETWORKS
from benchmarks.networks import default_sizes

# Method of `benchmarks.methods`, and what is added to its arguments.
METHODS = {
    "SGD": ("SGD", {}),
    "SAM": ("SAM", {}),
    "SAM, global": ("SAM", {"ascent_scope": "global"}),
    "ESAM depth": ("ESAM depth", {}),
    "ESAM depth, global": ("ESAM depth", {"ascent_scope": "global"}),
    "one-step": ("one-step", {}),
}


def make_strategy():
    """`MirroredStrategy` of two logical CPUs, before TensorFlow used any."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 2
    )
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def per_step(model, x, y):
    """Bytes and number of the reductions of a training step.

    Args:
        model: Compiled `ESAMModel` under a strategy of several replicas. It is
            trained for a round of its subsets.
        x: Inputs of one replica, shape `(batch_size, d0, .. dN)`.
        y: Targets of one replica, shape `(batch_size, d0, .. dN)`.

    Returns:
        Tuple of the bytes and the number, means over the round.
    """
    num_bytes = number = 0
    plans = operations.plans_of_a_round(model, x, y)
    for plan, count in plans.items():
        sizes = reductions(trace(model, plan, x, y))
        num_bytes += count * sum(sizes)
        number += count * len(sizes)
    return num_bytes / plans.total(), number / plans.total()


def trace(model, plan, x, y):
    """The graph of the step of a plan on all replicas."""
    train_step = operations.step_of(model, plan)

    def step():
        batch = tf.constant(x), tf.constant(y)
        return model.distribute_strategy.run(train_step, args=(batch,))

    function = tf.function(step, autograph=False)
    return function.get_concrete_function().graph


def reductions(graph):
    """List of the bytes of each reduction in a graph from `trace`."""
    ops = graph.get_operations()
    collective = [op for op in ops if op.type.startswith("Collective")]
    # Each replica has an operation of its own for the same all-reduce.
    first = min((op.device for op in collective), default=None)
    own = [op for op in collective if op.device == first]
    own += [op for op in ops if op.type == "AddN" and _is_across_devices(op)]
    sent = [op.inputs[0] for op in own]
    return [t.shape.num_elements() * t.dtype.size for t in sent]


def _is_across_devices(op):
    return len({tensor.op.device for tensor in op.inputs}) > 1


def count(network, sizes):
    """List of dicts of the methods, with two samples on each replica."""
    setting = Setting(
        network,
        **sizes,
        batch_size=2,
        steps=1,
        xla=False,
        precision="float32",
    )
    rows = []
    for method, (name, kwargs) in METHODS.items():
        model = measurement.make_model(name, setting, **kwargs)
        sent = per_step(model, *measurement.make_batch(setting.batch_size))
        rows.append({"method": method, "bytes": sent[0], "reductions": sent[1]})
        measurement.progress(f"counted {method} on {network}")
    return rows


def as_table(rows):
    table = report.frame(rows)
    table["KiB"] = table["bytes"] / 1024
    table["bytes / SGD's"] = table["bytes"] / table["bytes"].iloc[0]
    return table.drop(columns="bytes")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    option = parser.add_argument
    networks = ["mlp", "wide_resnet"]
    option("--networks", nargs="+", choices=NETWORKS, default=networks)
    option("--width", type=measurement.positive)
    option("--depth", type=measurement.positive)
    default = pathlib.Path("runs/communication")
    option("--out", type=pathlib.Path, default=default)
    arguments = parser.parse_args(arguments)
    counts = {}
    with make_strategy().scope():
        for network in arguments.networks:
            given = {"width": arguments.width, "depth": arguments.depth}
            given = {key: size for key, size in given.items() if size}
            sizes = default_sizes(network) | given
            title = "{}, width {width}, depth {depth}".format(network, **sizes)
            counts[title] = count(network, sizes)
    tables = {title: as_table(rows) for title, rows in counts.items()}
    print(report.write(arguments.out / "results", tables, counts))


if __name__ == "__main__":
    main()
