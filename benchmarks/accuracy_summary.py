"""Mean and standard error over the seeds of `benchmarks.accuracy`."""

import math
import statistics

REFERENCE = "SAM"
ACCURACIES = ("test_accuracy", "train_accuracy")


def summarise(runs, budgets, methods):
    """Rows of the table.

    Args:
        runs: List of dicts, the results of the runs.
        budgets: List of strings, in the order of the table.
        methods: List of strings, in the order of the table.

    Returns:
        List of dicts, one for each budget and method that has runs: means and
        standard errors in per cent, and the mean and standard error of the
        difference to SAM's test accuracy on the same seeds, in points.
    """
    groups = {}
    for run in runs:
        key = run["budget"], run["method"]
        groups.setdefault(key, {})[run["seed"]] = run
    return [
        _row(budget, method, groups)
        for budget in budgets
        for method in methods
        if (budget, method) in groups
    ]


def _row(budget, method, groups):
    group = groups[budget, method]
    row = {
        "budget": budget,
        "method": method,
        "epochs": sorted({run["epochs"] for run in group.values()}),
        "seeds": sorted(group),
    }
    for key in ACCURACIES:
        values = [run[key] for run in group.values()]
        row[key] = statistics.mean(values)
        row[f"{key}_sem"] = standard_error(values)
    # Weights and order of the data are those of the seed, for all methods.
    reference = groups.get((budget, REFERENCE), {})
    differences = [
        run["test_accuracy"] - reference[seed]["test_accuracy"]
        for seed, run in group.items()
        if seed in reference
    ]
    if differences:
        row["difference"] = statistics.mean(differences)
        row["difference_sem"] = standard_error(differences)
    return row


def standard_error(values):
    """Standard error of the mean; NaN for a single value."""
    if len(values) < 2:
        return math.nan
    return statistics.stdev(values) / math.sqrt(len(values))


def ranges(numbers):
    """`"0 to 2, 7"` for ascending numbers 0, 1, 2 and 7."""
    parts = []
    for number in numbers:
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(
        str(first) if first == last else f"{first} to {last}"
        for first, last in parts
    )


def fit_of_the_base_optimizer(rows, budget="long"):
    """Sentence on whether the long budget does what it is to do, or `""`."""
    fits = [
        row["train_accuracy"]
        for row in rows
        if (row["budget"], row["method"]) == (budget, "SGD")
    ]
    if not fits:
        return ""
    does = "fits" if fits[0] >= 99 else "DOES NOT FIT"
    return (
        f"In the `{budget}` budget the base optimizer {does} the training set: "
        f"{fits[0]:.2f}%.\n"
    )


def markdown(rows, seconds):
    """Markdown table.

    Args:
        rows: List from `summarise`.
        seconds: Dict of method to CPU seconds per epoch, may be empty.

    Returns:
        String.
    """
    lines = [
        "| budget | method | epochs | test accuracy, % | minus SAM's, points "
        "| training accuracy, % | speed / SAM | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        difference = ""
        if "difference" in row:
            difference = "{difference:+.2f} +- {difference_sem:.2f}"
        speed = ""
        if row["method"] in seconds:
            speed = f"{seconds[REFERENCE] / seconds[row['method']]:.2f}"
        cells = [
            row["budget"],
            row["method"],
            ", ".join(map(str, row["epochs"])),
            "{test_accuracy:.2f} +- {test_accuracy_sem:.2f}".format(**row),
            difference.format(**row),
            "{train_accuracy:.2f} +- {train_accuracy_sem:.2f}".format(**row),
            speed,
            f"{len(row['seeds'])} ({ranges(row['seeds'])})",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", fit_of_the_base_optimizer(rows)])
