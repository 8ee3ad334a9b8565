"""Tables and figures of the ESAM paper.

Usage: python -m keras_esam.experiments table1 --scale small --data-dir DIR

Each writes a JSON file, and a Markdown table, a picture or both. Trainings are
shared by the experiments, done once, and go on after an interruption.
"""

import argparse
import pathlib

from keras_esam.experiments import figures
from keras_esam.experiments import tables
from keras_esam.experiments.runs import Runner
from keras_esam.experiments.scales import SCALES

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


def main():
    parser = argparse.ArgumentParser(
        prog="python -m keras_esam.experiments",
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
    option("--jobs", type=int, default=1, help="trainings at a time, on a CPU")
    option("--out", type=pathlib.Path, default="runs/experiments")
    arguments = parser.parse_args()
    if arguments.jobs < 1:
        parser.error(f"--jobs must be positive. Received: {arguments.jobs}")
    runner = Runner(
        SCALES[arguments.scale],
        arguments.out,
        arguments.data_dir,
        arguments.photographs,
        arguments.jobs,
    )
    runner.folder.mkdir(parents=True, exist_ok=True)
    path = runner.folder / arguments.name
    EXPERIMENTS[arguments.name](runner, path)
    print(f"Results: {path}.*")


if __name__ == "__main__":
    main()
