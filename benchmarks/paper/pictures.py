"""Draws the figures."""

import numpy as np

from benchmarks.paper.tables import series
from keras_esam.extras import requires

with requires("benchmarks"):
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
    from PIL import Image

MARKERS = "osD^v"
ALONE = "SWP alone (beta), SDS alone (gamma)"
SAM = "SAM (beta = gamma = 1, no ranking pass)"


def shrink(path):
    """Keeps the 256 most frequent colours, with a third of the bytes."""
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(256).save(path, optimize=True)


def _save(figure, path):
    figure.savefig(path, dpi=120)
    shrink(path)


def speed_against_accuracy(summary: dict, path) -> None:
    """One panel for each title, one point for each method.

    `summary` comes from `tables.summarise`, by title instead of task.
    """
    columns = min(3, len(summary))
    rows = -(-len(summary) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.4 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes, (title, methods) in zip(
        panels.flat, summary.items(), strict=False
    ):
        for index, (label, row) in enumerate(methods.items()):
            style = {"color": f"C{index}", "fmt": MARKERS[index]}
            speed = series(row["images_per_second"]).median()
            _draw_accuracies(axes, [speed], [row], {**style, "label": label})
        axes.set_title(title, fontsize="medium")
        axes.set_xlabel("training speed in images per second")
        axes.margins(0.1, 0.25)
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
    for axes in panels[:, 0]:
        axes.set_ylabel("test accuracy in %")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    _save(figure, path)


def label_of(beta: float, gamma: float) -> str:
    """Name of a row of Figure 3."""
    return "SAM" if beta == gamma == 1 else f"beta {beta}, gamma {gamma}"


def grid(summary: dict, values: tuple, title: str, path) -> None:
    """Accuracy and speed by beta and by gamma, and the first seed's by both.

    For each `label_of` the values, `summary` has a row of `tables.summarise`,
    or of `tables.accuracies` if both are below 1.
    """
    figure = Figure(figsize=(12.8, 6.4), layout="constrained")
    figure.suptitle(title)
    alone, pairs = figure.subfigures(1, 2, width_ratios=(1.7, 1))
    panels = alone.subplots(2, 2, sharex=True, sharey="row")
    _draw_lines(panels[:, 0], summary, values, "beta", "gamma")
    _draw_lines(panels[:, 1], summary, values, "gamma", "beta")
    panels[0, 0].set_ylabel("test accuracy in %,\nmean and deviation of seeds")
    panels[1, 0].set_ylabel(
        "speed relative to SAM,\nmedian and quartiles of rounds"
    )
    handles, names = panels[0, 0].get_legend_handles_labels()
    alone.legend(handles, names, loc="outside lower center", ncols=2)
    _draw_map(pairs, summary, (*values, 1.0))
    _save(figure, path)


def _draw_lines(panels, summary, values, name, other):
    accuracy, speed = panels
    sam = summary["SAM"]
    pairs = [{name: value, other: 1.0} for value in values]
    rows = [summary[label_of(**pair)] for pair in pairs]
    for points, own, style in (
        (values, rows, {"fmt": "o-", "color": "C0", "label": ALONE}),
        # Not the line's limit: SDS has a ranking pass for any gamma.
        ([1.0], [sam], {"fmt": "D", "color": "C1", "label": SAM}),
    ):
        _draw_accuracies(accuracy, points, own, style)
        _draw_speeds(speed, points, own, sam, style)
    accuracy.set_title(f"{name}, with {other} = 1")
    speed.set_xlabel(name)
    for axes in panels:
        axes.grid(alpha=0.3)


def _draw_accuracies(axes, points, rows, style):
    accuracies = [series(row["test_accuracy"]) for row in rows]
    means = [values.mean() for values in accuracies]
    deviations = [values.std() for values in accuracies]
    axes.errorbar(points, means, deviations, capsize=4, **style)


def _draw_speeds(axes, points, rows, sam, style):
    rates = [series(row["images_per_second"]) for row in rows]
    relative = [rate / series(sam["images_per_second"]) for rate in rates]
    low, middle, high = np.transpose(
        [values.quantile([0.25, 0.5, 0.75]) for values in relative]
    )
    errors = [middle - low, high - middle]
    axes.errorbar(points, middle, errors, capsize=4, **style)


def _draw_map(figure, summary, values):
    rows = [[summary[label_of(b, g)] for b in values] for g in values]
    # The only seed of the pairs below 1.
    numbers = [[row["test_accuracy"][0] for row in own] for own in rows]
    seed = rows[0][0]["seeds"][0]
    axes = figure.subplots()
    image = axes.imshow(numbers, origin="lower", aspect="auto")
    middle = (np.min(numbers) + np.max(numbers)) / 2
    for (y, x), number in np.ndenumerate(numbers):
        color = "white" if number < middle else "black"
        axes.text(x, y, f"{number:.1f}", ha="center", va="center", color=color)
    axes.set_title(f"test accuracy in %, seed {seed} alone")
    axes.set_xlabel("beta")
    axes.set_ylabel("gamma")
    axes.set_xticks(range(len(values)), values)
    axes.set_yticks(range(len(values)), values)
    figure.colorbar(image, ax=axes)


def curves(values: dict, lines: dict, ylabel: str, title: str, path) -> None:
    """Quantities per epoch, one panel for each training.

    `values` are lists by training and name, `lines` the label, color and style
    of each name.
    """
    figure = Figure(figsize=(5 * len(values), 4.4), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(1, len(values), sharey=True, squeeze=False)[0]
    for axes, (training, own) in zip(panels, values.items(), strict=True):
        for key, (label, color, style) in lines.items():
            y = series(own[key])
            axes.plot(y.index + 1, y, style, color=color, label=label)
        axes.axhline(0, color="0.6", linewidth=0.8)
        axes.set_title(f"training with {training}")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(
            MaxNLocator(integer=True, steps=[1, 2, 5, 10])
        )
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(ylabel)
    panels[-1].legend()
    _save(figure, path)
