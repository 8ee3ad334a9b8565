"""All measurements that need a GPU, one after the other.

Install:   pip install -e . "jax[cuda12]" matplotlib      (or torch matplotlib)
Command:   python -m benchmarks.table1 --export cifar10.npz --data-dir DIR
           KERAS_BACKEND=jax python -m benchmarks.gpu cifar10.npz --seeds 3
Result:    runs/gpu/summary.md: speeds relative to SAM, images/s and memory of
           every setting and method, each with a folder from
           `benchmarks.throughput`; runs/gpu/table1 from `benchmarks.table1`
Hardware:  one GPU. A method takes some minutes in each setting, and in Table 1
           at most 25 minutes a call.

What is there already is left out, and what was compiled is kept, so the same
command goes on after a cut. --settings and --methods do a part. Each method is
measured in turn with SAM, in a process of its own; its first use is short if
its steps were compiled before. The operations do not depend on the precision,
and are counted in float32 alone.

Small, on a CPU: --small. What would run: --dry-run.
"""

import argparse
import json
import os
import pathlib
import shlex
import subprocess
import sys

from benchmarks import table1
from benchmarks import throughput_report as report
from benchmarks.measurement import BARE
from benchmarks.measurement import PRECISIONS
from benchmarks.measurement import write_json
from benchmarks.methods import METHODS
from benchmarks.methods import file_name

MEASURED = [
    *(BARE, "SGD", "SAM", "SWP variable", "SWP depth", "SWP depth, beta 0.3"),
    *("SDS", "SDS by loss", "ESAM weight", "ESAM variable"),
    *("ESAM variable by loss", "ESAM variable random", "ESAM depth"),
    *("ESAM depth by loss", "ESAM depth random", "one-step"),
    "one-step by loss",
]
NETWORKS = {
    "resnet18_128": "--network resnet18 --width 64 --batch-size 128",
    "resnet18_256": "--network resnet18 --width 64 --batch-size 256",
    "wider_128": "--network wide_resnet --width 10 --depth 4 --batch-size 128",
    "deeper_128": "--network resnet18 --width 64 --depth 6 --batch-size 128",
}
TABLE1 = "table1"
SETTINGS = {
    f"{name}_{precision}": f"{options} --precision {precision} --steps 50"
    for name, options in NETWORKS.items()
    for precision in PRECISIONS[:2]
}
SMALL = {
    "small_float32": "--network resnet18 --width 8 --batch-size 16 --steps 1"
}
SMALL_TABLE1 = "--epochs 2 --width 4 --depth 1 --num-train 100 --num-test 100"
SMALL_METHODS = ["SGD", "SAM", "ESAM depth"]


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    option = parser.add_argument
    option("data", type=pathlib.Path, help="an .npz file")
    option("--settings", nargs="+", help=", ".join([*SETTINGS, TABLE1]))
    option("--methods", nargs="+", choices=[BARE, *METHODS], metavar="METHOD")
    option("--rounds", type=int, default=7)
    option("--seeds", type=int, default=1, help="of Table 1")
    option("--minutes", type=float, default=25, help="of Table 1, each method")
    option("--small", action="store_true", help="small networks, three methods")
    option("--dry-run", action="store_true", help="print the commands only")
    option("--out", type=pathlib.Path, default=pathlib.Path("runs/gpu"))
    arguments = parser.parse_args(arguments)
    known = [*(SMALL if arguments.small else SETTINGS), TABLE1]
    arguments.settings = arguments.settings or known
    unknown = set(arguments.settings).difference(known)
    if unknown:
        parser.error(f"--settings must be of {known}. Received: {unknown}")
    return arguments


def throughput_commands(arguments):
    """Dict of the folder of each setting and method to its command."""
    settings = SMALL if arguments.small else SETTINGS
    default = SMALL_METHODS if arguments.small else MEASURED
    commands = {}
    for name, options in settings.items():
        if name not in arguments.settings:
            continue
        options = [*options.split(), "--rounds", arguments.rounds]
        options.append("--no-scaling")
        if "float32" not in name:
            options.append("--no-count")
        for method in arguments.methods or default:
            out = arguments.out / name / file_name(method)
            commands[out] = command(
                "throughput", *options, "--methods", method, "--out", out
            )
    return commands


def table1_command(arguments):
    """The command of Table 1, or `None` if none of it is asked for."""
    default = SMALL_METHODS if arguments.small else table1.COMPARED
    methods = [m for m in arguments.methods or default if m in METHODS]
    if TABLE1 not in arguments.settings or not methods:
        return None
    options = ["--seeds", arguments.seeds, "--minutes", arguments.minutes]
    options += SMALL_TABLE1.split() if arguments.small else []
    options += ["--out", arguments.out / TABLE1, "--methods", *methods]
    return command("table1", arguments.data, *options)


def command(module, *options):
    return [sys.executable, "-m", f"benchmarks.{module}", *map(str, options)]


def run(command, folder):
    environment = {
        "JAX_COMPILATION_CACHE_DIR": str(folder.absolute() / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    subprocess.run(command, check=True, env=environment | os.environ)


def write_summary(folder):
    """Writes a table of all results in a folder, and returns it."""
    results = {}
    for path in sorted(folder.glob("*/*/results.json")):
        setting = results.setdefault(path.parents[1].name, {})
        setting[path.parent.name] = json.loads(path.read_text())
    write_json(results, folder / "summary.json")
    table = summary(results)
    (folder / "summary.md").write_text(table)
    return table


def summary(results):
    """Markdown of the results.

    Args:
        results: Dict of the setting to a dict of the method's file name to what
            `benchmarks.throughput` wrote.
    """
    lines = []
    for name, runs in results.items():
        titles = [title_of(run) for run in runs.values()]
        lines += [
            f"{name}, {'; '.join(dict.fromkeys(titles))}",
            "",
            "| | wall ms/step | images/s | speed / SAM | by count "
            "| first use, s | peak memory, MiB | compiled step's memory, MiB |",
            "|---" * 8 + "|",
        ]
        for method in [BARE, *METHODS]:
            if file_name(method) in runs:
                cells = cells_of(method, runs[file_name(method)])
                lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def title_of(run):
    machine, clock = run["machine"], report.CLOCKS[run["clock"]]
    devices = ", ".join(machine["devices"])
    return f"{machine['backend']}, {devices}, speeds by {clock} time"


def cells_of(method, run):
    row, [memory] = run["summary"][method], run["memory_mib"][method]
    predicted, compiled = row.get("predicted"), memory["compiled"]
    return [
        method,
        report.median_and_quartiles(row["wall_ms"], 1),
        report.median_and_quartiles(row["images_per_second"], 0),
        report.median_and_quartiles(row["speed_relative_to_SAM"]),
        "" if predicted is None else f"{predicted:.3f}",
        f"{run['first_use_seconds'][method]:.1f}",
        f"{memory['peak']:.0f}",
        "" if compiled is None else f"{compiled:.0f}",
    ]


def main(arguments=None):
    arguments = parse_arguments(arguments)
    commands = throughput_commands(arguments)
    last = table1_command(arguments)
    if arguments.dry_run:
        for line in [*commands.values(), *([last] if last else [])]:
            print(shlex.join(line))
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    for out, line in commands.items():
        if not (out / "results.json").exists():
            run(line, arguments.out)
            write_summary(arguments.out)
    print(write_summary(arguments.out))
    if last:
        run(last, arguments.out)


if __name__ == "__main__":
    main()
