"""All that is measured on a GPU, in one command: trainings, kernels, speed.

Command:   python -m benchmarks.accuracy cifar10_paper --export cifar10.npz
           KERAS_BACKEND=jax python -m benchmarks.gpu --data cifar10.npz
           python -m benchmarks.gpu --report FILE    (the table of the kernels)
Result:    runs/gpu/trainings, kernels and speed-BATCH, each with results.md
Time:      sized for 15 minutes on an H200; not run there yet

`trainings` are a row of the paper's Table 1: ResNet-18 for 200 epochs, one
seed, mixed_bfloat16, a process for each method side by side, since one training
at batch 128 fills a third of such a card. An interrupted one resumes.

`kernels` tells what limits a step: the time in which the device runs kernels,
short gaps between them (launches) and long ones (the device waits for the
host). `speed` has the card for itself.
"""

import argparse
import dataclasses
import os
import pathlib
import subprocess
import sys
import tempfile

from benchmarks import measurement
from benchmarks import report
from benchmarks.accuracy_tasks import TASKS
from benchmarks.measurement import PRECISIONS
from benchmarks.networks import NETWORKS

PARTS = ("trainings", "kernels", "speed")
TRAININGS = ["SGD", "SAM", "ESAM variable", "ESAM depth", "SAM, part 0.25"]
KERNELS = ["SAM", "SAM, part 0.25", "ESAM depth"]
SPEED = [*TRAININGS, "ESAM depth by loss", "SWP depth, beta 0.3", "one-step"]
LONG_GAP = 50e-6  # seconds; a launch takes less


def run(module, *arguments):
    """Starts a benchmark in a process of its own."""
    words = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    # Several share the card.
    variables = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return subprocess.Popen(words, env={**os.environ, **variables})


def finish(processes):
    """Waits for all, and raises an error if one has failed."""
    codes = [process.wait() for process in processes]
    if any(codes):
        raise SystemExit(f"A benchmark failed. Exit codes: {codes}")


def trainings(arguments, setting):
    """The trainings of all methods at the same time, and their table."""
    data = ["--data-dir", arguments.data] if arguments.data else []
    options = [
        *(arguments.task, *data, "--seeds", 1),
        *("--epochs", arguments.epochs, "--equal", "epochs"),
        *("--precision", setting.precision),
        *("--out", arguments.out / "trainings"),
    ]
    methods = [[method] for method in TRAININGS]
    finish([run("accuracy", *options, "--methods", *own) for own in methods])
    finish([run("accuracy", *options, "--methods", *TRAININGS)])


def speed(arguments, setting):
    """Throughput of all methods in turn, for each batch size."""
    for batch_size in arguments.batch_sizes:
        options = [
            *("--network", setting.network, "--width", setting.width),
            *("--depth", setting.depth, "--batch-size", batch_size),
            *("--precision", setting.precision, "--steps", setting.steps),
            *("--rounds", 5, "--no-count", "--memory-runs", 0),
            *("--out", arguments.out / f"speed-{batch_size}"),
        ]
        finish([run("speed", *options, "--methods", *SPEED)])


def kernels(arguments, setting):
    """Where the time of the steps goes, and its table."""
    rows = []
    for batch_size in (min(arguments.batch_sizes), max(arguments.batch_sizes)):
        own = dataclasses.replace(setting, batch_size=batch_size)
        models = measurement.make_models(KERNELS, own)
        for method, model in models.items():
            measurement.timed_steps(model, own)  # compiles
            row = {"batch size": batch_size, "method": method}
            rows.append({**row, **kernel_times(model, own)})
            measurement.progress(f"{method}, batch {batch_size}: {rows[-1]}")
    report.write(arguments.out / "kernels", {"rows": rows}, tables)


def kernel_times(model, setting):
    """Dict of milliseconds per step, and the number of kernels."""
    import jax

    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # It would slow the host down.
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            (_, wall), steps = measurement.timed_steps(model, setting)
        (file,) = pathlib.Path(folder).rglob("*.xplane.pb")
        data = jax.profiler.ProfileData.from_file(str(file))
        intervals = device_intervals(data)
    busy, gaps = union(intervals)
    short = sum(gap for gap in gaps if gap < LONG_GAP)
    times = {
        "step": wall,
        "kernels": busy,
        "short gaps": short,
        "long gaps": sum(gaps) - short,
    }
    result = {f"{k}, ms": 1e3 * v / steps for k, v in times.items()}
    return {**result, "kernels per step": round(len(intervals) / steps)}


def device_intervals(data):
    """List of begin and end, in seconds, of what ran on the device.

    On a CPU, for trials, of the events of XLA's own threads.
    """
    planes = [p for p in data.planes if p.name.startswith("/device:")]
    lines = [
        line
        for plane in planes
        for line in plane.lines
        if line.name.startswith("Stream")
    ]
    if not lines:
        plane = data.find_plane_with_name("/host:CPU")
        lines = [line for line in plane.lines if "XLA" in line.name]
    return [
        (event.start_ns / 1e9, (event.start_ns + event.duration_ns) / 1e9)
        for line in lines
        for event in line.events
    ]


def union(intervals):
    """Length of the union of intervals, and a list of the gaps in it."""
    busy, gaps, end = 0.0, [], None
    for first, last in sorted(intervals):
        if end is None or first > end:
            if end is not None:
                gaps.append(first - end)
            busy += last - first
            end = last
        elif last > end:
            busy += last - end
            end = last
    return busy, gaps


def tables(results):
    return {"": report.frame(results["rows"]).set_index("method")}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    option = parser.add_argument
    option("--data", help="an .npz file of `benchmarks.accuracy --export`")
    option("--parts", nargs="+", choices=PARTS, default=PARTS)
    option("--task", choices=TASKS, default="cifar10_paper", help="trained")
    option("--epochs", type=int, default=200)
    option("--batch-sizes", type=int, nargs="+", default=[128, 256, 512])
    option("--network", choices=NETWORKS, default="resnet18")
    option("--width", type=int, default=64)
    option("--depth", type=int, default=2)
    option("--precision", choices=PRECISIONS, default="mixed_bfloat16")
    option("--steps", type=int, default=20, help="at least, in a round")
    report.add_options(parser, "gpu")
    arguments = parser.parse_args(arguments)
    if arguments.report:
        return report.show(arguments.report, tables)
    setting = measurement.Setting(
        network=arguments.network,
        width=arguments.width,
        depth=arguments.depth,
        batch_size=128,
        steps=arguments.steps,
        xla=True,
        precision=arguments.precision,
    )
    for part in arguments.parts:
        {"trainings": trainings, "kernels": kernels, "speed": speed}[part](
            arguments, setting
        )


if __name__ == "__main__":
    main()
