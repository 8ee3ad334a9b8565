"""Tables and figures of the ESAM paper.

Usage: python -m benchmarks.paper table1 --scale small --data-dir DIR

  table1   CIFAR-10 and CIFAR-100 on three networks
  table2   ImageNet, or class folders of images, on two networks
  table3   SWP and SDS by themselves, on ResNet-18 and CIFAR-10
  figure1  training speed against accuracy, of the runs of Table 1
  figure3  accuracy and speed by beta and by gamma, and accuracy by both
  figure4  loss landscapes of SGD, SAM, ESAM and SAM on a quarter of the batch
  figure5  losses on B+ and B-, clean and perturbed, per epoch
  figure6  cosine similarity of the gradients of B+ and B- with B's
  figures  all figures
  all      all tables and figures

Each writes a JSON file with the command, the machine and the values, and a
Markdown table, an image or both. Tables and figures share their trainings,
which run once and resume after an interruption.
"""

import argparse
import dataclasses
import importlib
import pathlib

from benchmarks.measurement import PRECISIONS
from benchmarks.paper.scales import SCALES
from benchmarks.paper.scales import Scale
from keras_esam.arguments import check_seed

FIGURES = ["figure1", "figure3", "figure4", "figure5", "figure6"]
# Table 3 first: its speeds serve Table 1 and Figure 1.
TABLES = ["table3", "table1", "table2"]
GROUPS = {"figures": FIGURES, "all": TABLES + FIGURES}


def tasks_of(name: str, scale: Scale) -> list[str]:
    """The data sets and networks of a table or figure, `DATASET/NETWORK`."""
    if name in ("table1", "figure1"):
        networks = ("resnet18", "wrn-28-10", "pyramidnet-110")
        return [f"{d}/{n}" for d in scale.datasets for n in networks]
    if name == "table2":
        return ["imagenet/resnet50", "imagenet/resnet101"]
    return ["cifar10/resnet18"]


def chosen(name: str, scale: Scale, only: list[str] | None) -> dict:
    """The requested tasks, by table or figure."""
    tasks = {n: tasks_of(n, scale) for n in GROUPS.get(name, [name])}
    known = list(dict.fromkeys(sum(tasks.values(), [])))
    if not set(only or ()) <= set(known):
        raise ValueError(
            f"--only must be of {', '.join(known)} for {name}. "
            f"Received: --only {' '.join(only)}"
        )
    own = {n: [t for t in tasks[n] if t in (only or known)] for n in tasks}
    return {name: tasks for name, tasks in own.items() if tasks}


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paper",
        usage="%(prog)s NAME [options]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("name", choices=[*GROUPS["all"], *GROUPS], metavar="NAME")
    option("--scale", choices=SCALES, default="small")
    option("--data-dir", help="of tensorflow-datasets")
    option("--photographs", help="class folders of images, for `table2`")
    text = "rows of a table or panels of `figure1`, as cifar10/resnet18; the "
    text += "file of the whole table is replaced, the trainings are kept"
    option("--only", nargs="+", metavar="TASK", help=text)
    text = "by default 0 1 2; figures 4 to 6 and the pairs of beta and gamma "
    text += "in figure 3 have the first one only"
    option("--seeds", nargs="+", type=int, help=text)
    option("--precision", default="float32", choices=PRECISIONS)
    text = "trainings at a time, each with its share of the cores; by default "
    text += "2 at the small scale on a CPU, else 1"
    option("--jobs", type=int, help=text)
    option("--out", type=pathlib.Path, default="runs/paper")
    return parser


def main():
    parser = make_parser()
    arguments = parser.parse_args()
    scale = SCALES[arguments.scale]
    if arguments.seeds:
        seeds = tuple(dict.fromkeys(arguments.seeds))
        scale = dataclasses.replace(scale, seeds=seeds)
    # Imported here, since --help needs no optional package.
    from benchmarks import report
    from benchmarks.paper import runs
    from benchmarks.paper import workers
    from examples.run_folder import locked
    from examples.run_folder import write_json

    try:
        tasks = chosen(arguments.name, scale, arguments.only)
        for seed in scale.seeds:
            check_seed(seed)
        num_jobs = workers.number_of_jobs(arguments.jobs, scale.num_jobs)
    except ValueError as error:
        parser.error(str(error))
    images = runs.Images(scale, arguments.data_dir, arguments.photographs)
    folder, precision = arguments.out / scale.name, arguments.precision
    runner = runs.Runner(scale, folder, images, num_jobs, precision)
    # Missing packages are an error now, not after days of training.
    makers = {name: maker_of(name) for name in tasks}
    for task in sum(tasks.values(), []):
        images.test(scale.recipe(f"{task}/sgd"))
    with locked(folder):
        for name, own in tasks.items():
            values = makers[name](runner, own, folder / name)
            values = report.with_origin({"values": values})
            write_json(values, folder / f"{name}.json")
            print(f"Results: {folder / name}.*")


def maker_of(name: str):
    """The function of a table or figure. Figures need Matplotlib."""
    module = "figures" if name in FIGURES else "tables"
    module = importlib.import_module(f"benchmarks.paper.{module}")
    return getattr(module, name)


if __name__ == "__main__":
    main()
