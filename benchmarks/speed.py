"""Speed of each training method, measured and by the cost model.

Command:   python -m benchmarks.speed --targets      (2 cores: about 30 minutes)
           python -m benchmarks.speed --quick        (2 minutes)
           python -m benchmarks.speed --report FILE  (the table of a result)
Result:    runs/speed/results.json and results.md, and speed.png, the bars of
           the README's methods; all methods are measured without `--targets`
Targets:   width-32 ResNet-18, batch 64, no XLA, 2 CPU cores, speed relative to
           SAM by CPU time: ESAM depth 1.40, ranked by loss 1.58, ESAM variable
           1.15, a quarter of the batch 1.50, one-step 1.95; SAM at least as
           fast as in `tf_keras`; `rho=0` at least 0.97 of bare `fit`

All methods run in one process. After each has compiled, they train a few steps
in turn. Speeds are ratios of the process CPU time in the same round, or of the
wall time with an accelerator; the table has their medians and quartiles. "By
count" is the ratio of operations in the backend's compiled steps
(`benchmarks.engines`). Memory is measured in a separate process per method.

The environment variable `KERAS_BACKEND` sets the Keras backend.
"""

import argparse
import dataclasses
import functools

import numpy as np

from benchmarks import measurement
from benchmarks import operations
from benchmarks import pictures
from benchmarks import report
from benchmarks import tf_keras_sam
from benchmarks.engines import engine
from benchmarks.measurement import BARE
from benchmarks.measurement import progress

TARGETS = [
    *(BARE, "SGD", "SAM", "SWP depth", "ESAM variable", "ESAM depth"),
    *("ESAM depth by loss", "SWP depth, beta 0.3", "SAM, part 0.25"),
    *("one-step", "SAM before its start"),
    *tf_keras_sam.NAMES,
]
QUICK = [BARE, "SGD", "SAM", "ESAM depth", "one-step"]
TRACES = 3


def measure(methods, setting, rounds, traces):
    """Times and operations of the methods, in turn.

    Returns:
        Dict of what is saved, each a dict by method: list of `[CPU, wall]`
        seconds per step, one a round; operations per step; for each compiled
        step a list of the CPU seconds of its traces; wall seconds of the first
        use of all steps. Nothing is counted or traced if `traces` is 0.
    """
    models = measurement.make_models(methods, setting)
    first_use = {}
    for method, model in models.items():
        first_use[method] = seconds_of_first_use(model, setting)
        progress(f"compiled {method} in {first_use[method]:.1f} s")

    def seconds_per_step(model):
        seconds, steps = measurement.timed_steps(model, setting)
        return list(seconds / steps)

    samples = measurement.in_turn(seconds_per_step, models, rounds)
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


def seconds_of_first_use(model, setting):
    """Extra wall seconds of the first use of all steps, beyond running."""
    first, again = (
        measurement.timed_steps(model, setting, at_least=2)[0][1]
        for _ in range(2)
    )
    return first - again


def speeds(results, relative_to="SAM"):
    """`DataFrame` of speeds, a column for each method, a row for each round."""
    cpu, wall = report.cpu_and_wall(results["seconds_per_step_cpu_wall"])
    times = cpu if results["clock"] == "cpu" else wall
    return times.rdiv(times[relative_to], axis=0)


def table(results):
    """The `DataFrame` of the methods, from what is saved."""
    cpu, wall = report.cpu_and_wall(results["seconds_per_step_cpu_wall"])
    whole = functools.partial(report.median_and_quartiles, digits=0)
    ratio = functools.partial(report.median_and_quartiles, digits=3)
    ratios = speeds(results)
    rows = {
        "CPU ms/step": (1e3 * cpu).agg(whole),
        "wall ms/step": (1e3 * wall).agg(whole),
        "images/s": (results["setting"]["batch_size"] / wall).agg(whole),
        "speed / SAM": ratios.agg(ratio),
    }
    counts = results["operations_per_step"]
    if counts:
        rows["by count"] = {m: counts["SAM"] / counts[m] for m in counts}
        rows["measured / count"] = {
            m: ratios[m].median() / count
            for m, count in rows["by count"].items()
        }
    for name in ("SGD", BARE):
        if name in ratios:
            rows[f"speed / {name}"] = speeds(results, name).agg(ratio)
    # Time of one trace of all steps.
    tracing = {
        method: float(np.median(np.sum(steps, axis=0)))
        for method, steps in results["tracing_cpu_seconds"].items()
    }
    rows["tracing, s"] = tracing
    if tracing.get("SAM", 0) > 0.05:  # PyTorch traces nothing.
        rows["tracing / SAM's"] = {
            m: tracing[m] / tracing["SAM"] for m in tracing
        }
    rows["first use, s"] = results["first_use_seconds"]
    rows["peak memory, MiB"] = {
        method: f"{np.median([run['peak'] for run in runs]):.0f}"
        for method, runs in results["memory_mib"].items()
        if runs
    }
    rows = report.frame({k: dict(v) for k, v in rows.items() if len(v)})
    return rows.reindex(ratios.columns).rename_axis("")


def tables(results):
    return {title(results): table(results)}


def title(results):
    setting = results["setting"]
    words = "{network}, width {width}, depth {depth}, batch {batch_size}, "
    words = (words + "{precision}").format(**setting)
    words += ", XLA" if setting["xla"] else ""
    return f"{words}. Speeds by {results['clock']} time."


def draw(results, path):
    """Draws the speeds as bars."""
    counts = results["operations_per_step"]
    by_count = {method: counts["SAM"] / counts[method] for method in counts}
    pictures.speeds(speeds(results), by_count, title(results), path)


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    measurement.add_options(parser)
    report.add_options(parser, "speed")
    option = parser.add_argument
    option("--rounds", type=measurement.positive)
    option("--memory-runs", type=int, help="processes for each method")
    option("--no-count", action="store_true", help="neither count nor trace")
    option("--quick", action="store_true", help="few methods, narrow network")
    option("--targets", action="store_true", help="the methods with targets")
    arguments = parser.parse_args(arguments)
    defaults = {"rounds": 9, "memory_runs": 1}
    if arguments.targets:
        defaults |= {"rounds": 13, "methods": TARGETS}
    if arguments.quick:
        defaults |= {"rounds": 3, "memory_runs": 0, "methods": QUICK}
        defaults |= {"width": 8}
    for key, value in defaults.items():
        if getattr(arguments, key) is None:
            setattr(arguments, key, value)
    return arguments


def main(arguments=None):
    arguments = parse_arguments(arguments)
    if arguments.report:
        return report.show(arguments.report, tables)
    report.frame([])  # A missing package is an error now, not at the end.
    setting = measurement.make_setting(arguments)
    methods = measurement.choose_methods(arguments.methods)
    traces = 0 if arguments.no_count else TRACES
    results = measure(methods, setting, arguments.rounds, traces)
    memory = {method: [] for method in methods}
    for index in range(arguments.memory_runs):
        for method, runs in memory.items():
            peak = measurement.peak_memory(method, setting)
            runs.append({"peak": peak})
        progress(f"memory {index + 1} of {arguments.memory_runs}")
    results = {
        "setting": dataclasses.asdict(setting),
        # The processor's time says nothing of an accelerator's.
        "clock": "cpu" if engine.device_memory() is None else "wall",
        **results,
        "memory_mib": memory,
    }
    report.write(arguments.out, results, tables)
    draw(results, arguments.out / "speed.png")


if __name__ == "__main__":
    main()
