"""Profiles the time of a training step by kind of operation.

Command:   python -m benchmarks.profiling
           python -m benchmarks.profiling --network transformer
           python -m benchmarks.profiling --report FILE  (tables of a result)
Result:    tables; runs/profiling/results.json and results.md
Time:      about 8 minutes

TensorFlow's profiler records every operation of a few steps, on one thread, so
that the times of the operations add up to the step's time. The cost model
counts convolutions and matrix products; "all else" is normalization,
activations, sums, and the updates of the variables. The methods take turns for
several rounds, and the result is the median.
"""

import argparse
import collections
import dataclasses
import pathlib
import tempfile

import tensorflow as tf

from benchmarks import measurement
from benchmarks import operations
from benchmarks import report
from benchmarks import tf_keras_sam
from benchmarks.engines import engine
from keras_esam.extras import requires

METHODS = ["bare fit", "SAM", "ESAM variable", "ESAM depth"]
METHODS += ["ESAM depth by loss", "SWP depth, beta 0.3", *tf_keras_sam.NAMES]
COUNTED = "Conv2D|MatMul|Einsum"
NUM_KINDS = 16


def time_by_operation(model, setting):
    """Milliseconds per step of each type of operation, and CPU time of a step.

    The model must have trained with all its compiled steps.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = tf.profiler.experimental.ProfilerOptions(
            host_tracer_level=3, python_tracer_level=0
        )
        with tf.profiler.experimental.Profile(folder, options):
            (cpu, _), steps = measurement.timed_steps(model, setting)
        (file,) = pathlib.Path(folder).rglob("*.xplane.pb")
        times = read_profile(file)
    times = {kind: 1e3 * value / steps for kind, value in times.items()}
    return times, 1e3 * cpu / steps


def read_profile(file):
    """Dict of each type of operation in a profile to its seconds.

    Operations are the host events named `name:type`.
    """
    times = collections.Counter()
    with requires("benchmarks"):
        from jax.profiler import ProfileData
    plane = ProfileData.from_file(str(file)).find_plane_with_name("/host:CPU")
    for line in plane.lines:
        for event in line.events:
            name, _, kind = event.name.rpartition(":")
            # The operations of a called function are events themselves.
            is_call = kind.startswith("__")
            if name and name[-1] != ":" and kind.isidentifier() and not is_call:
                times[kind] += event.duration_ns / 1e9
    return times


def profile(methods, setting, rounds):
    """Times of all methods, medians over the rounds.

    Returns:
        Dict of method to a dict: `operations`, milliseconds per step by type;
        `cpu`, milliseconds; `count`, floating-point operations per step.
    """
    models = measurement.make_models(methods, setting)
    for method, model in models.items():
        measurement.timed_steps(model, setting)
        time_by_operation(model, setting)  # The first one takes longer.
        measurement.progress(f"compiled {method}")

    def measure(model):
        return time_by_operation(model, setting)

    samples = measurement.in_turn(measure, models, rounds)
    batch = measurement.make_batch(setting.batch_size)
    rows = {}
    for method, values in samples.items():
        times, cpu = zip(*values, strict=True)
        count = operations.operations_per_step(models[method], *batch)[0]
        rows[method] = {
            "operations": report.frame(times).fillna(0).median().to_dict(),
            "cpu": report.frame(cpu)[0].median(),
            "count": count,
        }
    return rows


def tables(results):
    """Dict of two tables: the sums, and the slowest types."""
    rows = results["milliseconds_per_step"]
    times = report.frame({m: row["operations"] for m, row in rows.items()})
    times = times.fillna(0)
    counted = times.index.str.contains(COUNTED)
    sums = {
        "CPU ms/step": report.frame(rows).loc["cpu"],
        "convolutions and products, ms": times[counted].sum(),
        "all else, ms": times[~counted].sum(),
    }
    table = report.frame(
        {
            f"{title} (SAM's / own)": [
                f"{own:.1f} ({values['SAM'] / own:.3f})" for own in values
            ]
            for title, values in sums.items()
        }
    )
    counts = report.frame(rows).loc["count"]
    table.insert(0, "", list(rows))
    table.insert(3, "by count", (counts["SAM"] / counts).to_list())
    longest = times.max(axis="columns").nlargest(NUM_KINDS).index
    kinds = times.loc[longest].astype(float).round(1).rename_axis("ms/step")
    return {"": table, "Types that take longest:": kinds}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    measurement.add_options(parser)
    report.add_options(parser, "profiling")
    parser.add_argument("--rounds", type=measurement.positive, default=5)
    arguments = parser.parse_args(arguments)
    if arguments.xla:
        parser.error("--xla: a compiled step has no operations to tell apart")
    if arguments.report:
        return report.show(arguments.report, tables)
    engine.set_threads(1)
    setting = measurement.make_setting(arguments)
    methods = measurement.choose_methods(arguments.methods or METHODS)
    results = {
        "setting": dataclasses.asdict(setting),
        "rounds": arguments.rounds,
        "milliseconds_per_step": profile(methods, setting, arguments.rounds),
    }
    report.write(arguments.out, results, tables)


if __name__ == "__main__":
    main()
