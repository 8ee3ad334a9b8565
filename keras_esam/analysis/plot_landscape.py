"""Pictures of loss landscapes."""

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
    """Draws mean losses over the draws: surfaces above, contours below.

    See `keras_esam.analysis.loss_landscape` for an example. All landscapes have
    the same scale of losses, in height and in colour. It is logarithmic if the
    losses are positive and the largest is more than ten times the smallest.
    Needs Matplotlib (`pip install "keras-esam[analysis]"`).

    Args:
        landscapes: Dict of `Landscape` by name, in the order to be drawn.
        path: Path of the picture, with a suffix that Matplotlib knows.
        title: Optional string, above the whole. Defaults to `None`.

    Raises:
        ValueError: If there are no landscapes, or none has a finite loss.
    """
    with requires("analysis"):
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
    scale = _Scale(np.concatenate(finite))
    count = len(landscapes)
    # Without pyplot, whose figures and backend belong to the user.
    figure = Figure(figsize=(3.6 * count + 1.2, 7.6), layout="constrained")
    figure.suptitle(title)
    contours = []
    for column, (name, landscape) in enumerate(landscapes.items(), start=1):
        surface = figure.add_subplot(2, count, column, projection="3d")
        _draw_surface(surface, landscape, losses[name], scale)
        described = _describe(landscape, losses[name])
        surface.set_title(f"{name}\n{described}", fontsize=10)
        contour = figure.add_subplot(2, count, count + column)
        image = _draw_contours(contour, landscape, losses[name], scale)
        contour.set_title(f"{name} (+: the weights)", fontsize=10)
        contours.append(contour)
    bar = figure.colorbar(image, ax=contours, label="loss", format="%.3g")
    if scale.is_log:
        bar.set_ticks(scale.levels, labels=[f"{v:g}" for v in scale.levels])
        bar.ax.minorticks_off()
    figure.savefig(pathlib.Path(path), dpi=100)


class _Scale:
    """Of heights and colours, the same in all landscapes."""

    def __init__(self, finite):
        from matplotlib import colors

        low, high = finite.min(), finite.max()
        # Or else the rims of sharp minima leave one colour for the flat ones.
        self.is_log = 0 < 10 * low < high
        if self.is_log:
            self.levels = _plain_levels(low, high)
        else:
            if low == high:  # A plane has no contours.
                high = low + max(abs(low), 1.0) * 1e-3
            self.levels = np.linspace(low, high, NUM_LEVELS)
        kind = colors.LogNorm if self.is_log else colors.Normalize
        self.norm = kind(self.levels[0], self.levels[-1])

    def heights(self, losses):
        return np.log10(losses) if self.is_log else losses


def _plain_levels(low, high):
    """Levels 1, 2, 5, 10, 20 .. that enclose the positive losses."""
    exponents = range(
        math.floor(math.log10(low)), math.floor(math.log10(high)) + 2
    )
    levels = [float(f"{m}e{e}") for e in exponents for m in (1, 2, 5)]
    first = max(i for i, level in enumerate(levels) if level <= low)
    last = min(i for i, level in enumerate(levels) if level >= high)
    return levels[first : last + 1]


def _describe(landscape, losses):
    if losses.count() == 0:
        return "no finite loss"
    draws = len(landscape.losses)
    mean = f", mean of {draws} draws" if draws > 1 else ""
    return f"loss {losses.min():.3g} to {losses.max():.3g}{mean}"


def _draw_surface(axes, landscape, losses, scale):
    low, high = scale.heights(np.array([scale.levels[0], scale.levels[-1]]))
    first, second = _grid(landscape)
    axes.plot_surface(
        first,
        second,
        scale.heights(losses).filled(np.nan),
        cmap="viridis",
        vmin=low,
        vmax=high,
        rstride=1,
        cstride=1,
        linewidth=0,
    )
    axes.set_zlim(low, high)
    if scale.is_log:
        ticks = range(math.ceil(low), math.floor(high) + 1)
        axes.set_zticks(ticks, [f"{10.0**tick:g}" for tick in ticks])
    axes.tick_params(labelsize=7)
    axes.set_xlabel("along $d_1$", fontsize=8)
    axes.set_ylabel("along $d_2$", fontsize=8)
    axes.set_zlabel("loss", fontsize=8)


def _draw_contours(axes, landscape, losses, scale):
    first, second = _grid(landscape)
    image = axes.contourf(
        first, second, losses, scale.levels, cmap="viridis", norm=scale.norm
    )
    axes.contour(
        first, second, losses, scale.levels, colors="k", linewidths=0.3
    )
    axes.plot(0, 0, "+", color="white", markersize=9)
    unit = "filter norms" if landscape.filter_normalise else "l2 distance"
    axes.set_xlabel(f"along $d_1$, {unit}")
    axes.set_ylabel(f"along $d_2$, {unit}")
    axes.set_aspect("equal")
    return image


def _grid(landscape):
    points = landscape.coordinates
    return np.meshgrid(points, points, indexing="ij")
