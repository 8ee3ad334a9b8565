"""Trainings that run once; an interrupted training resumes."""

import dataclasses
import json
import pathlib

import keras

import keras_esam
from benchmarks.paper import workers
from benchmarks.paper.images import Images
from benchmarks.paper.scales import Scale
from examples import fitting
from examples.run_folder import check_settings
from examples.run_folder import read_json
from examples.run_folder import write_json
from keras_esam import callbacks
from keras_esam.recipes import Recipe

# The trainings of figures 4 to 6, by label; in 5 and 6 with B+ of that size,
# whatever the training keeps.
PROBED = {
    "SAM": "cifar10/resnet18/sam",
    "ESAM": "cifar10/resnet18/esam",
    "SAM, quarter": "cifar10/resnet18/sam-quarter",
}
PROBED_GAMMA = 0.5


@dataclasses.dataclass(frozen=True)
class Run:
    """One training."""

    recipe: str
    seed: int  # of weights, order of the data and `ESAMModel`
    # Pairs `(name, value)`: arguments of `ESAMModel` that replace the recipe's.
    esam: tuple = ()


@dataclasses.dataclass(frozen=True)
class Runner:
    """Runs missing trainings, and prints the remaining time.

    Args:
        scale: `Scale`.
        folder: Path, contains a folder for each run.
        images: `Images`.
        num_jobs: Integer, number of trainings at a time, on a CPU.
        precision: String, the dtype policy of the networks.
    """

    scale: Scale
    folder: pathlib.Path
    images: Images
    num_jobs: int = 1
    precision: str = "float32"

    def results(self, runs: list[Run]) -> list[dict]:
        """The results of runs, in their order.

        Raises:
            ValueError: If a run's folder has a result of other settings.
        """
        missing = {self.name(run): run for run in runs if not self._read(run)}
        self._train_all(list(missing.values()))
        return [self._read(run) for run in runs]

    def _train_all(self, runs):
        num_jobs = min(self.num_jobs, len(runs))
        if runs:
            print(f"{len(runs)} trainings, {num_jobs} at a time", flush=True)
        total = sum(map(self._epochs_left, runs))
        bar = keras.utils.Progbar(total, unit_name="epoch", interval=5.0)
        if num_jobs > 1:
            for _ in workers.call_beside(self.train, runs, num_jobs):
                bar.update(total - sum(map(self._epochs_left, runs)))
        else:
            for run in runs:
                self.train(run, lambda *_: bar.add(1))

    def name(self, run: Run) -> str:
        """Name of a run's folder; equal trainings have the same name."""
        changes = [f"{key}={value}" for key, value in self._changes(run)]
        parts = [run.recipe.replace("/", "-"), *changes, f"{run.seed}"]
        return "-".join(parts)

    def folder_of(self, run: Run) -> pathlib.Path:
        return self.folder / self.name(run)

    def recipe(self, run: Run) -> Recipe:
        recipe = self.scale.recipe(run.recipe)
        return dataclasses.replace(recipe, esam=recipe.esam | dict(run.esam))

    def make_model(self, run: Run, num_steps: int) -> keras_esam.ESAMModel:
        """The compiled model of a run, with its initial weights."""
        recipe = self.recipe(run)
        keras.utils.set_random_seed(run.seed)
        keras.config.set_dtype_policy(self.precision)
        make = self.scale.stand_ins.get(recipe.network, recipe.make_network)
        network = make(**self._sizes(recipe))
        return fitting.make_model(network, recipe, num_steps, run.seed)

    def trained_network(self, run: Run) -> keras.Model:
        """The network of a finished run."""
        return keras.saving.load_model(self.folder_of(run) / "network.keras")

    def settings(self, run: Run) -> dict:
        """Everything that a run's result depends on, for JSON."""
        recipe = self.recipe(run)
        names = ("epochs", "batch_size", "learning_rate", "weight_decay")
        stand_in = self.scale.stand_ins.get(recipe.network)
        settings = {
            "recipe": recipe.name,
            "seed": run.seed,
            **{name: getattr(recipe, name) for name in (*names, "momentum")},
            "precision": self.precision,
            "esam": dict(recipe.esam),
            "num_samples": self.images.num_samples(recipe),
            "augment": self.scale.augment,
            "sizes": self._sizes(recipe),
            "stand_in": stand_in and stand_in.__name__,
            "images": self.images.source(recipe),
            "class_names": self.images.class_names(recipe),
        }
        return json.loads(json.dumps(settings))

    def describe(self, task: str) -> list[str]:
        """Network and images of a task, `DATASET/NETWORK`, at the scale."""
        settings = self.settings(Run(f"{task}/sgd", 0))
        network = settings["stand_in"] or task.split("/")[1]
        sizes = ", ".join(f"{k}={v}" for k, v in settings["sizes"].items())
        count = settings["num_samples"] or "all"
        parts = [
            f"{network}({sizes})" if sizes else network,
            f"{count} images of {settings['images']}",
        ]
        return parts + [self.precision] * (self.precision != "float32")

    def _changes(self, run):
        own = self.scale.recipe(run.recipe).esam
        return [
            (key, value) for key, value in run.esam if own.get(key) != value
        ]

    def _sizes(self, recipe):
        """The scale's arguments of the network's function."""
        sizes = dict(self.scale.sizes.get(recipe.network, {}))
        if recipe.dataset == "imagenet":
            sizes["num_classes"] = self.images.num_classes(recipe)
        return sizes

    def _read(self, run):
        """The result of a run, `{}` if it is not finished."""
        path = self.folder_of(run)
        if (path / "result.json").exists() or (path / "backup").exists():
            before = read_json(path / "settings.json")
            check_settings(self.settings(run), before, path)
        return read_json(path / "result.json")

    def _backup(self, run):
        return callbacks.AtomicBackup(self.folder_of(run) / "backup")

    def _epochs_left(self, run):
        return self.recipe(run).epochs - len(self._backup(run).history)

    def train(self, run: Run, on_epoch_end=None):
        """Trains to the end, and writes the result."""
        keras.backend.clear_session()
        recipe = self.recipe(run)
        path = self.folder_of(run)
        counter = callbacks.EpochCounter()
        train = self.images.training(recipe, run.seed, counter.epoch)
        model = self.make_model(run, recipe.epochs * len(train))
        path.mkdir(parents=True, exist_ok=True)
        write_json(self.settings(run), path / "settings.json")
        backup = self._backup(run)
        watching = [counter, callbacks.ThroughputLogger()]
        if run.recipe in PROBED.values() and not self._changes(run):
            probe, rho = self.images.probe(recipe), recipe.esam["rho"]
            watching.append(
                callbacks.SharpnessLogger(probe, rho=rho, gamma=PROBED_GAMMA)
            )
        progress = keras.callbacks.LambdaCallback(on_epoch_end=on_epoch_end)
        model.fit(
            train,
            epochs=recipe.epochs,
            shuffle=False,
            verbose=0,
            callbacks=[*watching, backup, progress],
        )
        test = self.images.test(recipe)
        scores = model.evaluate(test, verbose=0, return_dict=True)
        model.model.save(path / "network.keras")
        result = {
            "test_accuracy": 100 * scores["accuracy"],
            "train_accuracy": 100 * backup.history[-1]["accuracy"],
            "history": backup.history,
        }
        write_json(result, path / "result.json")
