"""Training speed of the methods, measured in turn.

What else the machine does then affects all of them, and their ratios do not
depend on it.
"""

import json

import keras

from benchmarks.paper.runs import Run
from benchmarks.paper.runs import Runner
from benchmarks.paper.runs import write_json
from keras_esam.callbacks import ThroughputLogger

ROUNDS = 5
# Four times through the five subsets.
NUM_STEPS = 20


def images_per_second(runner: Runner, runs: list[Run]) -> dict[Run, list]:
    """Training speed in each round, of runs on one data set and network.

    It is measured once, on one batch again and again, and kept in the runner's
    folder.
    """
    dataset, network, _ = runs[0].recipe.split("/")
    path = runner.folder / f"{dataset}-{network}-speeds.json"
    kept = json.loads(path.read_text()) if path.exists() else []
    settings = {runner.name(run): runner.settings(run) for run in runs}
    for measured in kept:
        if settings.items() <= measured["settings"].items():
            return {run: measured["samples"][runner.name(run)] for run in runs}
    samples = _measure(runner, runs)
    named = {runner.name(run): own for run, own in samples.items()}
    write_json([*kept, {"settings": settings, "samples": named}], path)
    return samples


def _measure(runner, runs):
    keras.backend.clear_session()
    models, batches, samples = {}, {}, {run: [] for run in runs}
    for run in runs:
        # Before any of them trains: to seed TensorFlow clears its caches.
        models[run] = runner.make_model(run, NUM_STEPS * (ROUNDS + 1))
        data = runner.images.training(runner.recipe(run), seed=0)
        batches[run] = data.take(1).cache().repeat(NUM_STEPS // 2)
    print("speeds, after a first round that compiles")
    count = (ROUNDS + 1) * len(runs)
    bar = keras.utils.Progbar(count, unit_name="measurement")
    for index in range(ROUNDS + 1):
        for run in runs[:: 1 if index % 2 else -1]:
            logger = ThroughputLogger()
            options = {"shuffle": False, "verbose": 0, "callbacks": [logger]}
            # The first epoch of a `fit` has no rate.
            logs = models[run].fit(batches[run], epochs=2, **options).history
            samples[run].append(logs["images_per_second"][-1])
            bar.add(1)
    return {run: own[1:] for run, own in samples.items()}
