"""CPU time of an epoch of each method, for budgets of equal time.

The methods train a few epochs each in turn after each has compiled, so that
their ratios do not depend on what else the machine did.
"""

import json
import statistics

from benchmarks import accuracy_training
from benchmarks.accuracy_training import STAGES
from benchmarks.measurement import write_json

SPEEDS = "speeds.json"
ROUNDS = 7
# A method of two stages takes the mean of their times.
PARTS = {STAGES: ("SWP depth", "ESAM depth")}


def load_or_measure(task, data, methods, folder):
    """CPU seconds per epoch, measured once and kept in `speeds.json`.

    Args:
        task: `benchmarks.accuracy_tasks.Task`.
        data: Training and test data.
        methods: List of names.
        folder: `pathlib.Path` of the results.

    Returns:
        Dict of method to seconds, the median over the rounds.
    """
    path = folder / SPEEDS
    if path.exists():
        samples = json.loads(path.read_text())
        missing = set(methods) - set(samples)
        if missing:
            raise ValueError(
                f"`{path}` must have all methods. Choose another folder with "
                f"--out. Received: a file without {missing}"
            )
    else:
        samples = measure(task, data, methods)
        write_json(samples, path)
    return medians(samples)


def medians(samples):
    """Dict of method to the median of its samples."""
    return {method: statistics.median(s) for method, s in samples.items()}


def measure(task, data, methods, rounds=ROUNDS):
    """Dict of method to a list of CPU seconds per epoch, one a round."""
    parts = {part for m in methods for part in PARTS.get(m, [m])}
    models = {}
    for part in sorted(parts):
        settings = {"method": part, "num_train": task.num_train, "seed": 0}
        # Every compiled step equally often, and for about 20 steps.
        settings["epochs"] = max(5, 20 // (task.num_train // task.batch_size))
        settings["rho"] = task.rho
        models[part] = accuracy_training.make_model(task, settings), settings
        seconds_per_epoch(task, data, *models[part])
    samples = {part: [] for part in models}
    for index in range(rounds):
        for part in list(models)[:: 1 if index % 2 else -1]:
            samples[part].append(seconds_per_epoch(task, data, *models[part]))
    for method in set(PARTS) & set(methods):
        pairs = zip(*[samples[part] for part in PARTS[method]], strict=True)
        samples[method] = [statistics.mean(pair) for pair in pairs]
    return {method: samples[method] for method in methods}


def seconds_per_epoch(task, data, model, settings):
    return accuracy_training.fit(model, task, data, settings)[1]
