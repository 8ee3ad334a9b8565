"""The picture of `benchmarks.accuracy`: accuracy against training time."""

from benchmarks import report
from keras_esam.extras import requires

# What is told apart; the others are grey.
SHOWN = {
    "SGD": "SGD",
    "SAM": "SAM",
    "SAM, part 0.25": "SAM, ascent on a quarter (default)",
    "ESAM variable": "ESAM as in the paper",
    "ESAM depth": "ESAM by depth",
    "SWP depth, beta 0.3": "SWP by depth, beta 0.3",
    "one-step": "Momentum-SAM",
}


def draw(results, epochs, title, path):
    """Draws a line for each method, through its trainings of all lengths.

    Args:
        results: Dict of values of `benchmarks.accuracy`.
        epochs: Integer, of the SAM whose training time is 1.
        title: String, the data set.
        path: Path of the file, a `.png`.
    """
    with requires("benchmarks"):
        from matplotlib.figure import Figure

    runs = report.frame(results["runs"])
    times = results["times"]
    runs = runs[runs["method"].isin(list(times))]
    runs["time"] = runs["epochs"] / epochs * runs["method"].map(times)
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.subplots()
    colors = {method: f"C{index}" for index, method in enumerate(SHOWN)}
    methods = set(runs["method"])
    for method in sorted(methods, key=[*SHOWN, *methods].index):
        own = runs[runs["method"] == method]
        accuracy = own.groupby("time")["test_accuracy"].agg(["mean", "sem"])
        is_shown = method in SHOWN
        axes.errorbar(
            accuracy.index,
            accuracy["mean"],
            accuracy["sem"].fillna(0.0),
            label=SHOWN.get(method),
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
    seeds = runs["seed"].nunique()
    axes.set_title(f"{title}: mean and standard error of {seeds} seeds")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
