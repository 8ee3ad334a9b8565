"""Picture of loss landscapes whose losses differ by powers of ten."""

import numpy as np
from matplotlib import colors
from matplotlib.figure import Figure


def landscapes(values: dict, title: str, path) -> None:
    """Surfaces above, contours below, all with the same logarithmic scale.

    Args:
        values: Dict of label to a dict from `landscapes_of`.
        title: String, above the whole.
        path: Path of the picture.

    Raises:
        ValueError: If no loss is finite and positive.
    """
    losses = {
        label: np.ma.masked_less_equal(
            np.ma.masked_invalid(own["mean_losses"]), 0
        )
        for label, own in values.items()
    }
    levels = plain_levels(np.ma.concatenate(list(losses.values())).compressed())
    norm = colors.LogNorm(levels[0], levels[-1])
    count = len(values)
    figure = Figure(figsize=(3.6 * count + 1.2, 7.6), layout="constrained")
    figure.suptitle(title)
    contours = []
    for column, (label, own) in enumerate(values.items(), start=1):
        points = own["coordinates"]
        grid = np.meshgrid(points, points, indexing="ij")
        surface = figure.add_subplot(2, count, column, projection="3d")
        _draw_surface(surface, *grid, losses[label], norm)
        low, high = losses[label].min(), losses[label].max()
        surface.set_title(f"{label}: loss {low:.3g} to {high:.3g}")
        axes = figure.add_subplot(2, count, count + column)
        image = axes.contourf(
            *grid, losses[label], levels=levels, cmap="viridis", norm=norm
        )
        axes.contour(
            *grid, losses[label], levels=levels, colors="k", linewidths=0.4
        )
        axes.plot(0, 0, "w+", markersize=9)
        axes.set_title(f"{label} (+: trained weights)")
        axes.set_xlabel("along $d_1$, filter norms")
        axes.set_ylabel("along $d_2$, filter norms")
        axes.set_aspect("equal")
        contours.append(axes)
    bar = figure.colorbar(image, ax=contours, label="loss", ticks=levels)
    bar.ax.set_yticklabels([f"{level:g}" for level in levels])
    bar.ax.minorticks_off()
    figure.savefig(path, dpi=100)


def plain_levels(values: np.ndarray) -> list[float]:
    """Levels 1, 2, 5, 10, 20 .. that enclose positive values.

    Raises:
        ValueError: If there are no values.
    """
    if not values.size:
        raise ValueError("`values` must have a finite positive loss.")
    exponents = range(
        int(np.floor(np.log10(values.min()))),
        int(np.ceil(np.log10(values.max()))) + 2,
    )
    series = [float(f"{m}e{e}") for e in exponents for m in (1, 2, 5)]
    first = max(i for i, v in enumerate(series) if v <= values.min())
    last = min(i for i, v in enumerate(series) if v > values.max())
    return series[first : last + 1]


def _draw_surface(axes, first, second, losses, norm):
    low, high = np.log10([norm.vmin, norm.vmax])
    axes.plot_surface(
        first,
        second,
        np.ma.log10(losses).filled(np.nan),
        cmap="viridis",
        vmin=low,
        vmax=high,
        rcount=len(first),
        ccount=len(first),
        linewidth=0,
    )
    ticks = range(int(np.ceil(low)), int(np.floor(high)) + 1)
    axes.set_zlim(low, high)
    axes.set_zticks(ticks, [f"{10.0**tick:g}" for tick in ticks])
    axes.tick_params(labelsize=7)
    axes.set_xlabel("along $d_1$", fontsize=8)
    axes.set_ylabel("along $d_2$", fontsize=8)
    axes.set_zlabel("loss (logarithmic)", fontsize=8)
