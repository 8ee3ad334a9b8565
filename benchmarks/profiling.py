"""Where the time of a training step goes, by kind of operation.

Command:   python -m benchmarks.profiling
           python -m benchmarks.profiling --network transformer
Result:    tables; runs/profiling/results.json and table.md
Time:      about 8 minutes

TensorFlow's profiler records every operation of a few steps, on one thread, so
that the times of the operations add up to that of the step. Convolutions and
matrix products are what the cost model counts; "all else" is normalization,
activations, sums, and the updates of the variables. Several rounds, methods in
turn, medians.
"""

import argparse
import collections
import dataclasses
import pathlib
import statistics
import tempfile

import tensorflow as tf

from benchmarks import measurement
from benchmarks import operations
from benchmarks import tf_keras_sam
from benchmarks import throughput
from keras_esam.extras import requires

METHODS = ["bare fit", "SAM", "ESAM variable", "ESAM depth"]
METHODS += ["ESAM depth by loss", "SWP depth, beta 0.3", *tf_keras_sam.NAMES]
COUNTED = ("Conv2D", "MatMul", "Einsum")


def time_by_operation(model, setting):
    """Milliseconds per step of each type of operation.

    Args:
        model: Compiled model that has trained with all its compiled steps.
        setting: `benchmarks.measurement.Setting`.

    Returns:
        Dict of type to milliseconds, and the CPU and wall milliseconds of a
        step.
    """
    steps = measurement.steps_per_round(model, setting.steps)
    with tempfile.TemporaryDirectory() as folder:
        options = tf.profiler.experimental.ProfilerOptions(
            host_tracer_level=3, python_tracer_level=0
        )
        with tf.profiler.experimental.Profile(folder, options):
            seconds = measurement.timed_epoch(model, setting, steps)
        (file,) = pathlib.Path(folder).rglob("*.xplane.pb")
        times = read_profile(file)
    times = {kind: 1e3 * value / steps for kind, value in times.items()}
    return times, [1e3 * value / steps for value in seconds]


def read_profile(file):
    """Seconds of each type of operation in a profile.

    Args:
        file: Path of the profile. The operations are the events of the host
            that are called `name:type`.

    Returns:
        Dict of type to seconds.
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


def is_counted(kind):
    return any(part in kind for part in COUNTED)


def profile(methods, setting, rounds):
    """Times of all methods, medians over the rounds.

    Returns:
        Dict of method to a dict: `rounds`, milliseconds per step by type, a
        list each; `operations`, their medians; `counted`, `rest`, `cpu` and
        `wall`, milliseconds; `count`, floating-point operations per step.
    """
    models, samples = {}, {method: [] for method in methods}
    for method in methods:
        models[method] = throughput.make_model(method, setting)
        throughput.seconds_per_step(models[method], setting)
        time_by_operation(models[method], setting)  # The first takes longer.
        throughput.progress(f"compiled {method}")
    for index in range(rounds):
        for method in methods[:: 1 if index % 2 else -1]:
            samples[method].append(time_by_operation(models[method], setting))
        throughput.progress(f"round {index + 1} of {rounds}")
    batch = measurement.make_batch(setting.batch_size)
    rows = {}
    for method, values in samples.items():
        kinds = {kind for times, _ in values for kind in times}
        rounds = {
            kind: [times.get(kind, 0) for times, _ in values] for kind in kinds
        }
        times = {kind: statistics.median(t) for kind, t in rounds.items()}
        counted = sum(t for kind, t in times.items() if is_counted(kind))
        rows[method] = {
            "rounds": rounds,
            "operations": times,
            "counted": counted,
            "rest": sum(times.values()) - counted,
            "cpu": statistics.median(cpu for _, (cpu, _) in values),
            "wall": statistics.median(wall for _, (_, wall) in values),
            "count": operations.operations_per_step(models[method], *batch)[0],
        }
    return rows


def markdown(rows, num_kinds=16):
    """Two Markdown tables: the sums, and the types that take longest."""
    sam = rows["SAM"]
    lines = [
        "| | CPU ms/step (SAM's / own) | convolutions and products, ms "
        "| by count | all else, ms |",
        "|---|---|---|---|---|",
    ]
    for method, row in rows.items():
        cells = [method]
        cells += [
            f"{row[key]:.1f} ({sam[key] / row[key]:.3f})"
            for key in ("cpu", "counted", "rest")
        ]
        cells.insert(3, f"{sam['count'] / row['count']:.3f}")
        lines.append("| " + " | ".join(cells) + " |")
    longest = collections.Counter()
    for row in rows.values():
        for kind, time in row["operations"].items():
            longest[kind] = max(longest[kind], time)
    lines += ["", "| ms/step | " + " | ".join(rows) + " |"]
    lines.append("|---" * (len(rows) + 1) + "|")
    for kind, _ in longest.most_common(num_kinds):
        times = [row["operations"].get(kind, 0) for row in rows.values()]
        cells = [kind, *(f"{time:.1f}" for time in times)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    measurement.add_setting_options(parser)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=throughput.ALL,
        metavar="METHOD",
        default=METHODS,
    )
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("runs/profiling")
    )
    arguments = parser.parse_args()
    if arguments.xla:
        parser.error("--xla: a compiled step has no operations to tell apart")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    setting = measurement.make_setting(arguments)
    methods = throughput.choose_methods(arguments.methods)
    rows = profile(methods, setting, arguments.rounds)
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = {
        "machine": measurement.describe_machine(),
        "setting": dataclasses.asdict(setting),
        "rounds": arguments.rounds,
        "milliseconds_per_step": rows,
    }
    measurement.write_json(results, arguments.out / "results.json")
    table = markdown(rows)
    (arguments.out / "table.md").write_text(table)
    print(table)
    print(f"Written to {arguments.out}")


if __name__ == "__main__":
    main()
