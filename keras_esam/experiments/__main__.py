"""Tables and figures of the ESAM paper.

Usage: python -m keras_esam.experiments table1 --scale small --data-dir DIR

Each writes a JSON file, and a Markdown table, a picture or both. Trainings are
shared by the experiments, done once, and go on after an interruption.
"""

import argparse
import dataclasses
import pathlib

from keras_esam.arguments import check_seed
from keras_esam.experiments import figures
from keras_esam.experiments import tables
from keras_esam.experiments import tensorflow_devices
from keras_esam.experiments import workers
from keras_esam.experiments.locked import locked
from keras_esam.experiments.runs import Runner
from keras_esam.experiments.scales import SCALES
from keras_esam.experiments.scales import Scale

EXPERIMENTS = {
    "table1": tables.table1,
    "table2": tables.table2,
    "table3": tables.table3,
    "figure1": figures.figure1,
    "figure3": figures.figure3,
    "figure4": figures.figure4,
    "figure5": figures.figure5,
    "figure6": figures.figure6,
}
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


def number_of_jobs(wanted: int | None, scale: Scale) -> int:
    """How many trainings there are at a time.

    Raises:
        ValueError: If it can't be as many as wanted.
    """
    if wanted is not None and wanted < 1:
        raise ValueError(f"--jobs must be positive. Received: {wanted}")
    if not tensorflow_devices.has_gpu():
        return wanted or min(scale.num_jobs, workers.num_cpus())
    if (wanted or 1) > 1:
        raise ValueError(
            "On a GPU there is one training at a time, which takes its memory. "
            f"Received: --jobs {wanted}"
        )
    return 1


def chosen(name: str, scale: Scale, only: list[str] | None) -> list[str]:
    """The data sets and networks of a table or figure that are asked for.

    Raises:
        ValueError: If it has not all of them.
    """
    tasks = tables.tasks_of(name, scale)
    if not set(only or ()) <= set(tasks):
        raise ValueError(
            f"--only must be of {', '.join(tasks)} for {name}. "
            f"Received: --only {' '.join(only)}"
        )
    return [task for task in tasks if only is None or task in only]


def main():
    parser = argparse.ArgumentParser(
        prog="python -m keras_esam.experiments",
        usage="%(prog)s NAME [options]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(
            f"{name:8} {function.__doc__.splitlines()[0]}"
            for name, function in EXPERIMENTS.items()
        ),
    )
    option = parser.add_argument
    option("name", choices=EXPERIMENTS, metavar="NAME")
    option("--scale", choices=SCALES, default="small")
    option("--data-dir", help="of tensorflow-datasets")
    option("--photographs", help="class folders, for `table2`")
    option(
        "--only",
        nargs="+",
        metavar="TASK",
        help="rows of a table or panels of `figure1`, as cifar10/resnet18; "
        "the file of the whole table is replaced, the trainings are kept",
    )
    option(
        "--seeds",
        nargs="+",
        type=int,
        help="by default 0 1 2; figures 4 to 6 and the pairs of beta and "
        "gamma in figure 3 have the first one only",
    )
    option("--precision", default="float32", choices=PRECISIONS)
    option(
        "--jobs",
        type=int,
        help="trainings at a time, each with its share of the cores; by "
        "default 2 at the small scale on a CPU, else 1",
    )
    option("--out", type=pathlib.Path, default="runs/experiments")
    arguments = parser.parse_args()
    scale = SCALES[arguments.scale]
    if arguments.seeds:
        seeds = tuple(dict.fromkeys(arguments.seeds))
        scale = dataclasses.replace(scale, seeds=seeds)
    try:
        tasks = chosen(arguments.name, scale, arguments.only)
        for seed in scale.seeds:
            check_seed(seed)
        num_jobs = number_of_jobs(arguments.jobs, scale)
    except ValueError as error:
        parser.error(str(error))
    runner = Runner(
        scale,
        arguments.out,
        arguments.data_dir,
        arguments.photographs,
        num_jobs,
        arguments.precision,
    )
    path = runner.folder / arguments.name
    with locked(runner.folder):
        EXPERIMENTS[arguments.name](runner, tasks, path)
    print(f"Results: {path}.*")


if __name__ == "__main__":
    main()
