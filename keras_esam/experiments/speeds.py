"""Training speed of the methods, measured in turn.

What else the machine does then falls on all of them, and their ratios do not
depend on it.
"""

import json
import time

import keras

from keras_esam.experiments.progress import announced
from keras_esam.experiments.runs import Run
from keras_esam.experiments.runs import Runner
from keras_esam.experiments.runs import write_json

ROUNDS = 5
# Four times through the five subsets.
NUM_STEPS = 20


def images_per_second(runner: Runner, runs: list[Run]) -> dict[Run, list]:
    """Training speed of runs on one data set and network.

    It is measured once and kept in the runner's folder.

    Args:
        runner: `Runner`.
        runs: List of runs, one for each method.

    Returns:
        Dict of run to a list of images per second, one of each round, that of
        the same batch again and again.
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
    models, batches = {}, {}
    for run in runs:
        # Before any of them trains: to seed TensorFlow clears its caches.
        models[run] = runner.make_model(run, NUM_STEPS * (ROUNDS + 1))
        data = runner.images.training(runner.recipe(run), seed=0)
        batches[run] = data.take(1).cache().repeat(NUM_STEPS)
    names = {f"first steps of {runner.name(run)}": run for run in runs}
    for name in announced(dict.fromkeys(names, 1)):
        models[names[name]].fit(batches[names[name]], shuffle=False, verbose=0)
    print("speeds")
    bar = keras.utils.Progbar(ROUNDS * len(runs), unit_name="measurement")
    samples = {run: [] for run in runs}
    for index in range(ROUNDS):
        for run in runs[:: 1 if index % 2 else -1]:
            watch = _Stopwatch()
            models[run].fit(
                batches[run], shuffle=False, verbose=0, callbacks=[watch]
            )
            count = NUM_STEPS * runner.recipe(run).batch_size
            samples[run].append(count / watch.seconds)
            bar.add(1)
    return samples


class _Stopwatch(keras.callbacks.Callback):
    """Times an epoch, without the start and the end of its data set."""

    # Without it Keras waits for the device after every batch.
    async_safe = True

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 0:
            self._start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        float(logs["loss"])  # waits for the device
        self.seconds = time.perf_counter() - self._start
