"""Tables and pictures of `benchmarks.throughput`."""

import numpy as np

CLOCKS = {"cpu": "CPU", "wall": "wall"}


def summarise(samples, operations, images, clock="cpu"):
    """What the table says of each method.

    Args:
        samples: Dict of method to a list, one entry a round, of CPU and wall
            seconds per step.
        operations: Dict of method to counted operations per step.
        images: Integer, number of images in a step.
        clock: String, `"cpu"` or `"wall"`.

    Returns:
        Dict of method to a dict. Speeds are ratios of the clock's time in the
        same round, as quartiles.
    """
    index = ("cpu", "wall").index(clock)
    rows = {}
    for method, values in samples.items():
        cpu, wall = np.transpose(values)
        rows[method] = {
            "cpu_ms": quartiles(1e3 * cpu),
            "wall_ms": quartiles(1e3 * wall),
            "images_per_second": quartiles(images / wall),
        }
        for reference in ("SAM", "SGD", "bare fit"):
            if reference not in samples:
                continue
            rows[method][f"speed_relative_to_{reference}"] = quartiles(
                [
                    other[index] / own[index]
                    for own, other in zip(
                        values, samples[reference], strict=True
                    )
                ]
            )
        if method in operations and "SAM" in operations:
            rows[method]["predicted"] = operations["SAM"] / operations[method]
    return rows


def quartiles(values):
    return [float(q) for q in np.percentile(values, [25, 50, 75])]


def markdown(rows, tracing, first_use, memory):
    """Markdown table of the methods. In brackets are the quartiles.

    Args:
        rows: Dict from `summarise`.
        tracing: Dict of method to a list for each compiled step of the seconds
            of its traces.
        first_use: Dict of method to the seconds of the first use of all steps.
        memory: Dict of method to a list of peaks in MiB.

    Returns:
        String.
    """
    lines = [
        "| | CPU ms/step | wall ms/step | images/s | speed / SAM | by count "
        "| measured / count | speed / SGD | speed / bare fit "
        "| tracing, s | tracing / SAM's | first use, s | peak memory, MiB |",
        "|---" * 13 + "|",
    ]
    # Of one trace of all steps.
    totals = {m: quartiles(np.sum(steps, 0)) for m, steps in tracing.items()}
    for method, row in rows.items():
        cells = [
            method,
            median_and_quartiles(row["cpu_ms"], 0),
            median_and_quartiles(row["wall_ms"], 0),
            median_and_quartiles(row["images_per_second"], 0),
            median_and_quartiles(row.get("speed_relative_to_SAM")),
        ]
        predicted = row.get("predicted")
        if predicted is None:
            cells += ["", ""]
        else:
            measured = row["speed_relative_to_SAM"][1]
            cells += [f"{predicted:.3f}", f"{measured / predicted:.3f}"]
        for reference in ("SGD", "bare fit"):
            cells.append(
                median_and_quartiles(row.get(f"speed_relative_to_{reference}"))
            )
        total, sam_total = totals.get(method), totals.get("SAM")
        cells.append(median_and_quartiles(total, 1))
        # PyTorch traces nothing.
        traces = total and round(sam_total[1], 1) > 0
        cells.append(f"{total[1] / sam_total[1]:.1f}" if traces else "")
        seconds = first_use.get(method)
        cells.append("" if seconds is None else f"{seconds:.1f}")
        peaks = memory.get(method)
        cells.append(f"{np.median(peaks):.0f}" if peaks else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def markdown_of_scaling(scaling):
    """Markdown table of the CPU time against batch size or depth.

    Args:
        scaling: List of dicts with `batch_size`, `depth` and `rows`.

    Returns:
        String.
    """
    methods = list(scaling[0]["rows"])
    lines = [
        "| batch | depth | "
        + " | ".join(
            f"{m}, CPU ms/step (speed / SAM, by count)" for m in methods
        )
        + " |",
        "|---" * (len(methods) + 2) + "|",
    ]
    for entry in scaling:
        cells = [str(entry["batch_size"]), str(entry["depth"])]
        for row in entry["rows"].values():
            speed, count = row["speed_relative_to_SAM"][1], row["predicted"]
            cells.append(f"{row['cpu_ms'][1]:.0f} ({speed:.2f}, {count:.2f})")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def median_and_quartiles(values, digits=3):
    """Median and, in brackets, the other quartiles."""
    if values is None:
        return ""
    low, middle, high = (f"{value:.{digits}f}" for value in values)
    return f"{middle} ({low} to {high})"


def draw(rows, scaling, title, path, clock="cpu"):
    """Bars of the speeds beside what the count says, and the scaling.

    Args:
        rows: Dict from `summarise`.
        scaling: List as in `markdown_of_scaling`, may be empty.
        title: String.
        path: Where the PNG goes.
        clock: String, `"cpu"` or `"wall"`, of which the speeds are.
    """
    from matplotlib.figure import Figure

    height = 1.6 + 0.34 * len(rows)
    figure = Figure(
        figsize=(13 if scaling else 7.5, max(height, 4)), layout="constrained"
    )
    axes = figure.subplots(1, 2 if scaling else 1, squeeze=False)
    _draw_speeds(axes[0][0], rows, clock)
    axes[0][0].set_title(title)
    if scaling:
        _draw_scaling(axes[0][1], scaling, clock)
    figure.savefig(path, dpi=120)


def _draw_speeds(axes, rows, clock):
    positions = np.arange(len(rows))[::-1]
    speeds = np.array([row["speed_relative_to_SAM"] for row in rows.values()])
    middle = speeds[:, 1]
    errors = [middle - speeds[:, 0], speeds[:, 2] - middle]
    axes.barh(positions, middle, xerr=errors, color="C0", alpha=0.7, capsize=3)
    predicted = [row.get("predicted", np.nan) for row in rows.values()]
    axes.plot(predicted, positions, "kD", markersize=5)
    axes.set_yticks(positions, list(rows))
    axes.axvline(1, color="0.4", linewidth=1)
    axes.set_xlabel(
        f"speed relative to SAM, by {CLOCKS[clock]} time\n"
        "bars: measured, median and quartiles; diamonds: by counted operations"
    )
    axes.grid(axis="x", alpha=0.3)


def _draw_scaling(axes, scaling, clock):
    labels = [
        f"batch {entry['batch_size']}\ndepth {entry['depth']}"
        for entry in scaling
    ]
    for method in scaling[0]["rows"]:
        speeds = [
            entry["rows"][method]["speed_relative_to_SAM"] for entry in scaling
        ]
        low, middle, high = np.transpose(speeds)
        axes.errorbar(
            range(len(scaling)),
            middle,
            yerr=[middle - low, high - middle],
            fmt="o-",
            capsize=3,
            label=method,
        )
    axes.set_xticks(range(len(scaling)), labels, fontsize=8)
    axes.set_ylim(bottom=0)
    axes.set_ylabel(f"speed relative to SAM, by {CLOCKS[clock]} time")
    axes.set_title("Against batch size and depth")
    axes.grid(alpha=0.3)
    axes.legend()
