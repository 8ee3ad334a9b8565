"""Pictures of `benchmarks.accuracy` and `benchmarks.speed`."""

import numpy as np

from benchmarks import report
from keras_esam.extras import requires

# The lines that are told apart; the others are grey.
TITLES = {
    "SGD": "SGD",
    "SAM": "SAM",
    "SAM, part 0.25": "SAM, ascent on a quarter (default)",
    "ESAM variable": "ESAM as in the paper",
    "ESAM depth": "ESAM by depth",
    "SWP depth, beta 0.3": "SWP by depth, beta 0.3",
    "one-step": "Momentum-SAM",
    "SWP variable": "ESAM without SDS",
    "SAM, part 0.25, last 50%": "default in the last 50%",
}
COLORS = [f"C{index}" for index in (0, 1, 2, 3, 4, 5, 6, 9, 8)]  # C7 is grey.
DEFAULT = "SAM, part 0.25"
# Bars beside these.
MORE_TITLES = {
    "SWP depth": "SWP by depth, beta 0.6",
    "ESAM depth by loss": "ESAM by depth, ranked by loss",
    "SAM before its start": "SAM before its `start`",
    "bare fit": "`fit` without ESAMModel",
}


def accuracy_against_time(results, epochs, title, path):
    """Draws a line for each method, through its trainings of all lengths.

    Args:
        results: Dict of values of `benchmarks.accuracy`.
        epochs: Integer, of the SAM whose training time is 1.
        title: String, the data set.
        path: Path of the file, a `.png`.
    """
    runs = report.frame(results["runs"])
    times = {m: np.median(own) for m, own in results["times"].items()}
    runs = runs[runs["method"].isin(list(times))]
    runs["time"] = runs["epochs"] / epochs * runs["method"].map(times)
    figure, axes = make_figure(4.6)
    colors = dict(zip(TITLES, COLORS, strict=True))
    methods = set(runs["method"])
    for method in sorted(methods, key=[*TITLES, *methods].index):
        own = runs[runs["method"] == method]
        accuracy = own.groupby("time")["test_accuracy"].agg(["mean", "sem"])
        is_shown = method in TITLES
        axes.errorbar(
            accuracy.index,
            accuracy["mean"],
            accuracy["sem"].fillna(0.0),
            label=TITLES.get(method),
            color=colors.get(method, "0.8"),
            linewidth=1.8 if is_shown else 0.8,
            marker="o" if is_shown else ".",
            markersize=5,
            capsize=3,
            zorder=3 if is_shown else 1,
        )
    axes.legend(loc="best")
    axes.set_xlabel(f"training time, {epochs} epochs of SAM = 1")
    axes.set_ylabel("test accuracy, %")
    seeds = runs.groupby(["method", "epochs"])["seed"].nunique()
    counts = " to ".join(map(str, sorted({seeds.min(), seeds.max()})))
    axes.set_title(f"{title}: mean and standard error, seeds: {counts}")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def speeds(ratios, counts, title, path):
    """Draws a bar for each method, with quartiles and the count.

    Args:
        ratios: `DataFrame` of speeds relative to SAM, a column for each method
            and a row for each round.
        counts: Dict of method to its speed by count, which may be empty.
        title: String, the network.
        path: Path of the file, a `.png`.
    """
    titles = {**TITLES, **MORE_TITLES}
    drawn = ratios[[method for method in titles if method in ratios]]
    quartiles = drawn.quantile([0.25, 0.5, 0.75]).T.sort_values(0.5)
    low, middle, high = (quartiles[q] for q in (0.25, 0.5, 0.75))
    figure, axes = make_figure(0.7 + 0.3 * len(quartiles))
    names = [titles[method] for method in quartiles.index]
    colors = ["C2" if method == DEFAULT else "C0" for method in quartiles.index]
    axes.barh(
        names,
        middle,
        xerr=[middle - low, high - middle],
        color=colors,
        capsize=3,
    )
    for name, method in zip(names, quartiles.index, strict=True):
        if method in counts:
            axes.plot(counts[method], name, "kd", markersize=5)
    axes.set_xlabel("speed, SAM = 1 (diamonds: by counted operations)")
    figure.suptitle(title, fontsize="medium")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=150)


def make_figure(height):
    """A figure of the site's width and its axes; `height` is in inches."""
    with requires("benchmarks"):
        from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, height), layout="constrained")
    return figure, figure.subplots()
