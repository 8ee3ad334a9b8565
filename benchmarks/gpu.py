"""All measurements that need a GPU, one after the other.

Command:   python -m benchmarks.table1 --export cifar10.npz --data-dir DIR
           python -m benchmarks.gpu cifar10.npz
Result:    a folder in runs/gpu for each measurement (`benchmarks.throughput`),
           and runs/gpu/table1 (`benchmarks.table1`)
Hardware:  one GPU, with the Keras backend of the environment. A throughput
           takes some minutes; Table 1 at most 25 minutes for each method.

What is there already is left out, so the same command goes on after a cut;
Table 1 needs several calls. Small, on a CPU: --small.
"""

import argparse
import pathlib
import subprocess
import sys

from benchmarks.measurement import PRECISIONS

METHODS = [
    *("bare fit", "SGD", "SAM", "ESAM variable", "ESAM variable by loss"),
    *("ESAM depth", "ESAM depth by loss", "ESAM depth random"),
    *("SWP depth, beta 0.3", "SDS", "one-step", "one-step by loss"),
]
SETTINGS = {
    "resnet18_128": "--network resnet18 --width 64 --batch-size 128",
    "resnet18_256": "--network resnet18 --width 64 --batch-size 256",
    "wider_128": "--network wide_resnet --width 10 --depth 4 --batch-size 128",
    "deeper_128": "--network resnet18 --width 64 --depth 6 --batch-size 128",
}
SMALL = "--network resnet18 --width 4 --depth 1 --batch-size 8 --steps 1"
SMALL_TABLE = "--epochs 2 --width 4 --depth 1 --num-train 500 --num-test 500"


def run(module, *arguments):
    subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)], check=True
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    option = parser.add_argument
    option("data", type=pathlib.Path, help="an .npz file")
    option("--rounds", type=int, default=7)
    option("--minutes", type=float, default=25, help="of Table 1, each method")
    option("--small", action="store_true", help="small networks, two methods")
    option("--out", type=pathlib.Path, default=pathlib.Path("runs/gpu"))
    arguments = parser.parse_args()
    settings, precisions, methods = SETTINGS, PRECISIONS[:2], METHODS
    table = ["--minutes", arguments.minutes]
    if arguments.small:
        settings, precisions = {"small": SMALL}, ["float32"]
        methods = ["SAM", "ESAM depth"]
        table += [*SMALL_TABLE.split(), "--methods", *methods]
    for name, setting in settings.items():
        for precision in precisions:
            out = arguments.out / f"{name}_{precision}"
            if (out / "results.json").exists():
                continue
            options = [*setting.split(), "--precision", precision]
            options += ["--no-scaling", "--rounds", arguments.rounds]
            options += ["--out", out, "--methods", *methods]
            run("benchmarks.throughput", *options)
    out = arguments.out / "table1"
    run("benchmarks.table1", arguments.data, *table, "--out", out)


if __name__ == "__main__":
    main()
