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
(`benchmarks.engines`). Memory is measured in one process for each method: its
peak resident set, or with an accelerator the peak of that one's memory.

The Keras backend is that of the environment (`KERAS_BACKEND`).
"""

import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys

from benchmarks import measurement
from benchmarks import operations
from benchmarks import report
from benchmarks import tf_keras_sam
from benchmarks.engines import BACKEND
from benchmarks.engines import engine
from benchmarks.measurement import BARE
from benchmarks.measurement import Setting
from benchmarks.methods import METHODS

PEERS = tf_keras_sam.NAMES
ALL = [BARE, *METHODS, *PEERS]
QUICK = [BARE, "SGD", "SAM", "ESAM depth", "one-step"]
SCALED = ["SGD", "SAM", "ESAM depth"]
TRACES = 3
BATCH_SIZES, DEPTHS = (16, 32, 64, 128), (1, 2, 3)


def measure(methods, setting, rounds):
    """Times and operations of the methods, in turn.

    Args:
        methods: List of names.
        setting: `Setting`.
        rounds: Integer.

    Returns:
        Tuple of dicts by method: list of `[CPU, wall]` seconds per step, one a
        round; operations per step; CPU seconds of tracing all compiled steps,
        and wall seconds of their first use.
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
    for method, model in models.items():
        counts[method], tracing[method] = operations.operations_per_step(
            model, *batch, traces=TRACES
        )
    compilation = {m: [tracing[m], first_use[m]] for m in models}
    return samples, counts, compilation


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
    """Summaries of some methods at other batch sizes and depths."""
    settings = [
        dataclasses.replace(setting, batch_size=size) for size in BATCH_SIZES
    ] + [dataclasses.replace(setting, depth=depth) for depth in DEPTHS]
    scaling = []
    for other in dict.fromkeys(settings):
        samples, counts, _ = measure(SCALED, other, min(rounds, 5))
        rows = report.summarise(samples, counts, other.batch_size, clock)
        scaling.append(
            {"batch_size": other.batch_size, "depth": other.depth, "rows": rows}
        )
    return scaling


def memory_of(method, setting):
    """Peak resident set in MiB, and how much of it came by training.

    With an accelerator both are the peak of its memory instead. To be called in
    a process of its own, since a peak never falls. The resident set has the
    compiled graphs, of which ESAM has one per subset.
    """
    model = make_model(method, setting)
    before = measurement.resident_memory("VmRSS")
    for _ in range(2):
        steps = measurement.steps_per_round(model, setting.steps)
        measurement.timed_epoch(model, setting, steps)
    peak = measurement.resident_memory("VmHWM")
    on_device = engine.device_memory()
    if on_device is not None:
        return on_device / 2**20, on_device / 2**20
    return peak, peak - before


def memory_in_new_process(method, setting):
    command = [sys.executable, "-m", "benchmarks.throughput"]
    command += ["--memory-of", method, json.dumps(dataclasses.asdict(setting))]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return [float(value) for value in result.stdout.splitlines()[-1].split()]


def measure_memory(methods, setting, runs):
    memory = {method: [] for method in methods}
    for index in range(runs):
        for method, values in memory.items():
            values.append(memory_in_new_process(method, setting))
        progress(f"memory {index + 1} of {runs}")
    return memory


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
        "--scaling",
        action=argparse.BooleanOptionalAction,
        help="whether to measure against batch size and depth too",
    )
    option("--quick", action="store_true", help="few methods, narrow network")
    option("--out", type=pathlib.Path, default="runs/throughput")
    option("--memory-of", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        return arguments
    # The processor's time says nothing of an accelerator's.
    clock = "cpu" if engine.device_memory() is None else "wall"
    defaults = {"rounds": 9, "memory_runs": 1, "scaling": True, "clock": clock}
    if arguments.quick:
        defaults = {"rounds": 3, "memory_runs": 0, "scaling": False}
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
    if arguments.memory_of:
        method, setting = arguments.memory_of
        setting = Setting(**json.loads(setting))
        print(*memory_of(method, setting))
        return
    setting = measurement.make_setting(arguments)
    methods = choose_methods(arguments.methods)
    samples, counts, compilation = measure(methods, setting, arguments.rounds)
    clock = arguments.clock
    rows = report.summarise(samples, counts, setting.batch_size, clock)
    scaling = []
    if arguments.scaling:
        scaling = measure_scaling(setting, arguments.rounds, clock)
    memory = measure_memory(methods, setting, arguments.memory_runs)
    write(
        arguments, setting, samples, counts, compilation, rows, scaling, memory
    )


def write(
    arguments, setting, samples, counts, compilation, rows, scaling, memory
):
    out = pathlib.Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    results = {
        "machine": measurement.describe_machine(),
        "setting": dataclasses.asdict(setting),
        "clock": arguments.clock,
        "seconds_per_step_cpu_wall": samples,
        "operations_per_step": counts,
        "tracing_and_first_use_seconds": compilation,
        "summary": rows,
        "scaling": scaling,
        "peak_memory_mib_and_growth": memory,
    }
    measurement.write_json(results, out / "results.json")
    peaks = {m: [peak for peak, _ in pairs] for m, pairs in memory.items()}
    table = report.markdown(rows, compilation, peaks)
    if scaling:
        table += "\n" + report.markdown_of_scaling(scaling)
    (out / "table.md").write_text(table)
    title = f"{setting.network}, width {setting.width}, depth {setting.depth}"
    title += f", batch {setting.batch_size}, {setting.precision}"
    title += ", XLA" if setting.xla else ""
    title += f", {BACKEND}"
    report.draw(rows, scaling, title, out / "throughput.png", arguments.clock)
    print(table)
    print(f"Written to {out}")


if __name__ == "__main__":
    main()
