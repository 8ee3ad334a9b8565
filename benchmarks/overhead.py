"""What the wrapper costs: time per step at `rho=0`, and memory of ESAM.

Command:   python -m benchmarks.overhead
Targets:   `ESAMModel(rho=0)` at most 3% slower per step than bare `fit`;
           peak memory of ESAM at most 1.2 times that of SAM
Machine:   2 CPU cores, about 6 minutes

Time: all methods in one process, one epoch of a few steps each in turn, after
each has compiled; medians over the rounds of the process CPU time per step and
of the ratio to bare `fit` in the same round.

Memory: one process for each method, since a process' peak never falls. On Linux
only.
"""

import argparse
import json
import pathlib
import platform
import statistics
import subprocess
import sys
import time

import keras
import numpy as np
import tensorflow as tf

import keras_esam
from benchmarks.resnet import resnet18

METHODS = {
    "bare fit": None,
    "SGD": {"rho": 0},
    "SAM": {"beta": 1, "gamma": 1},
    "SWP": {"gamma": 1},
    "SDS": {"beta": 1},
    "ESAM": {},
    "ESAM by loss": {"rank_by": "loss"},
}


def make_model(method, width):
    keras.utils.set_random_seed(1)
    model = resnet18(width)
    if METHODS[method] is not None:
        model = keras_esam.ESAMModel(model, seed=1, **METHODS[method])
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def make_data(batch_size, steps):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch_size, 32, 32, 3)).astype("float32")
    y = rng.integers(0, 10, batch_size)
    dataset = tf.data.Dataset.from_tensors((x, y)).repeat(steps)
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


class BatchTimer(keras.callbacks.Callback):
    """CPU and wall time from the first to the last batch of an epoch."""

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 0:
            self.start = time.process_time(), time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.end = time.process_time(), time.perf_counter()

    @property
    def seconds(self):
        return [b - a for a, b in zip(self.start, self.end, strict=True)]


def measure_time(methods, width, batch_size, steps, rounds):
    """CPU and wall seconds per step: method name to a list of pairs."""
    data = make_data(batch_size, steps)
    models = {name: make_model(name, width) for name in methods}
    for model in models.values():
        warm_up = max(steps, getattr(model, "num_subsets", 1))
        model.fit(make_data(batch_size, warm_up), shuffle=False, verbose=0)
    samples = {name: [] for name in methods}
    for index in range(rounds):
        # Turn the order round, so that no method always follows the same one.
        order = list(models) if index % 2 else list(models)[::-1]
        for name in order:
            timer = BatchTimer()
            models[name].fit(data, shuffle=False, verbose=0, callbacks=[timer])
            samples[name].append([s / steps for s in timer.seconds])
        print(f"round {index + 1} of {rounds}", file=sys.stderr)
    return samples


def measure_memory(method, width, batch_size, steps):
    """Peak resident set of a training process in MiB: all, and its growth.

    The first figure has TensorFlow itself in it, about 600 MiB, the second is
    what was added since the network was made. Both have the compiled graphs,
    of which ESAM has one per subset.
    """
    model = make_model(method, width)
    before = resident_memory("VmRSS")
    epochs = getattr(model, "num_subsets", 1)
    data = make_data(batch_size, steps)
    model.fit(data, epochs=epochs, shuffle=False, verbose=0)
    peak = resident_memory("VmHWM")
    return peak, peak - before


def resident_memory(key):
    """MiB of the resident set, now (`VmRSS`) or at its peak (`VmHWM`)."""
    # Not `ru_maxrss`, which a process inherits from the one that started it.
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {key}. It needs Linux.")


def memory_in_new_process(method, arguments):
    command = [sys.executable, "-m", "benchmarks.overhead", "--memory", method]
    for name in ("width", "batch_size", "steps"):
        command += [f"--{name.replace('_', '-')}", str(vars(arguments)[name])]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return [float(value) for value in result.stdout.splitlines()[-1].split()]


def median_and_range(values):
    middle = statistics.median(values)
    return f"{middle:10.0f} ({min(values):.0f} to {max(values):.0f})".rjust(28)


def quartiles(values):
    return [float(q) for q in np.percentile(values, [25, 50, 75])]


def report_time(samples):
    print(
        f"\n{'':14}{'CPU ms/step':>12}{'wall ms/step':>14}"
        f"{'CPU time / bare fit, quartiles':>36}"
    )
    ratios = {}
    for name, values in samples.items():
        cpu, wall = np.median(values, axis=0) * 1e3
        ratio = [
            v[0] / bare[0]
            for v, bare in zip(values, samples["bare fit"], strict=True)
        ]
        ratios[name] = quartiles(ratio)
        low, middle, high = ratios[name]
        print(
            f"{name:14}{cpu:12.1f}{wall:14.1f}"
            f"{middle:20.3f} ({low:.3f} to {high:.3f})"
        )
    return ratios


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--memory-runs", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=["SGD", "SAM", "ESAM"])
    parser.add_argument("--memory", metavar="METHOD", help=argparse.SUPPRESS)
    parser.add_argument(
        "--out", type=pathlib.Path, default="runs/overhead.json"
    )
    arguments = parser.parse_args()
    sizes = (arguments.width, arguments.batch_size, arguments.steps)
    if arguments.memory:
        print(*measure_memory(arguments.memory, *sizes))
        return

    print(f"ResNet-18, width {sizes[0]}, batch {sizes[1]}")
    methods = ["bare fit", *arguments.methods]
    samples = measure_time(methods, *sizes, arguments.rounds)
    ratios = report_time(samples)
    print(f"\n{'':14}{'peak memory, MiB':>28}{'since the start':>28}")
    memory = {name: [] for name in methods}
    for _ in range(arguments.memory_runs):
        for name in methods:
            memory[name].append(memory_in_new_process(name, arguments))
    for name, values in memory.items():
        columns = zip(*values, strict=True)
        print(f"{name:14}" + "".join(map(median_and_range, columns)))
    out = pathlib.Path(arguments.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    results = {
        "machine": platform.platform(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "width_batch_steps": sizes,
        "seconds_per_step_cpu_wall": samples,
        "cpu_time_relative_to_bare_fit_quartiles": ratios,
        "peak_memory_mib": memory,
    }
    out.write_text(json.dumps(results, indent=2) + "\n")
    print(f"\nWritten to {out}")


if __name__ == "__main__":
    main()
