"""Mean and standard error over the seeds of `benchmarks.accuracy`."""

import math
import statistics


def summarise(runs):
    """Rows of the table.

    Args:
        runs: List of dicts, the results of the runs.

    Returns:
        List of dicts, one for each method and budget, in the order of the
        budgets, with means and standard errors in per cent.
    """
    groups = {}
    for run in runs:
        groups.setdefault((run["budget"], run["method"]), []).append(run)
    rows = []
    for (budget, method), group in sorted(groups.items()):
        row = {
            "budget": budget,
            "method": method,
            "epochs": sorted({run["epochs"] for run in group}),
            "seeds": sorted(run["seed"] for run in group),
            "cpu_seconds_per_epoch": statistics.median(
                run["cpu_seconds_per_epoch"] for run in group
            ),
        }
        for key in ("test_accuracy", "train_accuracy"):
            values = [run[key] for run in group]
            row[key] = statistics.mean(values)
            row[f"{key}_sem"] = standard_error(values)
        rows.append(row)
    return rows


def standard_error(values):
    """Standard error of the mean; NaN for a single value."""
    if len(values) < 2:
        return math.nan
    return statistics.stdev(values) / math.sqrt(len(values))


def markdown(rows):
    """Markdown table of the rows of `summarise`."""
    lines = [
        "| budget | method | epochs | test accuracy, % | training accuracy, % "
        "| CPU s/epoch | seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            row["budget"],
            row["method"],
            ", ".join(map(str, row["epochs"])),
            "{test_accuracy:.2f} +- {test_accuracy_sem:.2f}".format(**row),
            "{train_accuracy:.2f} +- {train_accuracy_sem:.2f}".format(**row),
            f"{row['cpu_seconds_per_epoch']:.2f}",
            f"{len(row['seeds'])} ({row['seeds'][0]} to {row['seeds'][-1]})",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
