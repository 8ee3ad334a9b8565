"""Options, model and run folder of the two training scripts.

A kill at any moment damages no file of a run: each is written under another
name and then renamed. The backup of the last finished epoch decides what the
others hold. Of several workers the chief writes them.
"""

import argparse
import contextlib
import dataclasses
import math
import pathlib
import statistics

import keras

import keras_esam
from examples import run_folder
from keras_esam import ascent
from keras_esam import recipes
from keras_esam import selection
from keras_esam import subsets
from keras_esam.extras import requires

with requires("tensorflow"):  # The pipelines need it on all backends.
    import tensorflow as tf

STRATEGIES = {
    "none": tf.distribute.get_strategy,
    "mirrored": tf.distribute.MirroredStrategy,
    "multiworker": tf.distribute.MultiWorkerMirroredStrategy,
}
IS_TENSORFLOW = keras.backend.backend() == "tensorflow"
# Options that replace the recipe's values and its arguments of ESAMModel.
TRAINING = {
    "epochs": {"type": int, "help": "of the training"},
    "batch_size": {"type": int, "help": "of all replicas together"},
    "learning_rate": {"type": float, "help": "first one of a cosine decay"},
    "weight_decay": {"type": float, "help": "as in PyTorch"},
    "momentum": {"type": float, "help": "of SGD"},
}
ESAM = {
    "rho": {"type": float, "help": "0: the base optimizer"},
    "ascent_fraction": {"type": float, "help": "of a batch"},
    "start": {"type": int, "help": "first sharpness-aware step"},
    "beta": {"type": float, "help": "fraction of the variables"},
    "gamma": {"type": float, "help": "fraction of the samples"},
    "granularity": {"choices": subsets.GRANULARITIES, "help": "of SWP"},
    "rank_by": {"choices": selection.RANKINGS, "help": "ranking of SDS"},
    "ascent": {"choices": ascent.ASCENTS, "help": "gradient that is followed"},
    "ascent_scope": {"choices": ascent.SCOPES, "help": "on several devices"},
    "micro_batch_size": {"type": int, "help": "m of m-sharpness, 0: none"},
    "scale": {"choices": ascent.SCALES, "help": "of SWP's perturbation"},
    "adaptive": {"action": argparse.BooleanOptionalAction, "help": "ASAM"},
}
# Settings that may change when a run resumes: file locations and the kind of
# strategy. The number of replicas is part of the method and may not change.
FREE = ("out", "data_dir", "folder", "strategy", "name", "esam", "sources")


def make_parser(description, recipe):
    """Makes the option parser, with recipes of the same kind as `recipe`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    option = parser.add_argument
    names = [name for name in recipes.names() if name.startswith(recipe[:5])]
    parts = zip(*(name.split("/") for name in names), strict=True)
    some = "DATASET/NETWORK/METHOD of\n" + "".join(
        f"{', '.join(dict.fromkeys(part))}\n" for part in parts
    )
    some += f"(default: {recipe})"
    option("--recipe", default=recipe, choices=names, metavar="NAME", help=some)
    given = parser.add_argument_group("the recipe's values are the defaults of")
    for name, settings in {**TRAINING, **ESAM}.items():
        given.add_argument(f"--{name.replace('_', '-')}", **settings)
    option("--subset", type=int, help="training samples (default: all)")
    precision = "a Keras dtype policy (default: float32)"
    option("--precision", default="float32", help=precision)
    choices = list(STRATEGIES)
    option(
        "--strategy",
        default="none",
        choices=choices,
        type=check_strategy,
        help="of tf.distribute (default: none)",
    )
    option("--seed", type=int, default=0, help="(default: 0)")
    data_dir = "of tensorflow-datasets (default: its own)"
    option("--data-dir", help=data_dir)
    option("--out", type=pathlib.Path, help="(default: runs/RECIPE)")
    return parser


def check_strategy(name):
    """Returns the name; an error if Keras' backend has no such strategy."""
    if name in STRATEGIES and name != "none" and not IS_TENSORFLOW:
        raise argparse.ArgumentTypeError(
            "must be none unless KERAS_BACKEND is tensorflow. "
            f"Received: {name} with KERAS_BACKEND={keras.backend.backend()}"
        )
    return name


def make_recipe(arguments):
    """The recipe, with the values of the command line instead of its own."""
    recipe = recipes.get(arguments.recipe)
    given = {k: v for k, v in vars(arguments).items() if v is not None}
    changed = {k: given[k] for k in TRAINING if k in given}
    esam = {k: given[k] for k in ESAM if k in given}
    if esam.get("micro_batch_size") == 0:
        esam["micro_batch_size"] = None
    return dataclasses.replace(recipe, **changed, esam={**recipe.esam, **esam})


def start(arguments):
    """Sets seed and precision. Returns the scope for making the model."""
    if not IS_TENSORFLOW:
        # TensorFlow only makes batches, and would take the GPUs' memory.
        tf.config.set_visible_devices([], "GPU")
    # Before any computation, or the workers can not be connected.
    strategy = STRATEGIES[arguments.strategy]()
    keras.utils.set_random_seed(arguments.seed)
    keras.config.set_dtype_policy(arguments.precision)
    return strategy.scope()


def make_model(network, recipe, num_steps, seed):
    """The compiled model of a run of `num_steps` steps."""
    model = keras_esam.ESAMModel(network, seed=seed, **recipe.esam)
    model.compile(
        recipe.make_optimizer(num_steps),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def fit(model, train, validation, counter, recipe, arguments, out, **more):
    """Trains or resumes, saves the network, and reports the results.

    The run in `out` must have the same settings, `more` among them.
    """
    # Without a strategy, or on another backend: a single device.
    default = tf.distribute.get_strategy()
    strategy = getattr(model, "distribute_strategy", default)
    is_chief = strategy.extended.should_checkpoint
    settings = vars(arguments) | vars(recipe) | recipe.esam | more
    settings |= {
        "steps_per_epoch": len(train),
        # Each has its own perturbation and selection of samples.
        "num_replicas": strategy.num_replicas_in_sync,
    }
    settings = {k: v for k, v in settings.items() if k not in FREE}
    with run_folder.locked(out) if is_chief else contextlib.nullcontext():
        backup = keras_esam.callbacks.AtomicBackup(out / "backup")
        path = out / "settings.json"
        if backup.history:
            run_folder.check_settings(settings, run_folder.read_json(path), out)
        elif is_chief:
            run_folder.write_json(settings, path)
        callbacks = [backup]
        if is_chief:
            board = keras.callbacks.TensorBoard(out / "tensorboard")
            best = BestWeights(out / "best.weights.h5", backup)
            callbacks = [board, backup, best]
        throughput = keras_esam.callbacks.ThroughputLogger()
        model.fit(
            train,
            epochs=recipe.epochs,
            validation_data=validation,
            shuffle=False,  # The pipeline shuffles.
            verbose="auto" if is_chief else 0,
            callbacks=[counter, throughput, *callbacks],
        )
        if is_chief:
            run_folder.save_whole(model.model.save, out / "last.keras")
            report(arguments, recipe, backup.history, out)


class BestWeights(keras.callbacks.Callback):
    """Saves the network's weights whenever `val_accuracy` is the highest yet.

    It comes after its `AtomicBackup`. At the start of a training it does what a
    kill may have prevented after the last epoch.
    """

    def __init__(self, path, backup):
        super().__init__()
        self.path = path
        self.backup = backup

    def on_train_begin(self, logs=None):
        if self.backup.history:
            self.on_epoch_end(None)

    def on_epoch_end(self, epoch, logs=None):
        *before, last = (row["val_accuracy"] for row in self.backup.history)
        if last > max(before, default=-math.inf):
            run_folder.save_whole(self.model.model.save_weights, self.path)


def report(arguments, recipe, history, out):
    """Writes and prints the results of a run."""
    last = history[-1]
    rates = [row["images_per_second"] for row in history]
    # An epoch too short to time has no rate.
    rates = [rate for rate in rates if math.isfinite(rate)] or [math.nan]
    used = {name: getattr(recipe, name) for name in TRAINING}
    result = {
        "recipe": recipe.name,
        "settings": {**vars(arguments), **used, "out": str(out)},
        "esam": dict(recipe.esam),
        "keras": keras.__version__,
        "keras_esam": keras_esam.__version__,
        "test_accuracy": last["val_accuracy"],
        "best_test_accuracy": max(row["val_accuracy"] for row in history),
        "train_accuracy": last["accuracy"],
        "images_per_second": statistics.median(rates),
        "history": history,
    }
    run_folder.write_json(result, out / "result.json")
    print(
        f"\n{recipe.name}: test accuracy {result['test_accuracy']:.2%}, "
        f"training accuracy {result['train_accuracy']:.2%}, "
        f"{result['images_per_second']:.0f} images/s\nResults: {out}"
    )
