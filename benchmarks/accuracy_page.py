"""Tables of docs/results/accuracy.md, of the results of `benchmarks.accuracy`.

Command:   python -m benchmarks.accuracy_page

A method that a table has no runs of has no row, or an empty cell.
"""

import json
import pathlib

from benchmarks import report
from benchmarks.accuracy import runs_of_budgets
from benchmarks.accuracy import speed
from benchmarks.pictures import DEFAULT

RESULTS = pathlib.Path(__file__).parent / "results"
ROWS = {
    "SGD": "SGD",
    "SGD half batch": "SGD, half the batch size",
    "SAM": "SAM",
    "SAM, part 0.5": "SAM, ascent on a half",
    DEFAULT: "**SAM, ascent on a quarter (default)**",
    "SAM, part 0.125": "SAM, ascent on an eighth",
    "SAM, last 70%": "SAM in the last 70%",
    "SAM, last 50%": "SAM in the last 50%",
    "SAM, part 0.25, last 70%": "default in the last 70%",
    "SAM, part 0.25, last 50%": "default in the last 50%",
    "ESAM variable": "ESAM as in the paper",
    "SWP variable": "ESAM without SDS",
    "ESAM depth": "ESAM by depth",
    "SWP depth": "SWP by depth, beta 0.6",
    "SWP depth, beta 0.3": "SWP by depth, beta 0.3",
    "one-step": "Momentum-SAM",
    "one-step, adaptive": "Momentum-SAM, adaptive",
}
# Tasks with a column each, by their names there; the last one has more budgets
# and a table of its own.
COLUMNS = {
    "label-noise": "label noise",
    "digits": "digits",
    "cifar10": "CIFAR-10, 1,000",
    "cifar10-5000": "CIFAR-10, 5,000",
}
WHOLE = "cifar10-50000"


def tables():
    """Dict of title to `DataFrame`, with a row for each method."""
    results = {
        task: json.loads((RESULTS / f"accuracy_{task}.json").read_text())
        for task in (*COLUMNS, WHOLE)
    }
    whole = results.pop(WHOLE)

    def of_small(column, *arguments):
        return table(
            column(own, COLUMNS[task], *arguments)
            for task, own in results.items()
        )

    return {
        # Budgets are the short and the long one, and equal time of both.
        "Long trainings": of_small(budget_column, 1, accuracies),
        "Short trainings": of_small(budget_column, 0, accuracies),
        "Equal time, long": of_small(budget_column, 3, differences),
        "Equal time, short": of_small(budget_column, 2, differences),
        "Speed": of_small(speeds),
        "All of CIFAR-10": table(columns_of_budgets(whole)),
        "Search": of_small(searched),
        "Search, all of CIFAR-10": table([searched(whole, "by `rho`")]),
    }


def table(columns):
    """`DataFrame` of `Series` with a row for each method that one of them has,
    in the order and with the names of the page."""
    columns = list(columns)
    rows = report.frame({column.name: column for column in columns})
    rows = rows.reindex([method for method in ROWS if method in rows.index])
    return rows.rename(index=ROWS).rename_axis("")


def columns_of_budgets(results):
    """Columns of all budgets of a task, and of the speeds."""
    for number, budget in enumerate(results["epochs"]):
        cell = accuracies if "epochs" in budget else timed
        yield budget_column(results, "", number, cell)
    yield speeds(results, "speed, SAM = 1")


def budget_column(results, title, number, cell):
    """Column of the runs of a budget: `cell` of those of each method."""
    budget = list(results["epochs"])[number]
    runs = runs_of_budgets(results)
    own = runs[runs["budget"] == budget].groupby("method").apply(cell)
    words = budget.replace("time of", "in the time of SAM for")
    return own.rename(", ".join(filter(None, [title, words])))


def accuracies(runs):
    """Test accuracy, and in brackets training accuracy."""
    return (
        f"{mean(runs['test_accuracy'])} ({runs['train_accuracy'].mean():.0f})"
    )


def differences(runs):
    """Test accuracy minus SAM's, and in brackets the epochs."""
    return f"{mean(runs['difference'], '+')} ({runs['epochs'].max()})"


def timed(runs):
    """Test accuracy, and in brackets the epochs."""
    return f"{mean(runs['test_accuracy'])} ({runs['epochs'].max()})"


def mean(values, sign=""):
    return report.mean_and_error(values, sign=sign).replace("+-", "±")


def speeds(results, title):
    """Column of the speeds relative to SAM."""
    values = {method: speed(own) for method, own in results["times"].items()}
    return report.frame({title: values})[title]


def searched(results, title):
    """Column of test accuracies by `rho`, the best one bold."""

    def cell(runs):
        means = runs.groupby("rho")["test_accuracy"].mean()
        best = means.idxmax()
        return "; ".join(
            f"**{rho:.2g}**: {value:.2f}"
            if rho == best
            else f"{rho:.2g}: {value:.2f}"
            for rho, value in means.items()
        )

    runs = report.frame(results["searched"])
    return runs.groupby("method").apply(cell).rename(title)


if __name__ == "__main__":
    print(report.in_words(tables()))
