"""How fast each training method is, measured and by the cost model.

Command:   python -m benchmarks.throughput           (2 cores: about 40 minutes)
           python -m benchmarks.throughput --quick   (2 minutes)
Result:    a table; runs/throughput/results.json, table.md and throughput.png
Targets:   width-32 ResNet-18, batch 64, no XLA, 2 CPU cores, speed relative to
           SAM by CPU time: ESAM depth 1.40, ranked by loss 1.58, ESAM variable
           1.15, one-step 1.95; SAM at least as fast as that of `tf_keras`;
           `rho=0` at least 0.97 of bare `fit`

All methods are in one process and train a few steps each in turn, after each
has compiled. Speeds are ratios of the process CPU time in the same round, or
with an accelerator of the wall time; the table has their medians and quartiles.
"By count" is the ratio of the operations that the backend's compiled steps have
(`benchmarks.engines`). Memory is that of `benchmarks.memory`, of the methods
that `--methods` names: SAM is there in any case.

The Keras backend is that of the environment (`KERAS_BACKEND`).
"""

import argparse
import dataclasses
import pathlib
import sys

from benchmarks import measurement
from benchmarks import operations
from benchmarks import tf_keras_sam
from benchmarks import throughput_report as report
from benchmarks.engines import BACKEND
from benchmarks.engines import engine
from benchmarks.measurement import BARE
from benchmarks.memory import measure_memory
from benchmarks.methods import METHODS
from keras_esam.extras import requires

PEERS = tf_keras_sam.NAMES
ALL = [BARE, *METHODS, *PEERS]
QUICK = [BARE, "SGD", "SAM", "ESAM depth", "one-step"]
SCALED = ["SGD", "SAM", "ESAM depth"]
TRACES = 3
BATCH_SIZES, DEPTHS = (16, 32, 64, 128), (1, 2, 3)


def measure(methods, setting, rounds, traces=TRACES):
    """Times and operations of the methods, in turn.

    Args:
        methods: List of names.
        setting: `Setting`.
        rounds: Integer.
        traces: Integer, how often each compiled step is traced. If 0 nothing is
            traced or counted.

    Returns:
        Dict of what is saved, each a dict by method: list of `[CPU, wall]`
        seconds per step, one a round; operations per step; list for each
        compiled step of the CPU seconds of its traces; wall seconds of the
        first use of all steps.
    """
    models, first_use = {}, {}
    for method in methods:
        models[method] = make_model(method, setting)
        first_use[method] = compile_steps(models[method], setting)
        progress(f"compiled {method} in {first_use[method]:.1f} s")
    samples = {method: [] for method in methods}
    for index in range(rounds):
        # Turn the order round, so that no method always follows the same one.
        for method in methods[:: 1 if index % 2 else -1]:
            samples[method].append(seconds_per_step(models[method], setting))
        progress(f"round {index + 1} of {rounds}")
    batch = measurement.make_batch(setting.batch_size)
    counts, tracing = {}, {}
    for method, model in models.items() if traces else ():
        counts[method], tracing[method] = operations.operations_per_step(
            model, *batch, traces
        )
    return {
        "seconds_per_step_cpu_wall": samples,
        "operations_per_step": counts,
        "tracing_cpu_seconds": tracing,
        "first_use_seconds": first_use,
    }


def summarise(results, setting, clock):
    """The rows of the table, from what `measure` returns."""
    samples = results["seconds_per_step_cpu_wall"]
    counts = results["operations_per_step"]
    return report.summarise(samples, counts, setting.batch_size, clock)


def make_model(method, setting):
    """The compiled model of a method or of a peer."""
    module = tf_keras_sam if method in PEERS else measurement
    return module.make_model(method, setting)


def compile_steps(model, setting):
    """Seconds that the first use of all steps takes beyond their running."""
    steps = measurement.steps_per_round(model, 2)
    first = measurement.timed_epoch(model, setting, steps)[1]
    return first - measurement.timed_epoch(model, setting, steps)[1]


def seconds_per_step(model, setting):
    steps = measurement.steps_per_round(model, setting.steps)
    seconds = measurement.timed_epoch(model, setting, steps)
    return [value / steps for value in seconds]


def measure_scaling(setting, rounds, clock):
    """Results of some methods at other batch sizes and depths."""
    settings = [
        dataclasses.replace(setting, batch_size=size) for size in BATCH_SIZES
    ] + [dataclasses.replace(setting, depth=depth) for depth in DEPTHS]
    scaling = []
    for other in dict.fromkeys(settings):
        results = measure(SCALED, other, min(rounds, 5), traces=1)
        entry = {"batch_size": other.batch_size, "depth": other.depth}
        rows = summarise(results, other, clock)
        scaling.append({**entry, "rows": rows, **results})
    return scaling


def progress(message):
    print(message, file=sys.stderr, flush=True)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    measurement.add_setting_options(parser)
    option = parser.add_argument
    option("--rounds", type=measurement.positive)
    option("--methods", nargs="+", choices=ALL, metavar="METHOD", help=str(ALL))
    option("--clock", choices=report.CLOCKS, help="of which speeds are ratios")
    option("--memory-runs", type=int, help="processes for each method")
    option(
        "--count",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether to count the operations and time the tracing",
    )
    option(
        "--scaling",
        action=argparse.BooleanOptionalAction,
        help="whether to measure against batch size and depth too",
    )
    option("--quick", action="store_true", help="few methods, narrow network")
    option("--out", type=pathlib.Path, default=pathlib.Path("runs/throughput"))
    arguments = parser.parse_args()
    with requires("benchmarks"):  # Now, and not after the measurements.
        import matplotlib.figure  # noqa: F401
    # The processor's time says nothing of an accelerator's.
    clock = "cpu" if engine.device_memory() is None else "wall"
    defaults = {"rounds": 9, "memory_runs": 1, "scaling": True, "clock": clock}
    if arguments.quick:
        defaults |= {"rounds": 3, "memory_runs": 0, "scaling": False}
        defaults |= {"width": 8, "methods": QUICK}
    for key, value in defaults.items():
        if getattr(arguments, key) is None:
            setattr(arguments, key, value)
    return arguments


def choose_methods(names):
    methods = [name for name in ALL if name in (names or ALL)]
    if not set(PEERS).isdisjoint(methods) and not tf_keras_sam.is_available():
        progress("Without tf_keras and TensorFlow; the peers are left out.")
        methods = [name for name in methods if name not in PEERS]
    return methods if "SAM" in methods else ["SAM", *methods]


def main():
    arguments = parse_arguments()
    setting = measurement.make_setting(arguments)
    methods, clock = choose_methods(arguments.methods), arguments.clock
    traces = TRACES if arguments.count else 0
    results = measure(methods, setting, arguments.rounds, traces)
    rows = summarise(results, setting, clock)
    scaling = []
    if arguments.scaling:
        scaling = measure_scaling(setting, arguments.rounds, clock)
    named = arguments.methods or methods
    memory = {method: [] for method in methods if method in named}
    for index in range(arguments.memory_runs):
        for method, values in memory.items():
            values.append(measure_memory(method, setting))
        progress(f"memory {index + 1} of {arguments.memory_runs}")
    results = {
        "machine": measurement.describe_machine(),
        "setting": dataclasses.asdict(setting),
        "clock": clock,
        **results,
        "summary": rows,
        "scaling": scaling,
        "memory_mib": memory,
    }
    write(results, arguments.out)


def write(results, out):
    out.mkdir(parents=True, exist_ok=True)
    measurement.write_json(results, out / "results.json")
    rows, scaling = results["summary"], results["scaling"]
    peaks = {
        method: [run["peak"] for run in runs]
        for method, runs in results["memory_mib"].items()
    }
    table = report.markdown(
        rows,
        results["tracing_cpu_seconds"],
        results["first_use_seconds"],
        peaks,
    )
    if scaling:
        table += "\n" + report.markdown_of_scaling(scaling)
    (out / "table.md").write_text(table)
    title = "{network}, width {width}, depth {depth}, batch {batch_size}"
    title = (title + ", {precision}").format(**results["setting"])
    title += ", XLA" if results["setting"]["xla"] else ""
    title += f", {BACKEND}"
    report.draw(rows, scaling, title, out / "throughput.png", results["clock"])
    print(table)
    print(f"Written to {out}")


if __name__ == "__main__":
    main()
