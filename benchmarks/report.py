"""Writes results: JSON with all values, Markdown with the tables.

Each benchmark has a function that makes its tables from the values: a dict of
title, which may be `""`, to pandas `DataFrame`. `write` uses it for a new
result, and `show` for an earlier one.
"""

import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import subprocess
import sys

from examples.run_folder import write_json
from examples.run_folder import write_text
from keras_esam.extras import requires

PACKAGES = ("keras", "tensorflow", "jax", "torch", "tf_keras", "numpy")


def add_options(parser, name):
    option = parser.add_argument
    option("--report", type=pathlib.Path, help="print the table of a result")
    option("--out", type=pathlib.Path, default=pathlib.Path("runs", name))


def frame(records):
    """`pandas.DataFrame` of a list of dicts, or of its other inputs."""
    with requires("benchmarks"):
        import pandas as pd
    return pd.DataFrame(records)


def show(file, tables):
    """Prints the tables of the values in a JSON file."""
    print(in_words(tables(json.loads(file.read_text()))))


def write(folder, values, tables):
    """Writes `results.json` and `results.md`, and prints the latter.

    Args:
        folder: Path, which is made if it is missing.
        values: Dict for JSON. The command and the machine are added.
        tables: Function of `values` that returns a dict of title to
            `DataFrame`.
    """
    values = with_origin(values)
    here = values["machine"]
    text = (
        f"`{command()}`: Keras {here['keras']}, {here['backend']} "
        f"{here[here['backend']]} on {here['devices']}, "
        f"{here['logical_cpus']} logical CPUs, commit {here['commit']}.\n\n"
    )
    text += in_words(tables(values))
    folder.mkdir(parents=True, exist_ok=True)
    write_json(values, folder / "results.json")
    write_text(text, folder / "results.md")
    print(text)


def with_origin(values):
    """The dict of values with the command and the machine."""
    return {"command": command(), "machine": machine(), **values}


def in_words(tables):
    """Markdown of a dict of title to table."""
    return "\n".join(
        (f"{title}\n\n" if title else "") + markdown(table)
        for title, table in tables.items()
    )


def markdown(table, digits=2):
    """Markdown of a `DataFrame` and the named levels of its index.

    Floats have `digits` decimals. Missing values give empty cells.
    """
    if any(name is not None for name in table.index.names):
        table = table.reset_index()
    table = table.astype(object).where(table.notna(), "")

    def cell(value):
        return f"{value:.{digits}f}" if isinstance(value, float) else str(value)

    rows = [map(cell, row) for row in table.itertuples(index=False, name=None)]
    rows = [map(str, table.columns), ["---"] * table.shape[1], *rows]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def cpu_and_wall(samples):
    """Two `DataFrame`s with a column for each name and a row for each round.

    Args:
        samples: Dict of name to a list of `[CPU, wall]` times, one a round.
    """
    return [
        frame(
            {name: [pair[i] for pair in own] for name, own in samples.items()}
        )
        for i in range(2)
    ]


def mean_and_error(values, digits=2, sign="", error="sem"):
    """`"93.00 +- 2.08"`: mean and its standard error, if there are several.

    Args:
        values: `Series`. Missing values do not count.
        digits: Integer, decimals.
        sign: `"+"` to write the sign of a positive mean too.
        error: `"std"` for the standard deviation instead.
    """
    values = values.dropna()
    if values.empty:
        return ""
    mean = f"{values.mean():{sign}.{digits}f}"
    if len(values) < 2:
        return mean
    return f"{mean} +- {getattr(values, error)():.{digits}f}"


def median_and_quartiles(values, digits=2):
    """`"3.00 (2.50 to 3.50)"`: median and, in brackets, the other quartiles."""
    low, middle, high = values.quantile([0.25, 0.5, 0.75])
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def command():
    """The running command, without the folders of absolute paths."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    name = spec.name.removesuffix(".__main__") if spec else sys.argv[0]
    words = [
        pathlib.Path(word).name if os.path.isabs(word) else word
        for word in sys.argv[1:]
    ]
    return shlex.join(["python", "-m", name, *words])


def machine():
    """Dict of the machine and the versions of its software."""
    # Imported here, since it loads the backend.
    from benchmarks.engines import BACKEND
    from benchmarks.engines import engine

    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1] for line in lines if "model name" in line]
    return {
        "processor": names[0].strip() if names else platform.machine(),
        "logical_cpus": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "commit": commit(),
        "backend": BACKEND,
        "devices": ", ".join(dict.fromkeys(engine.devices())),
        **{
            name: importlib.metadata.version(name)
            for name in PACKAGES
            if name in sys.modules
        },
    }


def commit():
    """Git's short name of the commit, `None` without a checkout or git."""
    root = pathlib.Path(__file__).parents[1]
    words = ["git", "-C", root, "describe", "--always", "--dirty"]
    try:
        result = subprocess.run(
            [*words, "--exclude=*"], capture_output=True, text=True
        )
    except OSError:
        return None
    return result.stdout.strip() or None
