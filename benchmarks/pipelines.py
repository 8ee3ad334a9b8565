"""How fast the input pipelines are, beside what training consumes.

Command:   python -m benchmarks.pipelines --data-dir DIR --folder DIR
Result:    runs/pipelines/results.json and results.md
Time:      some 10 minutes on 2 CPU cores

`--data-dir` is the folder in which tensorflow-datasets has CIFAR-10, `--folder`
a tree of photographs in class folders; what is not given is left out. A round
of a pipeline is as many whole epochs as fill some seconds, each with the start
of its iterator and the shuffling. A round of training is a few steps of `fit`,
on one batch that is repeated, which costs no time, and on the pipeline.
"""

import argparse
import functools
import pathlib
import time

import keras
import numpy as np

from benchmarks.engines import engine
from benchmarks.measurement import EpochTimer
from benchmarks.measurement import describe_machine
from benchmarks.measurement import positive
from benchmarks.measurement import write_json
from benchmarks.throughput_report import median_and_quartiles
from benchmarks.throughput_report import quartiles
from keras_esam import data
from keras_esam import models

RESNET18 = "ResNet-18, 32x32"
RESNET50 = "ResNet-50, 224x224"


def make_pipelines(arguments):
    """Dict of name to `tf.data.Dataset`."""
    pipelines = {
        "digits, training": data.digits("train", 100),
        "digits, test": data.digits("test", 100),
    }
    if arguments.data_dir:
        cifar = functools.partial(
            data.cifar,
            "cifar10",
            batch_size=arguments.batch_size,
            data_dir=arguments.data_dir,
        )
        pipelines["CIFAR-10, training"] = cifar("train")
        pipelines["CIFAR-10, training, Cutout"] = cifar("train", cutout=16)
        pipelines["CIFAR-10, test"] = cifar("test")
    if arguments.folder:
        for split, name in (("train", "training"), ("val", "validation")):
            pipelines[f"photographs, {name}"] = data.imagenet(
                split, 32, folder=arguments.folder
            )
    return pipelines


def timed_epochs(dataset, seconds):
    """CPU and wall seconds per image, over whole epochs."""
    start = time.process_time(), time.perf_counter()
    images = 0
    while not images or time.perf_counter() - start[1] < seconds:
        for batch, _ in dataset:
            images += len(batch)
    end = time.process_time(), time.perf_counter()
    return [(b - a) / images for a, b in zip(start, end, strict=True)]


def make_trainings(pipelines, arguments):
    """Dict of name to a function that trains and returns what it took."""
    batch_size = arguments.batch_size
    model = compiled(models.resnet18(width=arguments.width))
    batch = random_batch(batch_size, 32)
    steps = arguments.steps
    trainings = {RESNET18: (model, engine.make_data(batch, steps), batch_size)}
    for name in ("CIFAR-10, training", "CIFAR-10, training, Cutout"):
        if name in pipelines:
            trainings[f"{RESNET18}, on {name}"] = (
                model,
                pipelines[name].take(steps),
                batch_size,
            )
    if arguments.folder and not arguments.no_resnet50:
        batch = random_batch(8, 224)
        model = compiled(models.resnet50())
        dataset = engine.make_data(batch, steps)
        trainings[RESNET50] = (model, dataset, 8)
    return {
        name: functools.partial(timed_training, *what)
        for name, what in trainings.items()
    }


def random_batch(batch_size, image_size):
    shape = (batch_size, image_size, image_size, 3)
    images = np.random.default_rng(0).normal(size=shape).astype("float32")
    return images, np.arange(batch_size, dtype="int32") % 10


def compiled(model):
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    return model


def timed_training(model, dataset, batch_size):
    """CPU and wall seconds per image, from the first to the last batch."""
    timer = EpochTimer(keras.callbacks.Callback)
    model.fit(dataset, shuffle=False, verbose=0, callbacks=[timer.callback])
    images = int(dataset.cardinality()) * batch_size
    return [seconds / images for seconds in timer.seconds]


def measure(arguments):
    """Dict of name to a list of CPU and wall seconds per image, one a round.

    Returns:
        Tuple of the dicts of the pipelines and of the trainings.
    """
    pipelines = make_pipelines(arguments)
    trainings = make_trainings(pipelines, arguments)
    for train in trainings.values():
        train()  # compiles
    for dataset in pipelines.values():
        next(iter(dataset))
    alone = {name: [] for name in pipelines}
    trained = {name: [] for name in trainings}
    for _ in range(arguments.rounds):
        for name, dataset in pipelines.items():
            alone[name].append(timed_epochs(dataset, arguments.seconds))
        for name, train in trainings.items():
            trained[name].append(train())
    return alone, trained


def summarise(samples, reference):
    """Dict of name to a dict of quartiles over the rounds.

    Args:
        samples: Dict as from `measure`.
        reference: List of the same form, of the training that the others are
            compared with, in the same round.

    Returns:
        Dict of name to a dict. `times_the_training` has the ratio of the time
        per image by wall time and by CPU time.
    """
    training = np.transpose(reference)
    rows = {}
    for name, values in samples.items():
        cpu, wall = np.transpose(values)
        rows[name] = {
            "images_per_second": quartiles(1 / wall),
            "cpu_us_per_image": quartiles(1e6 * cpu),
            "times_the_training": {
                "cpu": quartiles(training[0] / cpu),
                "wall": quartiles(training[1] / wall),
            },
        }
    return rows


def markdown(rows):
    """Markdown table of the rows. In brackets are the quartiles."""
    lines = [
        "| | images/s | CPU us/image "
        f"| speed / training of {RESNET18} | by CPU time |",
        "|---" * 5 + "|",
    ]
    for name, row in rows.items():
        rate = row["images_per_second"]
        cells = [
            name,
            median_and_quartiles(rate, 1 if rate[1] < 10 else 0),
            median_and_quartiles(row["cpu_us_per_image"], 0),
        ]
        for clock in ("wall", "cpu"):
            ratio = row["times_the_training"][clock]
            cells.append(median_and_quartiles(ratio, 2 if ratio[1] < 10 else 0))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    option = parser.add_argument
    option("--data-dir", help="of tensorflow-datasets, with CIFAR-10")
    option("--folder", help="around the class folders, train and val")
    option("--batch-size", type=positive, default=128)
    option("--width", type=positive, default=64, help="of the ResNet-18")
    option("--rounds", type=positive, default=5)
    option("--steps", type=positive, default=4, help="of training in a round")
    option("--seconds", type=float, default=2, help="of a pipeline, at least")
    option("--no-resnet50", action="store_true", help="leave it out")
    option("--out", type=pathlib.Path, default=pathlib.Path("runs/pipelines"))
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    keras.utils.set_random_seed(1)
    alone, trained = measure(arguments)
    rows = summarise({**alone, **trained}, trained[RESNET18])
    table = markdown(rows)
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = {
        "machine": describe_machine(),
        "batch_size": arguments.batch_size,
        "width": arguments.width,
        "rows": rows,
        "seconds_per_image": {**alone, **trained},
    }
    write_json(results, arguments.out / "results.json")
    (arguments.out / "results.md").write_text(table)
    print(table)
    print(f"Written to {arguments.out}")


if __name__ == "__main__":
    main()
