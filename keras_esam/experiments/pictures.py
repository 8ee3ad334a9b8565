"""Pictures of the experiments."""

import statistics

import numpy as np

from keras_esam.extras import requires

with requires("examples"):
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
    from PIL import Image

MARKERS = "osD^v"
ALONE = "SWP alone (beta), SDS alone (gamma)"
SAM = "SAM (beta = gamma = 1, no ranking pass)"


def shrink(path):
    """Leaves the most frequent 256 colours, with a third of the bytes."""
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(256).save(path, optimize=True)


def _save(figure, path):
    figure.savefig(path, dpi=120)
    shrink(path)


def speed_against_accuracy(summary: dict, path) -> None:
    """One panel for each data set and network, one point for each method.

    Args:
        summary: Dict from `tables.summarise`, by title instead of task.
        path: Path of the picture.
    """
    columns = min(3, len(summary))
    rows = -(-len(summary) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.4 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes, (title, methods) in zip(
        panels.flat, summary.items(), strict=False
    ):
        for index, (label, row) in enumerate(methods.items()):
            values = row["test_accuracy"]
            axes.errorbar(
                statistics.median(row["images_per_second"]),
                statistics.mean(values),
                yerr=statistics.stdev(values) if len(values) > 1 else None,
                fmt=MARKERS[index % len(MARKERS)],
                capsize=4,
                color=f"C{index}",
                label=label,
            )
        axes.set_title(title, fontsize="medium")
        axes.set_xlabel("training speed in images per second")
        axes.margins(0.1, 0.25)
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
    for axes in panels[:, 0]:
        axes.set_ylabel("test accuracy in %")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    _save(figure, path)


def label_of(beta: float, gamma: float) -> str:
    """How a row of Figure 3 is called."""
    return "SAM" if beta == gamma == 1 else f"beta {beta}, gamma {gamma}"


def grid(summary: dict, values: tuple, title: str, path) -> None:
    """Accuracy and speed by beta and by gamma, and accuracy by both.

    Args:
        summary: Dict of the labels of `label_of` to a row of
            `tables.summarise`, or of `tables.accuracies` for the pairs.
        values: Tuple of the values of beta and gamma.
        title: String, above the whole.
        path: Path of the picture.
    """
    figure = Figure(figsize=(12.8, 6.4), layout="constrained")
    figure.suptitle(title)
    alone, pairs = figure.subfigures(1, 2, width_ratios=(1.7, 1))
    _draw_lines(alone, summary, values)
    _draw_map(pairs, summary, (*values, 1.0))
    _save(figure, path)


def _draw_lines(figure, summary, values):
    panels = figure.subplots(2, 2, sharex=True, sharey="row")
    sam = summary["SAM"]
    labels = {
        "beta": [label_of(value, 1.0) for value in values],
        "gamma": [label_of(1.0, value) for value in values],
    }
    for column, name in enumerate(labels):
        accuracy, speed = panels[:, column]
        rows = [summary[label] for label in labels[name]]
        for points, own, style in (
            (values, rows, {"fmt": "o-", "color": "C0", "label": ALONE}),
            # Not the line's limit: SDS has a ranking pass, however large gamma.
            ([1.0], [sam], {"fmt": "D", "color": "C1", "label": SAM}),
        ):
            _draw_accuracies(accuracy, points, own, style)
            _draw_speeds(speed, points, own, sam, style)
        other = {"beta": "gamma", "gamma": "beta"}[name]
        accuracy.set_title(f"{name}, with {other} = 1")
        speed.set_xlabel(name)
    panels[0][0].set_ylabel("test accuracy in %,\nmean and deviation of seeds")
    panels[1][0].set_ylabel(
        "speed relative to SAM,\nmedian and quartiles of rounds"
    )
    for axes in panels.flat:
        axes.grid(alpha=0.3)
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2)


def _draw_map(figure, summary, values):
    rows = [[summary[label_of(b, g)] for b in values] for g in values]
    numbers = [
        [statistics.mean(row["test_accuracy"]) for row in own] for own in rows
    ]
    alone, both = (
        len(row["test_accuracy"]) for row in (rows[-1][0], rows[0][0])
    )
    axes = figure.subplots()
    image = axes.imshow(numbers, origin="lower", aspect="auto")
    middle = (np.min(numbers) + np.max(numbers)) / 2
    for (y, x), number in np.ndenumerate(numbers):
        color = "white" if number < middle else "black"
        text = f"{number:.1f}"
        axes.text(x, y, text, ha="center", va="center", color=color)
    axes.set_title(
        f"test accuracy in %, seeds: {alone},\n{both} where both are below 1"
    )
    axes.set_xlabel("beta")
    axes.set_ylabel("gamma")
    axes.set_xticks(range(len(values)), values)
    axes.set_yticks(range(len(values)), values)
    figure.colorbar(image, ax=axes)


def _draw_accuracies(axes, points, rows, style):
    accuracies = [row["test_accuracy"] for row in rows]
    axes.errorbar(
        points,
        [statistics.mean(a) for a in accuracies],
        yerr=[statistics.stdev(a) if len(a) > 1 else 0 for a in accuracies],
        capsize=4,
        **style,
    )


def _draw_speeds(axes, points, rows, sam, style):
    quartiles = np.array(
        [
            np.percentile(
                np.divide(row["images_per_second"], sam["images_per_second"]),
                [25, 50, 75],
            )
            for row in rows
        ]
    )
    axes.errorbar(
        points,
        quartiles[:, 1],
        yerr=np.abs(quartiles[:, [0, 2]] - quartiles[:, [1]]).T,
        capsize=4,
        **style,
    )


def losses_of_halves(values: dict, title: str, path) -> None:
    """Losses on B+ and B-, at the weights and perturbed, per epoch.

    Args:
        values: Dict of label to a dict of name to a list.
        title: String, above the whole.
        path: Path of the picture.
    """
    figure, panels = _panels(values, title)
    lines = {
        "loss_plus": ("B+", "C3", "-"),
        "perturbed_loss_plus": ("B+, perturbed", "C3", "--"),
        "loss_minus": ("B-", "C0", "-"),
        "perturbed_loss_minus": ("B-, perturbed", "C0", "--"),
    }
    for axes, own in zip(panels, values.values(), strict=True):
        for key, (name, color, style) in lines.items():
            epochs = range(1, len(own[key]) + 1)
            axes.plot(epochs, own[key], style, color=color, label=name)
    panels[0].set_ylabel("loss on the probe batch")
    panels[-1].legend(loc="upper right")
    _save(figure, path)


def cosines(values: dict, title: str, path) -> None:
    """Cosine similarity of the gradients of B+ and B- with that of B.

    Args:
        values: Dict of label to a dict of `"plus"` and `"minus"` to a list.
        title: String, above the whole.
        path: Path of the picture.
    """
    figure, panels = _panels(values, title)
    for axes, own in zip(panels, values.values(), strict=True):
        for part, name, color in (("plus", "B+", "C3"), ("minus", "B-", "C0")):
            epochs = range(1, len(own[part]) + 1)
            axes.plot(epochs, own[part], color=color, label=name)
        axes.axhline(0, color="0.6", linewidth=0.8)
    panels[0].set_ylabel("cosine similarity with the gradient of B")
    panels[-1].legend(loc="center right")
    _save(figure, path)


def _panels(values, title):
    """Figure and its axes, one for each label, with epochs along x."""
    figure = Figure(figsize=(5 * len(values), 4.4), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(1, len(values), sharey=True, squeeze=False)[0]
    for axes, label in zip(panels, values, strict=True):
        axes.set_title(f"training with {label}")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(
            MaxNLocator(integer=True, steps=[1, 2, 5, 10])
        )
        axes.grid(alpha=0.3)
    return figure, panels
