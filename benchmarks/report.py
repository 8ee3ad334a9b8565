"""How a result is written: JSON with all values, Markdown with the tables.

A table is a pandas `DataFrame`, or a list of dicts. Means, medians and
comparisons within a round are pandas' own operations, with the functions here
for the cells:

```python
runs = report.frame(list_of_dicts)
sam = report.reference(runs, "test", where={"method": "SAM"}, on=["seed"])
runs["minus SAM's"] = runs["test"] - sam
table = runs.groupby("method", sort=False).agg(
    **{
        "test accuracy, %": ("test", report.mean_and_error),
        "minus SAM's": ("minus SAM's", report.mean_and_error),
    }  # `functools.partial(report.mean_and_error, digits=1)` for other digits
)
report.write("runs/accuracy/results", {"Accuracy": table}, {"runs": runs})
```
"""

import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import subprocess
import sys

from keras_esam.extras import requires

PACKAGES = ("keras", "tensorflow", "jax", "torch", "tf_keras", "numpy")


def frame(records):
    """`pandas.DataFrame` of a list of dicts, or of what it takes otherwise."""
    with requires("benchmarks"):
        import pandas as pd
    return pd.DataFrame(records)


def write(path, tables, values=None):
    """Writes `path.json` and `path.md`, each written atomically.

    Args:
        path: Path without a suffix. Its folder is made if there is none.
        tables: Dict of a table's title, which may be `""`, to a `DataFrame` or
            a list of dicts. They are in the Markdown file.
        values: Optional dict of what else is in the JSON file. `DataFrame`s
            become lists of dicts. The command and the machine are added.

    Returns:
        String, the Markdown.
    """
    about = {"command": command(), "machine": machine()}
    text = "\n".join(
        [
            f"`{about['command']}`: {in_words(about['machine'])}.\n",
            *(titled(title, table) for title, table in tables.items()),
        ]
    )
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(about | (values or {}), path.parent / f"{path.name}.json")
    write_text(text, path.parent / f"{path.name}.md")
    return text


def titled(title, table):
    """A table in Markdown, below its title."""
    return (f"{title}\n\n" if title else "") + markdown(table)


def markdown(table, digits=2):
    """Markdown table.

    Args:
        table: `DataFrame` or list of dicts. Named levels of the index are
            columns too. What is missing gives an empty cell.
        digits: Integer, decimals of floats. Cells with other needs are strings,
            as from `median_and_quartiles`.

    Returns:
        String.
    """
    table = frame(table)
    if any(name is not None for name in table.index.names):
        table = table.reset_index()

    def cell(value):
        if value is None or value != value:
            return ""
        return f"{value:.{digits}f}" if isinstance(value, float) else str(value)

    rows = [map(cell, row) for row in table.itertuples(index=False, name=None)]
    rows = [map(str, table.columns), ["---"] * table.shape[1], *rows]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def reference(runs, column, where, on):
    """Values of a column in the rows that the others are compared with.

    Args:
        runs: `DataFrame`.
        column: String.
        where: Dict of a column to its value in the rows of the reference, for
            instance `{"method": "SAM"}`.
        on: List of the columns in which a row and its reference are equal, for
            instance the round or the seed.

    Returns:
        Array of shape `(num_rows,)`; NaN for a row without a reference.
    """
    chosen = runs
    for key, value in where.items():
        chosen = chosen[chosen[key] == value]
    chosen = chosen[[*on, column]]
    both = runs[on].merge(chosen, on=on, how="left", validate="many_to_one")
    return both[column].to_numpy()


def mean_and_error(values, digits=2, sign=""):
    """`"93.00 +- 2.08"`: mean and its standard error, if there are several.

    Args:
        values: `Series`. What is missing in it does not count.
        digits: Integer, decimals.
        sign: `"+"` to write the sign of a positive mean too.
    """
    values = values.dropna()
    if values.empty:
        return ""
    mean = f"{values.mean():{sign}.{digits}f}"
    return mean if len(values) < 2 else f"{mean} +- {values.sem():.{digits}f}"


def median_and_quartiles(values, digits=2):
    """`"3.00 (2.50 to 3.50)"`: median and, in brackets, the other quartiles."""
    values = values.dropna()
    if values.empty:
        return ""
    low, middle, high = values.quantile([0.25, 0.5, 0.75])
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def write_json(value, path):
    """Writes a JSON file atomically; `DataFrame`s as lists of dicts."""

    def convert(value):
        if hasattr(value, "to_dict"):
            missing = value.isna()
            return value.astype(object).mask(missing, None).to_dict("records")
        return value.item()  # of NumPy

    text = json.dumps(value, indent=1, default=convert)
    write_text(text + "\n", path)


def write_text(text, path):
    """Writes a file atomically."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text)
    temporary.replace(path)


def command():
    """The command that runs, without the folders of absolute paths."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    name = spec.name.removesuffix(".__main__") if spec else sys.argv[0]
    words = [
        pathlib.Path(word).name if os.path.isabs(word) else word
        for word in sys.argv[1:]
    ]
    return shlex.join(["python", "-m", name, *words])


def machine():
    """Dict of the machine and the versions of what runs on it."""
    # The backend is loaded when it is asked for.
    from benchmarks.engines import BACKEND
    from benchmarks.engines import engine

    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1] for line in lines if "model name" in line]
    versions = {}
    for name in PACKAGES:
        if name in sys.modules:
            versions[name] = importlib.metadata.version(name)
    return {
        "processor": names[0].strip() if names else platform.machine(),
        "logical_cpus": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "commit": commit(),
        "backend": BACKEND,
        "devices": engine.devices(),
        **versions,
    }


def in_words(machine):
    """One line on a machine from `machine`."""
    backend = machine["backend"]
    devices = ", ".join(dict.fromkeys(machine["devices"]))
    return (
        f"Keras {machine['keras']}, {backend} {machine[backend]} on {devices}, "
        f"{machine['logical_cpus']} logical CPUs, commit {machine['commit']}"
    )


def commit():
    """Git's short name of the commit, `None` without a checkout."""
    root = pathlib.Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    words = ["describe", "--always", "--dirty", "--exclude=*"]
    try:
        result = subprocess.run(
            ["git", "-C", root, *words], capture_output=True, text=True
        )
    except OSError:  # without git
        return None
    return result.stdout.strip() or None
