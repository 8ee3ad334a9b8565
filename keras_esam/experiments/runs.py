"""Trainings of an experiment: each is done once, and goes on after a kill."""

import dataclasses
import json
import math
import pathlib

import keras

import keras_esam
from keras_esam import callbacks
from keras_esam.experiments import workers
from keras_esam.experiments.images import Images
from keras_esam.experiments.progress import EpochBar
from keras_esam.experiments.progress import announced
from keras_esam.experiments.scales import Scale
from keras_esam.recipes import Recipe

# As in the paper's figures 5 and 6, whatever the training keeps.
PROBED_GAMMA = 0.5


@dataclasses.dataclass(frozen=True)
class Run:
    """One training.

    Args:
        label: String, the name of the method in tables and pictures.
        recipe: String, name of the recipe.
        seed: Integer, of weights, order of the data and `ESAMModel`.
        esam: Tuple of pairs `(name, value)`, arguments of `ESAMModel` that are
            not those of the recipe.
        probed: Boolean, whether `SharpnessLogger` measures after each epoch,
            which changes nothing but the time.
    """

    label: str
    recipe: str
    seed: int
    esam: tuple = ()
    probed: bool = False


class Runner:
    """Trains what is not there yet, and says how long it still takes.

    Args:
        scale: `Scale`.
        folder: Path of the folder with a folder for each run.
        data_dir: Optional string, folder of tensorflow-datasets.
        photographs: Optional string, tree of class folders instead of ImageNet.
        num_jobs: Integer, number of trainings at a time, on a CPU.
        precision: String, the dtype policy of the networks.
    """

    def __init__(
        self,
        scale: Scale,
        folder: pathlib.Path,
        data_dir: str | None = None,
        photographs: str | None = None,
        num_jobs: int = 1,
        precision: str = "float32",
    ):
        self.scale = scale
        self.num_jobs = num_jobs
        self.precision = precision
        self.folder = folder / scale.name
        self.images = Images(scale, data_dir, photographs)

    def results(self, runs: list[Run]) -> list[dict]:
        """The results of runs, in their order.

        Raises:
            ValueError: If there is one of other settings in a run's folder.
        """
        missing = {
            self.name(run): run
            for run in runs
            if self._read(self._taken(run)) is None
        }
        recipes = map(self.recipe, missing.values())
        for recipe in {own.dataset: own for own in recipes}.values():
            self.images.test(recipe)  # or else an error after days
        epochs = {name: self._epochs_left(run) for name, run in missing.items()}
        if min(self.num_jobs, len(missing)) > 1:
            self._train_beside(list(missing.values()), sum(epochs.values()))
        else:
            for name in announced(epochs):
                self.train(missing[name], show_progress=True)
        return [self._read(self._taken(run)) for run in runs]

    def _train_beside(self, runs, num_epochs):
        num_jobs = min(self.num_jobs, len(runs))
        print(f"{len(runs)} trainings, {num_jobs} at a time", flush=True)
        bar = keras.utils.Progbar(num_epochs, unit_name="epoch", interval=5.0)
        done = 0
        for _ in workers.call_beside(self.train, runs, num_jobs):
            before = done
            done = num_epochs - sum(map(self._epochs_left, runs))
            if done > before:
                bar.update(done)

    def name(self, run: Run) -> str:
        """Name of the folder of a run: equal trainings have the same one."""
        own = self.scale.recipe(run.recipe).esam
        changes = [f"{k}={v}" for k, v in run.esam if own.get(k) != v]
        probed = ["probed"] if run.probed else []
        parts = [run.recipe.replace("/", "-"), *changes, *probed, f"{run.seed}"]
        return "-".join(parts)

    def folder_of(self, run: Run) -> pathlib.Path:
        """Folder of a run that is finished."""
        return self._path(self._taken(run))

    def recipe(self, run: Run) -> Recipe:
        recipe = self.scale.recipe(run.recipe)
        esam = {**recipe.esam, **dict(run.esam)}
        return dataclasses.replace(recipe, esam=esam)

    def make_model(self, run: Run, num_steps: int) -> keras_esam.ESAMModel:
        """The compiled model of a run, with its initial weights."""
        recipe = self.recipe(run)
        keras.utils.set_random_seed(run.seed)
        keras.config.set_dtype_policy(self.precision)
        network = self.scale.make_network(recipe, **self._sizes(recipe))
        model = keras_esam.ESAMModel(network, seed=run.seed, **recipe.esam)
        model.compile(
            recipe.make_optimizer(num_steps),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        return model

    def trained_network(self, run: Run) -> keras.Model:
        """The network of a run that is finished."""
        return keras.saving.load_model(self.folder_of(run) / "network.keras")

    def _path(self, run):
        return self.folder / self.name(run)

    def _taken(self, run):
        """The run whose result is taken: one that is probed as well does too,
        if it alone is finished."""
        probed = dataclasses.replace(run, probed=True)
        if self._read(run) is None and self._read(probed) is not None:
            return probed
        return run

    def settings(self, run: Run) -> dict:
        """All that the result of a run depends on, for JSON."""
        recipe = self.recipe(run)
        return {
            "recipe": recipe.name,
            "seed": run.seed,
            "epochs": recipe.epochs,
            "batch_size": recipe.batch_size,
            "learning_rate": recipe.learning_rate,
            "weight_decay": recipe.weight_decay,
            "momentum": recipe.momentum,
            "precision": self.precision,
            "esam": dict(recipe.esam),
            "num_samples": self.images.num_samples(recipe),
            "augment": self.scale.augment,
            "sizes": {
                name: list(size) if isinstance(size, tuple) else size
                for name, size in self._sizes(recipe).items()
            },
            "stand_in": self.scale.stand_ins.get(recipe.network),
            "images": self.images.source(recipe),
            "class_names": self.images.class_names(recipe),
        }

    def describe(self, task: str) -> list[str]:
        """Network and images of a task, as the scale has them.

        Args:
            task: String, `DATASET/NETWORK`.
        """
        run = Run("SGD", f"{task}/sgd", 0)
        recipe, settings = self.recipe(run), self.settings(run)
        network = settings["stand_in"] or recipe.network
        sizes = ", ".join(f"{k}={v}" for k, v in settings["sizes"].items())
        count = settings["num_samples"] or "all"
        parts = [
            f"{network}({sizes})" if sizes else network,
            f"{count} images of {settings['images']}",
        ]
        if self.precision != "float32":
            parts.append(self.precision)
        return parts

    def _sizes(self, recipe):
        """Arguments of the network's function. The recipes of CIFAR have the
        number of classes."""
        sizes = dict(self.scale.sizes.get(recipe.network, {}))
        if recipe.dataset == "imagenet":
            sizes["num_classes"] = self.images.num_classes(recipe)
        return sizes

    def _read(self, run):
        """Its result, `None` if it is not finished."""
        path = self._path(run)
        settings, result = path / "settings.json", path / "result.json"
        if result.exists() or (path / "backup").exists():
            found, own = _read_json(settings) or {}, self.settings(run)
            keys = {**own, **found}
            changed = [key for key in keys if own.get(key) != found.get(key)]
            if changed:
                now, before = (
                    {key: settings_of.get(key) for key in changed}
                    for settings_of in (own, found)
                )
                raise ValueError(
                    f"`{path}` is of a run with other settings. Choose another "
                    f"folder with --out. Received: {now}, "
                    f"but {settings.name} has {before}"
                )
        return _read_json(result)

    def _backup(self, run):
        return callbacks.AtomicBackup(self._path(run) / "backup")

    def _epochs_left(self, run):
        return self.recipe(run).epochs - len(self._backup(run).history)

    def train(self, run: Run, show_progress: bool = False):
        """Trains to the end, and writes the result.

        Args:
            run: `Run`.
            show_progress: Boolean, whether there is a bar over the epochs.
        """
        keras.backend.clear_session()
        recipe = self.recipe(run)
        path = self._path(run)
        counter = callbacks.EpochCounter()
        train = self.images.training(recipe, run.seed, counter.epoch)
        test = self.images.test(recipe)
        model = self.make_model(run, recipe.epochs * len(train))
        path.mkdir(parents=True, exist_ok=True)
        write_json(self.settings(run), path / "settings.json")
        backup = self._backup(run)
        watching = [counter, callbacks.ThroughputLogger()]
        if show_progress:
            watching.append(EpochBar(len(backup.history)))
        if run.probed:
            esam = recipe.esam
            watching.append(
                callbacks.SharpnessLogger(
                    self.images.probe(recipe),
                    rho=esam["rho"],
                    gamma=PROBED_GAMMA,
                )
            )
        model.fit(
            train,
            epochs=recipe.epochs,
            shuffle=False,
            verbose=0,
            callbacks=[*watching, backup],
        )
        scores = model.evaluate(test, verbose=0, return_dict=True)
        model.model.save(path / "network.keras")
        result = {
            "test_accuracy": 100 * scores["accuracy"],
            "train_accuracy": 100 * backup.history[-1]["accuracy"],
            "history": backup.history,
        }
        write_json(result, path / "result.json")


def write_json(value, path: pathlib.Path):
    """Writes a file that is there as a whole or not at all.

    JSON has no numbers that are not finite: they become `null`.
    """
    unfinished = path.with_suffix(".unfinished")
    text = json.dumps(_without_nan(value), indent=1, allow_nan=False)
    unfinished.write_text(text + "\n")
    unfinished.replace(path)


def _without_nan(value):
    if isinstance(value, dict):
        return {key: _without_nan(own) for key, own in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(own) for own in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _read_json(path):
    """What the file has, `None` if there is none."""
    return json.loads(path.read_text()) if path.exists() else None
