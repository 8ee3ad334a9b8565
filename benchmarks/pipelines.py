"""Measures the speed of the input pipelines beside what training consumes.

Command:   python -m benchmarks.pipelines --data-dir DIR --folder DIR
           python -m benchmarks.pipelines --report FILE  (table of a result)
Result:    a table; runs/pipelines/results.json and results.md
Time:      some 10 minutes on 2 CPU cores

`--data-dir` is the folder in which tensorflow-datasets has CIFAR-10, `--folder`
a tree of images in class folders; a missing one is left out. A round of a
pipeline is as many whole epochs as fill some seconds. Each epoch includes the
start of its iterator and the shuffling. A round of training is a few steps of
`fit`, on one repeated batch, which costs no time, and on the pipeline.
"""

import argparse
import functools

import keras

from benchmarks import report
from benchmarks.engines import engine
from benchmarks.measurement import clocks
from benchmarks.measurement import compile_model
from benchmarks.measurement import in_turn
from benchmarks.measurement import make_batch
from benchmarks.measurement import positive
from benchmarks.measurement import timed_epoch
from keras_esam import models

SECONDS = 2  # of a pipeline in a round, at least
RESNET18 = "ResNet-18, 32x32"
RESNET50 = "ResNet-50, 224x224"


def make_pipelines(arguments):
    """Dict of name to `tf.data.Dataset`."""
    from keras_esam import data

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
            pipelines[f"class folders, {name}"] = data.imagenet(
                split, 32, folder=arguments.folder
            )
    return pipelines


def timed_epochs(dataset, seconds):
    """CPU and wall seconds per image, over whole epochs."""
    start = clocks()
    images = 0
    while not images or clocks()[1] - start[1] < seconds:
        for batch, _ in dataset:
            images += len(batch)
    return list((clocks() - start) / images)


def make_trainings(pipelines, arguments):
    """Dict of name to the model, the data and the batch size of a training."""
    model = models.resnet18(width=arguments.width)
    small = compile_model(model, jit_compile=False)
    size = arguments.batch_size
    trainings = {RESNET18: (small, engine.make_data(make_batch(size)), size)}
    for name in ("CIFAR-10, training", "CIFAR-10, training, Cutout"):
        if name in pipelines:
            on_pipeline = small, pipelines[name].repeat(), size
            trainings[f"{RESNET18}, on {name}"] = on_pipeline
    if arguments.folder:
        large = compile_model(models.resnet50(), jit_compile=False)
        batch = make_batch(8, (224, 224, 3))
        trainings[RESNET50] = large, engine.make_data(batch), 8
    return trainings


def measure(arguments):
    """Dict of name to a list of CPU and wall seconds per image, one a round."""
    pipelines = make_pipelines(arguments)
    trainings = make_trainings(pipelines, arguments)

    def time_of(measured):
        if not isinstance(measured, tuple):
            return timed_epochs(measured, SECONDS)
        model, dataset, batch_size = measured
        seconds = timed_epoch(model, dataset, arguments.steps)
        return list(seconds / (arguments.steps * batch_size))

    for training in trainings.values():
        time_of(training)  # compiles
    for dataset in pipelines.values():
        next(iter(dataset))
    return in_turn(time_of, pipelines | trainings, arguments.rounds)


def tables(results):
    """Quartiles over the rounds of the compared times per image."""
    cpu, wall = report.cpu_and_wall(results["seconds_per_image"])

    def quartiles(values):
        digits = 2 if values.median() < 10 else 0
        return report.median_and_quartiles(values, digits=digits)

    columns = {
        "images/s": 1 / wall,
        "CPU us/image": 1e6 * cpu,
        f"speed / training of {RESNET18}": wall.rdiv(wall[RESNET18], axis=0),
        "by CPU time": cpu.rdiv(cpu[RESNET18], axis=0),
    }
    rows = {title: values.agg(quartiles) for title, values in columns.items()}
    return {"": report.frame(rows).rename_axis("")}


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    report.add_options(parser, "pipelines")
    option = parser.add_argument
    option("--data-dir", help="of tensorflow-datasets, with CIFAR-10")
    option("--folder", help="around the class folders, train and val")
    option("--batch-size", type=positive, default=128)
    option("--width", type=positive, default=64, help="of the ResNet-18")
    option("--rounds", type=positive, default=5)
    option("--steps", type=positive, default=4, help="of training in a round")
    return parser.parse_args(arguments)


def main(arguments=None):
    arguments = parse_arguments(arguments)
    if arguments.report:
        return report.show(arguments.report, tables)
    keras.utils.set_random_seed(1)
    results = {
        "batch_size": arguments.batch_size,
        "width": arguments.width,
        "seconds_per_image": measure(arguments),
    }
    report.write(arguments.out, results, tables)


if __name__ == "__main__":
    main()
