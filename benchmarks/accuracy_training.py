"""One training of `benchmarks.accuracy`."""

import pathlib
import tempfile
import time

import keras
import tensorflow as tf

import keras_esam
from benchmarks.accuracy_tasks import make_network
from benchmarks.methods import METHODS

HALF_BATCH = "SGD half batch"
STAGES = "ESAM depth, full batches first"


def method_arguments(method, num_steps):
    """Arguments of `ESAMModel`."""
    if method == HALF_BATCH:
        return METHODS["SGD"]
    if method == STAGES:
        gamma = keras.optimizers.schedules.PiecewiseConstantDecay(
            [num_steps // 2], [1.0, 0.5]
        )
        return {**METHODS["ESAM depth"], "gamma": gamma}
    return METHODS[method]


def make_model(task, settings):
    """The compiled model of a method and budget; `start` gives it a seed."""
    num_steps = settings["epochs"] * steps_per_epoch(task, settings)
    model = keras_esam.ESAMModel(
        make_network(task),
        **{
            "rho": settings["rho"],
            **method_arguments(settings["method"], num_steps),
        },
    )
    schedule = keras.optimizers.schedules.CosineDecay(
        task.learning_rate, num_steps
    )
    model.compile(
        keras.optimizers.SGD(schedule, momentum=0.9, weight_decay=5e-4),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    # With its variables the optimizer's state is saved and loaded.
    model.optimizer.build(model.trainable_variables)
    return model


def batch_size(task, settings):
    return task.batch_size // (2 if settings["method"] == HALF_BATCH else 1)


def steps_per_epoch(task, settings):
    return settings["num_train"] // batch_size(task, settings)


def start(model, task, settings):
    """Sets a model to the start of a training with a seed.

    Compilation takes longer than many of the trainings, so a model is used for
    all seeds.
    """
    keras.utils.set_random_seed(settings["seed"])
    fresh = make_model(task, settings)
    fresh.seed = settings["seed"]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "start.weights.h5")
        fresh.save_weights(path)
        model.load_weights(path)


def train(model, task, data, settings):
    """Trains a model and returns what the table needs of it."""
    history, _ = fit(model, task, data, settings)
    (x, y), test = data
    return {
        **settings,
        "train_accuracy": accuracy(model, x, y),
        "test_accuracy": accuracy(model, *test),
        "accuracy_by_epoch": history["accuracy"],
    }


def fit(model, task, data, settings):
    """Trains a model.

    Returns:
        Tuple of the history, and the CPU seconds per epoch.
    """
    x, y = data[0]
    dataset = tf.data.Dataset.from_tensor_slices((x, y))
    dataset = dataset.shuffle(len(x), seed=settings["seed"])
    dataset = dataset.batch(batch_size(task, settings), drop_remainder=True)
    begin = time.process_time()
    history = model.fit(
        without_autotune(dataset),
        epochs=settings["epochs"],
        shuffle=False,
        verbose=0,
    ).history
    return history, (time.process_time() - begin) / settings["epochs"]


def accuracy(model, x, y):
    """Accuracy in per cent, at the moving statistics."""
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(500)
    scores = model.evaluate(
        without_autotune(dataset), verbose=0, return_dict=True
    )
    return 100 * scores["accuracy"]


def without_autotune(dataset):
    """The data set without tf.data's tuner, which can delay its end."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
