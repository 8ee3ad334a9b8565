"""Pictures of the experiments."""

import statistics

from matplotlib.figure import Figure


def _save(figure, path):
    figure.savefig(path, dpi=120)


def speed_against_accuracy(summary: dict, path) -> None:
    """One panel for each data set and network, one point for each method.

    Args:
        summary: Dict from `tables.summarise`.
        path: Path of the picture.
    """
    columns = min(3, len(summary))
    rows = -(-len(summary) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.4 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes, (task, methods) in zip(
        panels.flat, summary.items(), strict=False
    ):
        for index, (label, row) in enumerate(methods.items()):
            values = row["test_accuracy"]
            axes.errorbar(
                statistics.median(row["images_per_second"]),
                statistics.mean(values),
                yerr=statistics.stdev(values) if len(values) > 1 else None,
                fmt="o",
                capsize=4,
                color=f"C{index}",
                label=label,
            )
        axes.set_title(task)
        axes.set_xlabel("training speed in images per second")
        axes.margins(0.1, 0.25)
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
    for axes in panels[:, 0]:
        axes.set_ylabel("test accuracy in %")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    _save(figure, path)


def grid(summary: dict, values: tuple, path) -> None:
    """Accuracy and speed against beta, and against gamma.

    Args:
        summary: Dict of label to a row of `tables.summarise`.
        values: Tuple of the values of beta and gamma.
        path: Path of the picture.
    """
    figure = Figure(figsize=(8.4, 6), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, sharey="row")
    for column, name in enumerate(("beta", "gamma")):
        rows = [summary[f"{name} {v}"] for v in values] + [summary["SAM"]]
        points = [*values, 1.0]
        accuracies = [row["test_accuracy"] for row in rows]
        panels[0][column].errorbar(
            points,
            [statistics.mean(a) for a in accuracies],
            yerr=[statistics.stdev(a) if len(a) > 1 else 0 for a in accuracies],
            fmt="o-",
            capsize=4,
            color="C0",
        )
        panels[1][column].plot(
            points,
            [row["speed_relative_to_sam"] for row in rows],
            "o-",
            color="C1",
        )
        other = {"beta": "gamma", "gamma": "beta"}[name]
        panels[0][column].set_title(f"{other} = 1 ({name} = 1 is SAM)")
        panels[1][column].set_xlabel(name)
    panels[0][0].set_ylabel("test accuracy in %")
    panels[1][0].set_ylabel("speed relative to SAM")
    for axes in panels.flat:
        axes.grid(alpha=0.3)
    _save(figure, path)


def losses_of_halves(values: dict, path) -> None:
    """Losses on B+ and B-, at the weights and perturbed, per epoch.

    Args:
        values: Dict of label to a dict of name to a list.
        path: Path of the picture.
    """
    figure = Figure(figsize=(5 * len(values), 4.2), layout="constrained")
    panels = figure.subplots(1, len(values), sharey=True, squeeze=False)[0]
    lines = {
        "loss_plus": ("B+", "C3", "-"),
        "perturbed_loss_plus": ("B+, perturbed", "C3", "--"),
        "loss_minus": ("B-", "C0", "-"),
        "perturbed_loss_minus": ("B-, perturbed", "C0", "--"),
    }
    for axes, (label, own) in zip(panels, values.items(), strict=True):
        for key, (name, color, style) in lines.items():
            epochs = range(1, len(own[key]) + 1)
            axes.plot(epochs, own[key], style, color=color, label=name)
        axes.set_title(f"training with {label}")
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("loss on the probe batch")
    panels[-1].legend(loc="upper right")
    _save(figure, path)


def cosines(values: dict, path) -> None:
    """Cosine similarity of the gradients of B+ and B- with that of B.

    Args:
        values: Dict of label to a dict of `"plus"` and `"minus"` to a list.
        path: Path of the picture.
    """
    figure = Figure(figsize=(5 * len(values), 4.2), layout="constrained")
    panels = figure.subplots(1, len(values), sharey=True, squeeze=False)[0]
    for axes, (label, own) in zip(panels, values.items(), strict=True):
        for part, name, color in (("plus", "B+", "C3"), ("minus", "B-", "C0")):
            epochs = range(1, len(own[part]) + 1)
            axes.plot(epochs, own[part], color=color, label=name)
        axes.set_title(f"training with {label}")
        axes.set_xlabel("epoch")
        axes.set_ylim(-1.05, 1.05)
        axes.axhline(0, color="0.6", linewidth=0.8)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("cosine similarity with the gradient of B")
    panels[-1].legend(loc="lower right")
    _save(figure, path)
