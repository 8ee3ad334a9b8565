"""Trainings of `benchmarks.accuracy`, and how long their epochs take."""

import time

import keras
import numpy as np

import keras_esam
from benchmarks.accuracy_tasks import METHODS
from benchmarks.engines import engine
from benchmarks.measurement import in_turn

ROUNDS = 5
STEPS = 40  # of a round, at most


def make_model(task, settings):
    """The compiled model of a method and budget."""
    num_steps = settings["epochs"] * steps_per_epoch(task, settings)
    model = keras_esam.ESAMModel(
        task.make_network(), seed=0, **model_arguments(settings, num_steps)
    )
    entry = METHODS[settings["method"]]
    if "pool_size" in entry:
        model._preferred_pool_size = entry["pool_size"]
    model.compile(
        task.make_optimizer(model.rho == 0, num_steps),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    # All variables are there at the start.
    model.optimizer.build(model.trainable_variables)
    return model


def model_arguments(settings, num_steps):
    """Arguments of `ESAMModel` from an entry of `METHODS`."""
    arguments = {"rho": settings["rho"], **METHODS[settings["method"]]}
    for key in ("batch_factor", "rho_of", "pool_size"):
        arguments.pop(key, None)
    return {
        key: value(num_steps) if callable(value) else value
        for key, value in arguments.items()
    }


def batch_size(task, settings):
    factor = METHODS[settings["method"]].get("batch_factor", 1)
    return int(task.batch_size * factor)


def steps_per_epoch(task, settings):
    return settings["num_train"] // batch_size(task, settings)


def initial_state(task, settings):
    """Values of all variables at the start of a training with a seed.

    The seed draws the weights. All seeds use the subsets of seed 0, so that one
    compiled model serves them: compilation takes longer than many trainings.
    """
    keras.utils.set_random_seed(settings["seed"])
    fresh = make_model(task, settings)
    return [np.array(variable) for variable in all_variables(fresh)]


def start(model, state):
    """Sets a model, of any age, to an `initial_state()`."""
    for variable, value in zip(all_variables(model), state, strict=True):
        variable.assign(value)


def all_variables(model):
    return [*model.variables, *model.optimizer.variables]


def train(model, task, data, settings, folder):
    """Trains a model and returns what the table needs of it.

    With augmented images the training is backed up in `folder`, and resumes:
    the order of others' data is not a function of the epoch.
    """
    backup = keras_esam.callbacks.AtomicBackup(folder)
    callbacks = [backup] if task.augment else []
    finished = len(backup.history)
    fit(model, task, data, settings, callbacks, finished)
    return {
        **settings,
        "train_accuracy": accuracy(model, *data[0]),
        "test_accuracy": accuracy(model, *data[1]),
    }


def fit(model, task, data, settings, callbacks=(), finished=0):
    """Trains a model.

    Args:
        callbacks: List of Keras callbacks. One may resume the training.
        finished: Integer, number of epochs that it then skips.
    """
    dataset = engine.shuffled_batches(
        *data[0],
        batch_size(task, settings),
        settings["seed"],
        task.augment,
        finished,
    )
    model.fit(
        dataset,
        epochs=settings["epochs"],
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
    )


def seconds(model, task, data, settings):
    """Seconds of an epoch: of the process' CPU, of wall time with a GPU."""
    on_cpu = engine.device_memory() is None
    clock = time.process_time if on_cpu else time.perf_counter
    begin = clock()
    fit(model, task, data, settings)
    return (clock() - begin) / settings["epochs"]


def accuracy(model, x, y, part=500):
    """Accuracy in per cent, at the moving statistics."""
    right = 0
    for begin in range(0, len(x), part):
        logits = model.predict_on_batch(x[begin : begin + part])
        right += np.sum(logits.argmax(-1) == y[begin : begin + part])
    return 100 * float(right) / len(x)


def measure_times(task, data, methods, rounds=ROUNDS):
    """Dict of method to a list of its time per epoch, SAM's being 1, one a
    round.

    The methods train a few epochs each in turn after each has compiled, so that
    their ratios do not depend on what else the machine did. Where the base
    optimizer begins, the time of an epoch is the mean of both parts.
    """
    parts = {"SAM", *(part for m in methods for part in shares(m))}
    (x, y), test = data
    num_train = min(STEPS * task.batch_size, task.num_train)
    data = (x[:num_train], y[:num_train]), test
    models = {}
    for part in sorted(parts):
        settings = {"method": part, "num_train": num_train, "seed": 0}
        # About 20 steps at least, every compiled one about equally often.
        settings["epochs"] = -(-20 // (num_train // task.batch_size))
        settings["rho"] = task.rho
        models[part] = make_model(task, settings), settings
    for model, settings in models.values():
        fit(model, task, data, settings)
    samples = in_turn(
        lambda measured: seconds(measured[0], task, data, measured[1]),
        models,
        rounds,
    )
    return {
        method: (
            sum(
                share * np.array(samples[part])
                for part, share in shares(method).items()
            )
            / np.array(samples["SAM"])
        ).tolist()
        for method in methods
    }


def shares(method):
    """Dict of the methods that a method consists of, and their shares of the
    steps."""
    start = METHODS[method].get("start")
    if start is None:
        return {method: 1.0}
    begin = start(1000) / 1000
    return {"SGD": begin, METHODS[method]["rho_of"]: 1 - begin}
