"""Plots of loss landscapes."""

import math
import pathlib
from collections.abc import Mapping

import numpy as np

from keras_esam import arguments
from keras_esam.analysis.loss_landscape import Landscape
from keras_esam.extras import requires

NUM_LEVELS = 24


def plot_landscape(
    landscapes: Mapping[str, Landscape], path, title: str | None = None
) -> None:
    """Plots the mean losses over the draws: surfaces above, contours below.

    See `keras_esam.analysis.loss_landscape` for an example. All landscapes have
    the same scale of losses, in height and in colour. It is logarithmic if the
    losses are positive and the largest is more than ten times the smallest.
    Needs Matplotlib (`pip install "keras-esam[analysis]"`).

    Args:
        landscapes: Dict of name to `Landscape`, in the order to be plotted.
        path: Path of the image, with a suffix that Matplotlib knows.
        title: Optional string, title of the figure. Defaults to `None`.

    Raises:
        ValueError: If there are no landscapes, or none has a finite loss.
    """
    with requires("analysis"):
        from matplotlib import colors
        from matplotlib.figure import Figure

    losses = {
        name: np.ma.masked_invalid(landscape.mean_losses)
        for name, landscape in landscapes.items()
    }
    finite = [mean.compressed() for mean in losses.values()]
    if not finite or not np.concatenate(finite).size:
        raise ValueError(
            "`landscapes` must have finite losses. "
            f"Received: landscapes={arguments.short(landscapes)}"
        )
    levels, is_log = _levels(np.concatenate(finite))
    kind = colors.LogNorm if is_log else colors.Normalize
    norm = kind(levels[0], levels[-1])
    count = len(landscapes)
    # Without pyplot, whose figures and backend belong to the user.
    figure = Figure(figsize=(3.6 * count + 1.2, 7.6), layout="constrained")
    figure.suptitle(title)
    contours = []
    for column, (name, landscape) in enumerate(landscapes.items(), start=1):
        points = landscape.coordinates
        grid = np.meshgrid(points, points, indexing="ij")
        surface = figure.add_subplot(2, count, column, projection="3d")
        _draw_surface(surface, *grid, losses[name], levels, is_log)
        described = _describe(losses[name], len(landscape.losses))
        surface.set_title(f"{name}\n{described}", fontsize=10)
        contour = figure.add_subplot(2, count, count + column)
        contour.set_title(f"{name} (+: the weights)", fontsize=10)
        unit = "filter norms" if landscape.filter_normalise else "l2 distance"
        image = _draw_contours(contour, *grid, losses[name], levels, norm, unit)
        contours.append(contour)
    bar = figure.colorbar(image, ax=contours, label="loss", format="%.3g")
    if is_log:
        bar.set_ticks(levels, labels=[f"{level:g}" for level in levels])
        bar.ax.minorticks_off()
    figure.savefig(pathlib.Path(path), dpi=100)


def _levels(losses):
    """Levels of heights and colours, and whether they are logarithmic."""
    low, high = losses.min(), losses.max()
    # Otherwise the rims of sharp minima leave one colour for flat minima.
    if 0 < 10 * low < high:
        return _plain_levels(low, high), True
    if low == high:  # A plane has no contours.
        high = low + max(abs(low), 1.0) * 1e-3
    return np.linspace(low, high, NUM_LEVELS), False


def _plain_levels(low, high):
    """Levels 1, 2, 5, 10, 20 .. that enclose the positive losses."""
    exponents = range(
        math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1
    )
    levels = np.array([float(f"{m}e{e}") for e in exponents for m in (1, 2, 5)])
    first = np.searchsorted(levels, low, "right") - 1
    last = np.searchsorted(levels, high)
    return levels[first : last + 1]


def _describe(losses, draws):
    if losses.count() == 0:
        return "no finite loss"
    mean = f", mean of {draws} draws" if draws > 1 else ""
    return f"loss {losses.min():.3g} to {losses.max():.3g}{mean}"


def _draw_surface(axes, first, second, losses, levels, is_log):
    heights = np.log10(losses) if is_log else losses
    low, high = np.log10(levels[[0, -1]]) if is_log else levels[[0, -1]]
    axes.plot_surface(
        first,
        second,
        heights.filled(np.nan),
        cmap="viridis",
        vmin=low,
        vmax=high,
        rstride=1,
        cstride=1,
        linewidth=0,
    )
    axes.set_zlim(low, high)
    if is_log:
        ticks = range(math.ceil(low), math.floor(high) + 1)
        axes.set_zticks(ticks, [f"{10.0**tick:g}" for tick in ticks])
    axes.tick_params(labelsize=7)
    axes.set_xlabel("along $d_1$", fontsize=8)
    axes.set_ylabel("along $d_2$", fontsize=8)
    axes.set_zlabel("loss", fontsize=8)


def _draw_contours(axes, first, second, losses, levels, norm, unit):
    image = axes.contourf(
        first, second, losses, levels, cmap="viridis", norm=norm
    )
    axes.contour(first, second, losses, levels, colors="k", linewidths=0.3)
    axes.plot(0, 0, "+", color="white", markersize=9)
    axes.set_xlabel(f"along $d_1$, {unit}")
    axes.set_ylabel(f"along $d_2$, {unit}")
    axes.set_aspect("equal")
    return image
