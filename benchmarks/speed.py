"""How fast each training method is, measured and by the cost model.

Command:   python -m benchmarks.speed --targets      (2 cores: about 30 minutes)
           python -m benchmarks.speed --quick        (2 minutes)
           python -m benchmarks.speed --report FILE  (the table of a result)
Result:    runs/speed/results.json and results.md; `--targets` is the table
           `throughput_targets.md`, without it all methods are measured
Targets:   width-32 ResNet-18, batch 64, no XLA, 2 CPU cores, speed relative to
           SAM by CPU time: ESAM depth 1.40, ranked by loss 1.58, ESAM variable
           1.15, one-step 1.95; SAM at least as fast as that of `tf_keras`;
           `rho=0` at least 0.97 of bare `fit`

All methods are in one process and train a few steps each in turn, after each
has compiled. Speeds are ratios of the process CPU time in the same round, or
with an accelerator of the wall time; the table has their medians and quartiles.
"By count" is the ratio of the operations that the backend's compiled steps have
(`benchmarks.engines`). Memory is that of a process for each method.

The Keras backend is that of the environment (`KERAS_BACKEND`).
"""

import argparse
import dataclasses
import functools
import json
import pathlib

import numpy as np

from benchmarks import measurement
from benchmarks import operations
from benchmarks import report
from benchmarks import tf_keras_sam
from benchmarks.engines import engine
from benchmarks.measurement import BARE
from benchmarks.measurement import progress

TARGETS = [
    *(BARE, "SGD", "SAM", "SWP depth", "ESAM variable", "ESAM depth"),
    *("ESAM depth by loss", "SWP depth, beta 0.3", "one-step"),
    *tf_keras_sam.NAMES,
]
QUICK = [BARE, "SGD", "SAM", "ESAM depth", "one-step"]
REFERENCES = ("SAM", "SGD", BARE)
TRACES = 3


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
    # All before the first use: a new seed drops what TensorFlow has prepared.
    models = {m: measurement.make_model(m, setting) for m in methods}
    first_use = {}
    for method, model in models.items():
        first_use[method] = seconds_of_first_use(model, setting)
        progress(f"compiled {method} in {first_use[method]:.1f} s")
    samples = {method: [] for method in methods}
    for method in measurement.in_turn(methods, rounds):
        samples[method].append(
            measurement.seconds_per_step(models[method], setting)
        )
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
    """Wall seconds that the first use of all steps takes beyond running."""
    first, again = (
        measurement.timed_steps(model, setting, at_least=2)[0][1]
        for _ in range(2)
    )
    return first - again


def table(results):
    """The `DataFrame` of the methods, from what is saved."""
    clock, batch_size = results["clock"], results["setting"]["batch_size"]
    rounds = report.frame(
        [
            {"": method, "round": index, "cpu": cpu, "wall": wall}
            for method, pairs in results["seconds_per_step_cpu_wall"].items()
            for index, (cpu, wall) in enumerate(pairs)
        ]
    )
    rounds["images"] = batch_size / rounds["wall"]
    rounds[["cpu", "wall"]] *= 1e3
    for name in REFERENCES:
        theirs = report.reference(rounds, clock, {"": name}, ["round"])
        rounds[name] = theirs / rounds[clock]
    groups = rounds.groupby("", sort=False)
    whole = functools.partial(report.median_and_quartiles, digits=0)
    ratio = functools.partial(report.median_and_quartiles, digits=3)
    rows = groups.agg(
        **{
            "CPU ms/step": ("cpu", whole),
            "wall ms/step": ("wall", whole),
            "images/s": ("images", whole),
            "speed / SAM": ("SAM", ratio),
        }
    )

    def column(values):
        return [values.get(method, np.nan) for method in rows.index]

    counts = results["operations_per_step"]
    rows["by count"] = counts.get("SAM", np.nan) / np.array(column(counts))
    rows["measured / count"] = groups["SAM"].median() / rows["by count"]
    for name in REFERENCES[1:]:
        rows[f"speed / {name}"] = groups[name].agg(ratio)
    # Of one trace of all steps.
    tracing = {
        method: report.frame(steps).sum()
        for method, steps in results["tracing_cpu_seconds"].items()
    }
    own = {method: sums.median() for method, sums in tracing.items()}
    rows["tracing, s"] = column(own)
    if own.get("SAM", 0) > 0.05:  # PyTorch traces nothing.
        rows["tracing / SAM's"] = rows["tracing, s"] / own["SAM"]
    rows["first use, s"] = column(results["first_use_seconds"])
    peaks = {
        method: f"{report.frame(runs)['peak'].median():.0f}"
        for method, runs in results["memory_mib"].items()
        if runs
    }
    rows["peak memory, MiB"] = column(peaks)
    return rows.replace("", np.nan).dropna(axis="columns", how="all")


def titled(results):
    """Dict of the title to the table, for `benchmarks.report`."""
    setting = results["setting"]
    title = "{network}, width {width}, depth {depth}, batch {batch_size}, "
    title = (title + "{precision}").format(**setting)
    title += ", XLA" if setting["xla"] else ""
    title += f". Speeds by {results['clock']} time."
    return {title: table(results)}


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    measurement.add_options(parser)
    option = parser.add_argument
    option("--rounds", type=measurement.positive)
    option(
        "--clock", choices=("cpu", "wall"), help="of which speeds are ratios"
    )
    option("--memory-runs", type=int, help="processes for each method")
    option("--no-count", action="store_true", help="neither count nor trace")
    option("--quick", action="store_true", help="few methods, narrow network")
    option("--targets", action="store_true", help="the methods with targets")
    option("--report", type=pathlib.Path, help="print the table of a result")
    option("--out", type=pathlib.Path, default=pathlib.Path("runs/speed"))
    arguments = parser.parse_args(arguments)
    # The processor's time says nothing of an accelerator's.
    clock = "cpu" if engine.device_memory() is None else "wall"
    defaults = {"rounds": 9, "memory_runs": 1, "clock": clock}
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
        results = json.loads(arguments.report.read_text())
        print(report.in_words(titled(results)))
        return
    report.frame([])  # A missing package is told now, and not at the end.
    setting = measurement.make_setting(arguments)
    methods = measurement.choose_methods(arguments.methods)
    traces = 0 if arguments.no_count else TRACES
    results = measure(methods, setting, arguments.rounds, traces)
    memory = {method: [] for method in methods}
    for index in range(arguments.memory_runs):
        for method, runs in memory.items():
            runs.append(measurement.measure_memory(method, setting))
        progress(f"memory {index + 1} of {arguments.memory_runs}")
    results = {
        "setting": dataclasses.asdict(setting),
        "clock": arguments.clock,
        **results,
        "memory_mib": memory,
    }
    print(report.write(arguments.out / "results", titled(results), results))


if __name__ == "__main__":
    main()
