"""Step time against the number of replicas, and what they send one another.

Command:   python -m benchmarks.scaling           (2 cores: about 6 minutes)
           python -m benchmarks.scaling --quick   (half a minute)
Result:    tables; runs/scaling/results.json and table.md
Expected:  with `ascent_scope="replica"` the replicas reduce the gradients of
           SGD and no more; with `"global"` SAM those twice, ESAM those of a
           subset more

The replicas of `MirroredStrategy` are logical CPUs of one processor here: they
share its cores and memory, so that the times show what the copies, sums and
operations of more replicas cost, and nothing of a network. All methods are in
one process, one model for each number of replicas, and train a few steps each
in turn after each has compiled. What they send is counted in the traced graph,
see `benchmarks.communication`, with two replicas. How that would do on up to
1,024 devices is a model, see `benchmarks.scaling_model`.
"""

import argparse
import dataclasses
import functools
import itertools
import pathlib

import tensorflow as tf

from benchmarks import communication
from benchmarks import measurement
from benchmarks import scaling_model
from benchmarks import scaling_report
from benchmarks import throughput_report as report
from benchmarks.measurement import Setting
from benchmarks.networks import NETWORKS
from benchmarks.networks import default_sizes
from benchmarks.throughput import progress

# Method of `benchmarks.methods`, and what is added to its arguments.
METHODS = {
    "SGD": ("SGD", {}),
    "SAM": ("SAM", {}),
    "SAM, global": ("SAM", {"ascent_scope": "global"}),
    "ESAM depth": ("ESAM depth", {}),
    "ESAM depth, global": ("ESAM depth", {"ascent_scope": "global"}),
    "one-step": ("one-step", {}),
}
# Its time is that of SAM and another all-reduce.
COUNTED_ONLY = ["SAM, global"]
QUICK = ["SGD", "SAM"]
COUNTED_REPLICAS = 2


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


def make_model(method, setting, num_replicas):
    name, kwargs = METHODS[method]
    with make_strategy(num_replicas).scope():
        return measurement.make_model(name, setting, **kwargs)


def make_data(batch_size, steps):
    """`tf.data.Dataset` of batches of any size for the compiled step."""
    dataset = tf.data.Dataset.from_tensor_slices(
        measurement.make_batch(batch_size)
    )
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.repeat(steps).batch(batch_size).with_options(options)


def seconds_per_step(model, setting):
    """CPU and wall seconds of a step, the batch being that of all replicas."""
    steps = measurement.steps_per_round(model, setting.steps)
    data = make_data(setting.batch_size, steps)
    seconds = measurement.timed_epoch(model, setting, steps, data)
    return [value / steps for value in seconds]


def measure(methods, setting, replicas, batch_sizes, rounds):
    """Times of all methods with each number of replicas.

    Args:
        methods: List of names in `METHODS`.
        setting: `Setting`.
        replicas: List of integers.
        batch_sizes: List of integers, samples of one replica in a step.
        rounds: Integer.

    Returns:
        Tuple of a list of dicts with `replicas`, `batch_size`, `samples` (dict
        of method to a list, one a round, of CPU and wall seconds per step) and
        `rows`, their summary; and the trained models, a dict by the number of
        replicas and the method.
    """
    models = {}
    for number, method in itertools.product(replicas, methods):
        # What is global is no other step for one replica.
        if number > 1 or "global" not in method:
            model = make_model(method, setting, number)
            first = dataclasses.replace(setting, batch_size=2 * number, steps=1)
            seconds_per_step(model, first)
            models[number, method] = model
            progress(f"compiled {method} for {number}")
    entries = [
        {"replicas": number, "batch_size": size, "samples": {}}
        for number, size in itertools.product(replicas, batch_sizes)
    ]
    for index in range(rounds):
        # Turn the order round, so that no method always follows the same one.
        turns = list(itertools.product(entries, methods))
        for entry, method in turns[:: 1 if index % 2 else -1]:
            if (entry["replicas"], method) in models:
                whole = entry["replicas"] * entry["batch_size"]
                seconds = seconds_per_step(
                    models[entry["replicas"], method],
                    dataclasses.replace(setting, batch_size=whole),
                )
                entry["samples"].setdefault(method, []).append(seconds)
        progress(f"round {index + 1} of {rounds}")
    for entry in entries:
        samples = entry["samples"]
        entry["samples"] = {m: samples[m] for m in methods if m in samples}
        images = entry["replicas"] * entry["batch_size"]
        entry["rows"] = report.summarise(entry["samples"], {}, images)
    return entries, models


def count(methods, setting, models):
    """What a replica sends in a step of each method, of two replicas.

    Args:
        methods: List of names in `METHODS`.
        setting: `Setting`.
        models: Dict as from `measure`; models that it lacks are made.

    Returns:
        Dict of method to what `communication.per_step` returns.
    """
    batch = measurement.make_batch(2)
    counted = {}
    for method in methods:
        model = models.get((COUNTED_REPLICAS, method))
        if model is None:
            model = make_model(method, setting, COUNTED_REPLICAS)
            communication.build(model, *batch)
        counted[method] = communication.per_step(model, *batch)
        progress(f"counted {method} on {setting.network}")
    return counted


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    option, positive = parser.add_argument, measurement.positive
    option("--network", choices=NETWORKS, default="mlp")
    option("--width", type=positive, help="see `benchmarks.networks`")
    option("--depth", type=positive, help="see `benchmarks.networks`")
    option("--also-count", nargs="*", choices=NETWORKS, help="and not measure")
    option("--methods", nargs="+", choices=METHODS, metavar="METHOD")
    option("--replicas", nargs="+", type=positive)
    option("--batch-sizes", nargs="+", type=positive, help="of each replica")
    option("--steps", type=positive, default=5, help="at least, in a round")
    option("--rounds", type=positive)
    option("--quick", action="store_true", help="few methods, two replicas")
    option("--step-ms", type=float, default=100, help="of SGD, in the model")
    option("--gigabytes-per-second", nargs="+", type=float, default=[25, 1.25])
    option("--latency-us", type=float, default=5, help="in the model")
    option("--out", type=pathlib.Path, default=pathlib.Path("runs/scaling"))
    arguments = parser.parse_args()
    defaults = {"rounds": 5, "replicas": [1, 2, 4], "batch_sizes": [8, 32]}
    defaults |= {"also_count": ["wide_resnet"]}
    defaults["methods"] = [m for m in METHODS if m not in COUNTED_ONLY]
    if arguments.quick:
        defaults = {"rounds": 3, "replicas": [1, 2], "batch_sizes": [8]}
        defaults |= {"methods": QUICK, "also_count": []}
    if arguments.network == "mlp":
        defaults |= {"width": 256, "depth": 2}
    for key, value in defaults.items():
        if getattr(arguments, key) is None:
            setattr(arguments, key, value)
    if "SGD" not in arguments.methods:
        arguments.methods = ["SGD", *arguments.methods]
    return arguments


def make_setting(network, steps, batch_size, **sizes):
    given = {key: size for key, size in sizes.items() if size is not None}
    return Setting(
        network=network,
        batch_size=batch_size,
        steps=steps,
        xla=False,
        precision="float32",
        **{**default_sizes(network), **given},
    )


def main():
    arguments = parse_arguments()
    make_devices(max(COUNTED_REPLICAS, *arguments.replicas))
    sizes = {"width": arguments.width, "depth": arguments.depth}
    setting = make_setting(
        arguments.network, arguments.steps, arguments.batch_sizes[0], **sizes
    )
    methods = arguments.methods
    entries, models = measure(
        methods,
        setting,
        arguments.replicas,
        arguments.batch_sizes,
        arguments.rounds,
    )
    counted = [m for m in METHODS if m in methods or m in COUNTED_ONLY]
    counts = {setting.network: count(counted, setting, models)}
    for network in arguments.also_count:
        counts[network] = count(counted, make_setting(network, 1, 2), {})
    model = scaling_model.table(
        arguments.step_ms / 1e3,
        [1e9 * value for value in arguments.gigabytes_per_second],
        arguments.latency_us / 1e6,
    )
    scaling_report.write(arguments.out, setting, entries, counts, model)


if __name__ == "__main__":
    main()
